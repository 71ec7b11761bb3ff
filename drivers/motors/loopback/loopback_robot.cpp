// LoopbackRobot: the command becomes the measurement.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/loopback/loopback_robot.hpp"

#include <algorithm>

#include "base/errors.hpp"

namespace wallx {

LoopbackRobot::LoopbackRobot(Embodiment embodiment) : embodiment_(std::move(embodiment)) {
  const std::size_t count = embodiment_.joints.size();
  if (count == 0 || count > kMaxJoints)
    throw ConfigError("embodiment '" + embodiment_.name + "' has " + std::to_string(count) +
                      " joints, must be 1.." + std::to_string(kMaxJoints));
  for (std::size_t j = 0; j < count; ++j) position_[j] = embodiment_.joints[j].rest_position;
}

Result LoopbackRobot::read_state(TimePoint deadline, JointState& state) noexcept {
  if (!is_connected_) return while_connected();
  state.num_joints = embodiment_.joints.size();
  const TimePoint now = std::min(Clock::now(), deadline);  // a simulated clock may have passed long ago
  for (std::size_t j = 0; j < state.num_joints; ++j) {
    state.position[j] = position_[j];
    state.velocity[j] = velocity_[j];
    state.sampled_at[j] = now;
  }
  return {};
}

Result LoopbackRobot::write_goals(std::span<const double> position, std::span<const double> velocity,
                                  TimePoint) noexcept {
  if (!is_connected_) return while_connected();
  std::ranges::copy(position, position_.begin());
  std::ranges::copy(velocity, velocity_.begin());
  return {};
}

Result LoopbackRobot::switch_on(std::span<const double>, TimePoint) noexcept { return while_connected(); }
Result LoopbackRobot::write_torque_limits(std::span<const double>, TimePoint) noexcept {
  return while_connected();
}
Result LoopbackRobot::switch_off(TimePoint) noexcept { return while_connected(); }

}  // namespace wallx
