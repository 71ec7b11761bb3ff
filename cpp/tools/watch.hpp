// Watch: waits for a robot's owner to die or to stall, then stops what must not go on; never takes torque
// off. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/time.hpp"
#include "hardware/heartbeat.hpp"
#include "hardware/robot.hpp"

namespace wallx {

inline constexpr Duration kWatchPeriod = std::chrono::milliseconds(20);
inline constexpr Duration kStall = std::chrono::milliseconds(500);  // without a beat: the owner has stalled
inline constexpr int kFarewells = 3;  // how often a dead owner's robot is told to stop

enum class WatchEvent : std::uint8_t { none, left, died };  // what the pipe says

// What to do now; pure.
class Watch {
 public:
  enum class Act : std::uint8_t { nothing, seize_and_stop, stop, leave };
  explicit Watch(TimePoint now) : last_beat_(now) {}
  Act decide(TimePoint now, std::uint64_t beats, WatchEvent event) noexcept;
  bool has_seized() const noexcept { return has_seized_; }

 private:
  TimePoint last_beat_;
  std::uint64_t beats_ = 0;
  bool has_seized_ = false;
};

// Blocks until the owner leaves (a byte on `pipe`) or has died (its end is closed) and the robot was told to
// stop. Returns whether it acted. The robot's bus is an inherited descriptor.
bool watch(Robot& robot, Heartbeat& heartbeat, int pipe);

}  // namespace wallx
