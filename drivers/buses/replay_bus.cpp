// ReplayBus: the log in memory, and a place in it.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/replay_bus.hpp"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/errors.hpp"
#include "drivers/buses/candump_log.hpp"

namespace wallx {
namespace {

bool is_same(const CanFrame& a, const CanFrame& b) noexcept {
  return a.id == b.id && a.is_extended == b.is_extended && a.is_fd == b.is_fd &&
         a.is_bit_rate_switched == b.is_bit_rate_switched && a.size == b.size &&
         std::equal(a.data.begin(), a.data.begin() + a.size, b.data.begin());
}

void sleep_until(TimePoint time) noexcept {
  const auto since = time.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  const timespec until{.tv_sec = seconds.count(),
                       .tv_nsec = std::chrono::nanoseconds(since - seconds).count()};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace

ReplayLog::ReplayLog(const BusConfig& config, bool is_bytes) : name_(config.port) {
  std::ifstream file(config.port);
  if (!file) throw ConfigError("log " + name_ + " cannot be read: " + std::strerror(errno));
  const CandumpEvent wanted = is_bytes ? CandumpEvent::bytes : CandumpEvent::frame;
  std::string text;
  std::chrono::nanoseconds last{};
  for (int number = 1; std::getline(file, text); ++number) {
    CandumpLine line;
    const CandumpEvent event = parse_candump(text, line);
    const std::string place = "log " + name_ + ", line " + std::to_string(number) + ": ";
    if (event == CandumpEvent::other) {
      num_ignored_ += !text.empty();
      continue;
    }
    if (event != wanted)
      throw ConfigError(place + "'" + text.substr(0, 80) + "' is not like " +
                        (is_bytes
                             ? "'(1436509052.249713) tty FFFF0102 R'; record with `record` in [bus] of "
                               "the robot's file"
                             : "'(1436509052.249713) can0 123#DEADBEEF R'; record with `candump -L -x`, or "
                               "with `record` in [bus] of the robot's file"));
    if (!config.interface.empty() && line.channel != config.interface) continue;
    if (line.stamp < last)
      throw ConfigError(place +
                        "its time stamp is before that of an earlier line; sort the log, or choose one "
                        "channel with `interface` in [bus] of the robot's file");
    if (commands_.empty() && answers_.empty()) first_ = line.stamp;
    last = line.stamp;
    (line.is_sent ? commands_ : answers_).push_back({line.stamp, number, commands_.size(), line.frame});
    has_fd_ |= line.frame.is_fd;
  }
  if (commands_.empty() && answers_.empty())
    throw ConfigError("log " + name_ + " has " + (is_bytes ? "no bytes" : "no frame") +
                      (config.interface.empty() ? "" : " of channel '" + config.interface + "'"));
  origins_.resize(commands_.size() + 1);
}

void ReplayLog::open() {
  if (is_open_) throw BusError("log " + name_ + " is already open; close it first");
  is_open_ = true;
  num_sent_ = num_received_ = 0;
  left_at_ = -1;
  origins_[0] = Clock::now() - first_;
}

std::string ReplayLog::trouble() const {
  const int line = left_at_;
  if (line < 0) return {};
  return line == 0 ? "the log ends here; record a longer one"
                   : "the log has another command in line " + std::to_string(line) +
                         " than was sent; replay what was recorded with the same robot's file";
}

Result ReplayLog::check() const noexcept {
  return {.code = is_open_ && left_at_ < 0 ? ErrorCode::ok : ErrorCode::bus_closed};
}

void ReplayLog::sent() noexcept {
  const Entry& command = commands_[num_sent_];
  origins_[++num_sent_] = Clock::now() - command.stamp;
}

Result ReplayLog::leave() noexcept {
  left_at_ = expected() ? expected()->line : 0;
  return {.code = ErrorCode::bad_reply, .detail = left_at_};
}

// when the next answer is due; false: a command is awaited first, or there is none
bool ReplayLog::next_due(TimePoint& due) const noexcept {
  if (num_received_ == answers_.size() || answers_[num_received_].num_commands > num_sent_) return false;
  due = origins_[answers_[num_received_].num_commands] + answers_[num_received_].stamp;
  return true;
}

const ReplayLog::Entry* ReplayLog::due(TimePoint now, TimePoint& at) const noexcept {
  return next_due(at) && at <= now ? &answers_[num_received_] : nullptr;
}

Result ReplayLog::wait(TimePoint deadline) noexcept {
  if (num_received_ == answers_.size() && num_sent_ == commands_.size()) {
    left_at_ = 0;
    return {.code = ErrorCode::bus_closed};
  }
  TimePoint due;
  if (!next_due(due) || due > std::max(deadline, Clock::now())) {
    sleep_until(deadline);
    return {.code = ErrorCode::timeout};
  }
  sleep_until(due);
  return {};
}

void ReplayBus::open() {
  log_.open();
  num_sent_ = num_read_ = 0;
}

Result ReplayBus::transmit(std::span<const std::uint8_t> bytes, TimePoint) noexcept {
  if (const Result open = log_.check(); !open.ok()) return open;
  for (const std::uint8_t byte : bytes) {
    const ReplayLog::Entry* expected = log_.expected();
    if (!expected || expected->frame.data[num_sent_] != byte) return log_.leave();
    if (++num_sent_ < expected->frame.size) continue;
    log_.sent();
    num_sent_ = 0;
  }
  return {};
}

Result ReplayBus::receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                          std::size_t& received) noexcept {
  received = 0;
  if (const Result open = log_.check(); !open.ok()) return open;
  if (buffer.empty()) return {.code = ErrorCode::out_of_range};
  if (const Result waited = log_.wait(deadline); !waited.ok()) return waited;
  TimePoint at;
  const TimePoint now = Clock::now();
  while (received < buffer.size()) {
    const ReplayLog::Entry* entry = log_.due(now, at);
    if (!entry) break;
    const std::size_t count = std::min(buffer.size() - received, entry->frame.size - num_read_);
    std::copy_n(entry->frame.data.begin() + static_cast<std::ptrdiff_t>(num_read_), count,
                buffer.begin() + static_cast<std::ptrdiff_t>(received));
    received += count;
    num_read_ += count;
    if (num_read_ < entry->frame.size) break;
    log_.received();
    num_read_ = 0;
  }
  return {};
}

Result ReplayBus::discard_input() noexcept {
  if (const Result open = log_.check(); !open.ok()) return open;
  TimePoint at;
  for (const TimePoint now = Clock::now(); log_.due(now, at); num_read_ = 0) log_.received();
  return {};
}

Result ReplayCanBus::transmit(std::span<const CanFrame> frames, TimePoint) noexcept {
  if (const Result open = log_.check(); !open.ok()) return open;
  if (const Result checked = check_frames(frames, is_fd()); !checked.ok()) return checked;
  for (const CanFrame& frame : frames) {
    if (!log_.expected() || !is_same(log_.expected()->frame, frame)) return log_.leave();
    log_.sent();
  }
  return {};
}

Result ReplayCanBus::receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept {
  received = 0;
  if (const Result open = log_.check(); !open.ok()) return open;
  if (frames.empty()) return {.code = ErrorCode::out_of_range};
  if (const Result waited = log_.wait(deadline); !waited.ok()) return waited;
  TimePoint at;
  const TimePoint now = Clock::now();
  while (received < frames.size()) {
    const ReplayLog::Entry* entry = log_.due(now, at);
    if (!entry) break;
    frames[received] = entry->frame;
    frames[received++].received_at = at;
    log_.received();
  }
  return {};
}

Result ReplayCanBus::discard_input() noexcept {
  if (const Result open = log_.check(); !open.ok()) return open;
  TimePoint at;
  for (const TimePoint now = Clock::now(); log_.due(now, at);) log_.received();
  return {};
}

}  // namespace wallx
