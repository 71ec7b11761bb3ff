// ServoLine: asks the servos of one half-duplex bus and collects their answers; what a frame looks like is
// the Protocol's. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "drivers/motors/bus_gone.hpp"
#include "hardware/bus.hpp"

namespace wallx {

// Asks one servo once; its answer must have as many bytes as `parameters`. Result: timeout: it did not come;
// bus_closed. No throw, no allocation.
template <class Parser, class Frame>
Result ask_servo(Bus& bus, Parser& parser, std::uint8_t id, const Frame& request,
                 std::span<std::uint8_t> parameters, TimePoint deadline) noexcept {
  if (const Result result = bus.discard_input(); !result.ok()) return result;
  if (const Result result = bus.transmit(request.bytes(), deadline); !result.ok()) return result;
  parser.reset(parameters.size());
  std::array<std::uint8_t, Parser::kMaxPush> input;
  while (true) {
    std::size_t received = 0;
    if (const Result result = bus.receive(input, deadline, received); !result.ok()) return result;
    parser.push({input.data(), received});
    typename Parser::Reply reply;
    while (parser.next(reply)) {
      if (reply.id != id || reply.parameters.size() != parameters.size()) continue;
      std::copy(reply.parameters.begin(), reply.parameters.end(), parameters.begin());
      return {};
    }
    if (bus.now() >= deadline) return {.code = ErrorCode::timeout};
  }
}

inline constexpr int kNumAsks = 3;
inline constexpr Duration kAnswerTime =
    std::chrono::milliseconds(50);  // an adapter may keep an answer for 16 ms

// Not for the loop: up to kNumAsks times kAnswerTime. False: no answer. Throws BusError when the bus goes
// away.
template <class Parser, class Frame>
bool ask_patiently(Bus& bus, Parser& parser, std::uint8_t id, const Frame& request,
                   std::span<std::uint8_t> parameters) {
  for (int attempt = 0; attempt < kNumAsks; ++attempt) {
    const Result result = ask_servo(bus, parser, id, request, parameters, bus.now() + kAnswerTime);
    if (result.ok()) return true;
    if (result.code == ErrorCode::bus_closed) throw_bus_gone(bus, "servo " + std::to_string(id));
  }
  return false;
}

// Protocol: Frame with bytes(); Parser with Reply (id, error, parameters), reset(max_parameters), push,
// next(Reply), num_skipped, kMaxPush; kMaxServos, kMaxAnswer [bytes]; num_parameters(n, servos): of the
// longest frame that answers a request for n bytes; for_each_part(reply, n, servos, visit): the answers of
// single servos in one frame.
template <class Protocol>
class ServoLine {
 public:
  using Frame = typename Protocol::Frame;
  using Reply = typename Protocol::Parser::Reply;

  struct Answer {
    bool is_fresh = false;  // belongs to the present request
    std::uint8_t error = 0;
    std::array<std::uint8_t, Protocol::kMaxAnswer> parameters{};
    TimePoint arrived_at{};
  };

  // `ids` in joint order, no more than kMaxServos.
  ServoLine(std::unique_ptr<Bus> bus, const std::vector<std::uint8_t>& ids) : bus_(std::move(bus)) {
    size_ = ids.size();
    std::copy(ids.begin(), ids.end(), ids_.begin());
    joint_of_id_.fill(-1);
    for (std::size_t i = 0; i < size_; ++i) joint_of_id_[ids_[i]] = static_cast<std::int8_t>(i);
  }

  Bus& bus() const noexcept { return *bus_; }
  std::size_t size() const noexcept { return size_; }
  std::span<const std::uint8_t> ids() const noexcept { return {ids_.data(), size_}; }
  const Answer& operator[](std::size_t joint) const noexcept { return answers_[joint]; }

  // Not for the loop: as ask_patiently().
  bool ask_one(std::size_t joint, const Frame& request, std::span<std::uint8_t> parameters) {
    return ask_patiently(*bus_, parser_, ids_[joint], request, parameters);
  }

  // Loop calls.

