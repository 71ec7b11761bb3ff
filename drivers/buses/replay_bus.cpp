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

ReplayBus::ReplayBus(const BusConfig& config) : name_(config.port) {
  std::ifstream file(config.port);
  if (!file) throw ConfigError("CAN log " + name_ + " cannot be read: " + std::strerror(errno));
  std::string text;
  std::chrono::nanoseconds last{};
  for (int number = 1; std::getline(file, text); ++number) {
    CandumpLine line;
    const CandumpEvent event = parse_candump(text, line);
    const std::string place = "CAN log " + name_ + ", line " + std::to_string(number) + ": ";
    if (event == CandumpEvent::malformed)
      throw ConfigError(
          place + "'" + text.substr(0, 80) +
          "' is not like '(1436509052.249713) can0 123#DEADBEEF R'; record with `candump -L -x`");
    if (event == CandumpEvent::other) {
      num_ignored_ += !text.empty();
      continue;
    }
    if (!config.interface.empty() && line.channel != config.interface) continue;
    if (line.stamp < last)
      throw ConfigError(place +
                        "its time stamp is before that of an earlier line; sort the log, or choose one "
                        "channel with `interface` in [bus] of the robot's file");
    if (commands_.empty() && answers_.empty()) first_ = line.stamp;
    last = line.stamp;
    (line.is_sent ? commands_ : answers_).push_back({line.stamp, number, commands_.size(), line.frame});
    is_fd_ |= line.frame.is_fd;
  }
  if (commands_.empty() && answers_.empty())
    throw ConfigError("CAN log " + name_ + " has no frame" +
                      (config.interface.empty() ? "" : " of channel '" + config.interface + "'"));
  origins_.resize(commands_.size() + 1);
}

void ReplayBus::open() {
  if (is_open_) throw BusError("CAN log " + name_ + " is already open; close it first");
  is_open_ = true;
  num_sent_ = num_received_ = 0;
  origins_[0] = Clock::now() - first_;
}

Result ReplayBus::transmit(std::span<const CanFrame> frames, TimePoint) noexcept {
  if (!is_open_) return {.code = ErrorCode::bus_closed};
  if (const Result checked = check_frames(frames, is_fd_); !checked.ok()) return checked;
  for (const CanFrame& frame : frames) {
    if (num_sent_ == commands_.size()) return {.code = ErrorCode::bad_reply};
    const Entry& expected = commands_[num_sent_];
    if (!is_same(expected.frame, frame)) return {.code = ErrorCode::bad_reply, .detail = expected.line};
    origins_[++num_sent_] = Clock::now() - expected.stamp;
  }
  return {};
}

// when the next answer is due; false: a command is awaited first, or there is none
bool ReplayBus::next_due(TimePoint& due) const noexcept {
  if (num_received_ == answers_.size() || answers_[num_received_].num_commands > num_sent_) return false;
  due = origins_[answers_[num_received_].num_commands] + answers_[num_received_].stamp;
  return true;
}

Result ReplayBus::receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept {
  received = 0;
  if (!is_open_) return {.code = ErrorCode::bus_closed};
  if (frames.empty()) return {.code = ErrorCode::out_of_range};
  if (num_received_ == answers_.size() && num_sent_ == commands_.size())
    return {.code = ErrorCode::bus_closed};
  TimePoint due;
  if (!next_due(due) || due > std::max(deadline, Clock::now())) {
    sleep_until(deadline);
    return {.code = ErrorCode::timeout};
  }
  sleep_until(due);
  for (const TimePoint now = Clock::now(); received < frames.size() && next_due(due) && due <= now;
       ++num_received_) {
    frames[received] = answers_[num_received_].frame;
    frames[received++].received_at = due;
  }
  return {};
}

Result ReplayBus::discard_input() noexcept {
  if (!is_open_) return {.code = ErrorCode::bus_closed};
  TimePoint due;
  for (const TimePoint now = Clock::now(); next_due(due) && due <= now;) ++num_received_;
  return {};
}

}  // namespace wallx
