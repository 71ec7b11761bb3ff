// SlcanBus: lines cut out of the byte stream.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/slcan_bus.hpp"

#include <algorithm>
#include <cstring>

#include "base/errors.hpp"

namespace wallx {
namespace {

constexpr int kMaxReads = 16;  // of one call after its deadline
constexpr auto kAnswerTime = std::chrono::milliseconds(100);

std::string_view need(std::optional<std::string_view> command, const BusConfig& config, const char* key,
                      int rate, const char* known) {
  if (command) return *command;
  throw ConfigError(std::string(key) + " of slcan bus " + config.port + " is " + std::to_string(rate) +
                    ", must be one of " + known + " bit/s; set it in the robot's file");
}

std::span<const std::uint8_t> bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace

SlcanBus::SlcanBus(const BusConfig& config)
    : serial_(config.port, config.baud_rate),
      bit_rate_command_(need(slcan_bit_rate_command(config.bit_rate), config, "bit_rate", config.bit_rate,
                             "10000, 20000, 50000, 100000, 125000, 250000, 500000, 1000000")),
      data_bit_rate_command_(config.data_bit_rate == 0
                                 ? std::string_view()
                                 : need(slcan_data_bit_rate_command(config.data_bit_rate), config,
                                        "data_bit_rate", config.data_bit_rate, "2000000, 5000000")),
      is_fd_(config.data_bit_rate > 0) {}

void SlcanBus::open() {
  serial_.open();
  first_ = size_ = line_.size = 0;
  is_too_long_ = false;
  num_ignored_ = 0;
  try {
    // half a line of an earlier program may still stand in the adapter: end it. A channel that was not open
    // refuses to close, which is no error
    if (!serial_.transmit(bytes("\r\rC\r"), Clock::now() + kAnswerTime).ok())
      throw BusError("slcan bus " + name() +
                     " does not take a command; unplug the adapter and plug it in again");
    // its answers come in any number of pieces: until it is silent, or talks on its own account
    const TimePoint enough = Clock::now() + 3 * kAnswerTime;
    while (fill(std::min(Clock::now() + kAnswerTime, enough)).ok() && Clock::now() < enough) {
    }
    size_ = 0;
    command(bit_rate_command_);
    if (is_fd_) command(data_bit_rate_command_);
    command("O\r");
  } catch (...) {
    serial_.close();
    throw;
  }
  num_ignored_ = 0;
}

// sends one setting and waits for its answer; an adapter that stays silent has none to give
void SlcanBus::command(std::string_view text) {
  const TimePoint deadline = Clock::now() + kAnswerTime;
  const std::string shown(text.substr(0, text.size() - 1));
  if (!serial_.transmit(bytes(text), deadline).ok())
    throw BusError("slcan bus " + name() + " does not take '" + shown +
                   "'; unplug the adapter and plug it in again");
  while (true) {
    const Result result = fill(deadline);
    if (result.code == ErrorCode::timeout) return;
    if (!result.ok()) throw BusError("slcan bus " + name() + " went away while it was being set up");
    while (size_ > 0) {
      const std::uint8_t byte = input_[first_++];
      --size_;
      if (byte == '\r') return;
      if (byte == '\a')
        throw BusError("slcan bus " + name() + ": the adapter refuses '" + shown +
                       (text[0] == 'O'   ? "' (open the channel)"
                        : text[0] == 'Y' ? "' (data bit rate; can it do CAN FD?)"
                                         : "' (bit rate)") +
                       "; correct [bus] in the robot's file or use another adapter");
    }
  }
}

void SlcanBus::close() noexcept {
  if (!serial_.is_open()) return;
  (void)serial_.transmit(bytes("C\r"), Clock::now() + std::chrono::milliseconds(20));
  serial_.close();
}

Result SlcanBus::transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept {
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  if (const Result checked = check_frames(frames, is_fd_); !checked.ok()) return checked;
  // all that fits in one write: an adapter sees one USB packet instead of many
  std::array<std::uint8_t, 1024> text;
  std::size_t size = 0;
  for (const CanFrame& frame : frames) {
    const SlcanLine line = encode_slcan(frame);
    if (size + line.size > text.size()) {
      if (const Result sent = serial_.transmit({text.data(), size}, deadline); !sent.ok()) return sent;
      size = 0;
    }
    std::memcpy(text.data() + size, line.text.data(), line.size);
    size += line.size;
  }
  return size > 0 ? serial_.transmit({text.data(), size}, deadline) : Result{};
}

// waits for more bytes; input_ must be empty. A tty does not say when bytes came: those that are there
// already may have come any time since it was last found empty, and are said to be as old as that.
Result SlcanBus::fill(TimePoint deadline) noexcept {
  first_ = 0;
  const TimePoint begin = Clock::now();
  Result result = serial_.receive(input_, begin, size_);
  arrived_at_ = emptied_at_;
  if (result.code == ErrorCode::timeout) {
    result = serial_.receive(input_, deadline, size_);
    arrived_at_ = Clock::now();
  }
  if (size_ < input_.size()) emptied_at_ = begin;
  return result;
}

// the next frame out of input_
bool SlcanBus::take(CanFrame& frame, bool& is_refused) noexcept {
  while (size_ > 0) {
    const char c = static_cast<char>(input_[first_++]);
    --size_;
    if (c != '\r' && c != '\a') {
      if (line_.size < line_.text.size())
        line_.text[line_.size++] = c;
      else
        is_too_long_ = true;
      continue;
    }
    const SlcanEvent event = is_too_long_ && c == '\r'
                                 ? SlcanEvent::other
                                 : decode_slcan({line_.text.data(), line_.size}, c, frame);
    line_.size = 0;
    is_too_long_ = false;
    if (event == SlcanEvent::frame) {
      frame.received_at = arrived_at_;
      return true;
    }
    is_refused |= event == SlcanEvent::refusal;
    num_ignored_ += event != SlcanEvent::acknowledgement;
  }
  return false;
}

Result SlcanBus::receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept {
  received = 0;
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  if (frames.empty()) return {.code = ErrorCode::out_of_range};
  bool is_refused = false;
  for (int i = 0; i < kMaxReads || Clock::now() < deadline; ++i) {
    while (received < frames.size() && take(frames[received], is_refused)) ++received;
    if (received > 0) return {};
    if (is_refused) return {.code = ErrorCode::bad_reply, .detail = '\a'};
    if (const Result result = fill(deadline); !result.ok()) return result;
  }
  return {.code = ErrorCode::timeout};  // nothing but noise, and no end of it
}

Result SlcanBus::discard_input() noexcept {
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  // taken apart and dropped, so that a line which has only begun stays whole. Bounded: a line that never
  // falls silent must not keep the loop here
  for (int i = 0; i < kMaxReads; ++i) {
    CanFrame dropped;
    bool is_refused = false;
    while (take(dropped, is_refused)) {
    }
    const Result result = fill(TimePoint{});
    if (result.code == ErrorCode::timeout) return {};
    if (!result.ok()) return result;
  }
  size_ = 0;
  line_.size = 0;
  return {};
}

}  // namespace wallx