  // Every servo answers `num_bytes`, in the order of ids(). Result: ok when every one did; timeout or
  // bad_reply with the first that did not; bus_closed.
  Result ask_all(const Frame& request, std::size_t num_bytes, TimePoint deadline) noexcept {
    for (Answer& answer : answers_) answer.is_fresh = false;
    if (const Result result = bus_->discard_input(); !result.ok()) return result;
    if (const Result result = bus_->transmit(request.bytes(), deadline); !result.ok()) return result;

    // one wake-up for all answers but the last instead of one for each
    const std::size_t wire_bytes = Protocol::wire_bytes_before_last(request, num_bytes, size_);
    const Duration travels = bus_->byte_time() * static_cast<int>(wire_bytes);
    if (travels > Duration{}) std::this_thread::sleep_until(std::min(deadline, bus_->now() + travels));

    parser_.reset(Protocol::num_parameters(num_bytes, size_));
    std::size_t num_fresh = 0;
    bool has_strange = false;
    TimePoint now{};
    while (num_fresh < size_) {
      std::size_t received = 0;
      const Result result = bus_->receive(input_, deadline, received);
      if (result.code == ErrorCode::timeout) break;
      if (!result.ok()) return result;
      now = bus_->now();
      parser_.push({input_.data(), received});
      Reply frame;
      while (parser_.next(frame)) {
        Protocol::for_each_part(frame, num_bytes, size_, [&](const Reply& reply) {
          const int joint = joint_of_id_[reply.id];
          if (joint < 0 || reply.parameters.size() != num_bytes) {
            has_strange = true;
            return;
          }
          // servos answer in the order asked, so an answer that came before this one but belongs behind it is
          // a late one of the previous cycle
          for (std::size_t later = static_cast<std::size_t>(joint); later < size_; ++later) {
            num_fresh -= answers_[later].is_fresh;
            answers_[later].is_fresh = false;
          }
          Answer& answer = answers_[static_cast<std::size_t>(joint)];
          std::copy(reply.parameters.begin(), reply.parameters.end(), answer.parameters.begin());
          answer.error = reply.error;
          answer.arrived_at = now;
          answer.is_fresh = true;
          ++num_fresh;
        });
      }
      if (num_fresh < size_ && now >= deadline) break;  // a line that never falls silent must not keep us
    }
    for (std::size_t i = 0; i < size_; ++i) {
      if (answers_[i].is_fresh) continue;
      const bool is_bad = has_strange || parser_.num_skipped() > 0;
      return {.code = is_bad ? ErrorCode::bad_reply : ErrorCode::timeout,
              .joint = static_cast<std::int16_t>(i)};
    }
    return {};
  }

  // One servo, one try; what ask_all() found stays as it is.
  Result ask(std::size_t joint, const Frame& request, std::span<std::uint8_t> parameters,
             TimePoint deadline) noexcept {
    return ask_servo(*bus_, parser_, ids_[joint], request, parameters, deadline);
  }

  // Like ask_all(), a few tries of 10 ms each: for what must be known before anything moves.
  Result ask_all_surely(const Frame& request, std::size_t num_bytes, TimePoint deadline) noexcept {
    Result result;
    for (int i = 0; i < kNumAsks; ++i) {
      result = ask_all(request, num_bytes, std::min(deadline, bus_->now() + kReadBackTime));
      if (result.ok() || result.code == ErrorCode::bus_closed) break;
    }
    return result;
  }

  // Nobody answers.
  Result tell(const Frame& request, TimePoint deadline) noexcept {
    return bus_->transmit(request.bytes(), deadline);
  }

 private:
  static constexpr Duration kReadBackTime = std::chrono::milliseconds(10);

  const std::unique_ptr<Bus> bus_;
  std::size_t size_ = 0;
  std::array<std::uint8_t, Protocol::kMaxServos> ids_{};
  std::array<std::int8_t, 256> joint_of_id_{};  // -1: no joint
  std::array<Answer, Protocol::kMaxServos> answers_{};
  std::array<std::uint8_t, Protocol::Parser::kMaxPush> input_{};
  typename Protocol::Parser parser_;
};

}  // namespace wallx
