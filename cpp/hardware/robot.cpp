// Robot: the checks that no motor family can leave out.
// SPDX-License-Identifier: Apache-2.0
#include "hardware/robot.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/errors.hpp"

namespace wallx {
namespace {

std::uint64_t next_serial() noexcept {
  static std::atomic<std::uint64_t> serial{0};
  return ++serial;
}

Result at_joint(ErrorCode code, std::size_t joint) noexcept {
  return {.code = code, .joint = static_cast<std::int16_t>(joint)};
}

}  // namespace

Robot::Robot() : serial_(next_serial()) { measured_.fill(std::nan("")); }

Result Robot::stop_wheels(TimePoint) {
  for (std::size_t j = 0; j < embodiment().joints.size(); ++j)
    if (embodiment().joints[j].mode == JointMode::velocity) return at_joint(ErrorCode::wrong_state, j);
  return {};  // what is in position mode holds by itself
}

Result Robot::read(TimePoint deadline, JointState& state) noexcept {
  const Result result = read_state(deadline, state);
  if (result.code != ErrorCode::wrong_state && result.code != ErrorCode::bus_closed)
    std::copy_n(state.position.begin(), state.num_joints, measured_.begin());
  return result;
}

Result Robot::check(const SafeCommand& command, std::uint64_t tick) const noexcept {
  if (command.robot() != serial_ || command.tick() != tick ||
      command.position().size() != embodiment().joints.size())
    return {.code = ErrorCode::wrong_state};
  for (std::size_t j = 0; j < command.position().size(); ++j)
    if (!std::isfinite(command.position()[j]) || !std::isfinite(command.velocity()[j]))
      return at_joint(ErrorCode::not_finite, j);
  return {};
}

Result Robot::send(SafeCommand&& command, std::uint64_t tick, TimePoint deadline) noexcept {
  if (!has_goal_) return {.code = ErrorCode::wrong_state};
  if (const Result result = check(command, tick); !result.ok()) return result;
  const std::vector<JointSpec>& joints = embodiment().joints;
  for (std::size_t j = 0; j < joints.size(); ++j) {
    const double goal = command.position()[j];
    const double largest = kStepMargin * joints[j].limits.max_velocity * cycle_ + kStepSlack;
    // pulling a goal back toward where the joint stands takes push away, however far
    const bool is_pull_back = (goal_[j] <= goal && goal <= measured_[j]) ||  // NaN: never
                              (goal_[j] >= goal && goal >= measured_[j]);
    const bool is_small = std::abs(goal - goal_[j]) <= largest;
    const bool is_slow = joints[j].mode == JointMode::position ||
                         std::abs(command.velocity()[j]) <= kStepMargin * joints[j].limits.max_velocity;
    if (!(is_small || is_pull_back) || !is_slow) return at_joint(ErrorCode::step_too_large, j);
  }
  const Result result = write_goals(command.position(), command.velocity(), deadline);
  if (result.ok()) std::copy_n(command.position().begin(), joints.size(), goal_.begin());
  return result;
}

Result Robot::enable(SafeCommand&& measured, std::uint64_t tick, TimePoint deadline) noexcept {
  if (const Result result = check(measured, tick); !result.ok()) return result;
  const Result result = switch_on(measured.position(), deadline);
  if (result.ok()) {
    has_goal_ = true;
    std::copy_n(measured.position().begin(), measured.position().size(), goal_.begin());
  }
  return result;
}

Result Robot::limit_torque(std::span<const double> shares, TimePoint deadline) noexcept {
  if (shares.size() != embodiment().joints.size()) return {.code = ErrorCode::wrong_state};
  for (std::size_t j = 0; j < shares.size(); ++j) {
    if (!std::isfinite(shares[j])) return at_joint(ErrorCode::not_finite, j);
    if (shares[j] <= 0 || shares[j] > 1) return at_joint(ErrorCode::out_of_range, j);
  }
  return write_torque_limits(shares, deadline);
}

Result Robot::limit_torque(double share, TimePoint deadline) noexcept {
  JointArray shares;
  shares.fill(share);
  return limit_torque({shares.data(), embodiment().joints.size()}, deadline);
}

Result Robot::release(TimePoint deadline) noexcept {
  const Result result = switch_off(deadline);
  if (result.ok()) has_goal_ = false;
  return result;
}

void check_drops(const Embodiment& embodiment) {
  if (embodiment.accepts_drop) return;
  std::string names;
  for (const JointSpec& joint : embodiment.joints)
    if (joint.gravity_loaded && joint.drive_timeout > 0 && joint.drive_action == DriveAction::lets_go)
      names += (names.empty() ? "'" : ", '") + joint.name + "'";
  if (!names.empty())
    throw ConfigError(
        "embodiment '" + embodiment.name + "': the drives of " + names +
        " let go when this computer falls silent, and these joints fall then; say accept_drop = "
        "true (armed) or accept_drop = false (not armed, the drives hold) under [robot] of the "
        "robot's file");
}

}  // namespace wallx
