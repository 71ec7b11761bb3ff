// SafeCommand: joint positions that passed the SafetyLimiter, for one robot and one tick; nothing else
// reaches a motor. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/joint.hpp"

namespace wallx {

class SafetyLimiter;  // in control/, the only maker

class SafeCommand {
 public:
  SafeCommand(SafeCommand&&) noexcept = default;
  SafeCommand& operator=(SafeCommand&&) noexcept = default;
  SafeCommand(const SafeCommand&) = delete;
  SafeCommand& operator=(const SafeCommand&) = delete;

  std::span<const double> position() const noexcept { return {position_.data(), num_joints_}; }  // [rad]
  // what the positions change by, for drives in velocity mode [rad/s]
  std::span<const double> velocity() const noexcept { return {velocity_.data(), num_joints_}; }
  std::uint64_t tick() const noexcept { return tick_; }
  std::uint64_t robot() const noexcept { return robot_; }

 private:
  friend class SafetyLimiter;
  SafeCommand(std::uint64_t robot, std::uint64_t tick, std::size_t num_joints) noexcept
      : robot_(robot), tick_(tick), num_joints_(num_joints) {}

  std::uint64_t robot_;  // Robot::serial()
  std::uint64_t tick_;
  std::size_t num_joints_;
  JointArray position_{};
  JointArray velocity_{};
};

}  // namespace wallx
