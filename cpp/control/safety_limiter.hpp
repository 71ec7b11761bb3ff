// SafetyLimiter: the last function before the bus; turns wanted joint positions into commands that keep every
// limit. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/joint.hpp"
#include "hardware/safe_command.hpp"

namespace wallx {

// why a joint's command is not its target; bits, 0: it is, bit for bit
enum LimitReason : std::uint16_t {
  kLimitPosition = 1,  // the target lies beyond a limit, or could not be stopped at before one
  kLimitVelocity = 2,
  kLimitAcceleration = 4,
  kLimitJerk = 8,
  kLimitNotFinite = 16,            // the target is NaN or infinite: the command brakes
  kLimitYieldedJerk = 32,          // not all limits could be kept: jerk gave way
  kLimitYieldedAcceleration = 64,  // ... and acceleration too
  kLimitStepCap = 128,             // the independent step check refused the command: a fault of this program
  kLimitFollowing = 256,           // the joint is too far from its command, which was pulled back to it
};
inline constexpr std::size_t kNumLimitReasons = 9;

struct LimitReasons {
  std::array<std::uint16_t, kMaxJoints> joint{};  // LimitReason bits
  std::uint16_t any = 0;                          // of all joints

  bool is_fault() const noexcept { return (any & (kLimitNotFinite | kLimitStepCap)) != 0; }
};

// The reference is the last command (p, v, a: its finite differences), never the measurement.
//
// Why no limit is ever exceeded: call a state certified when the discrete stop from it (stop_profile.hpp)
// keeps |v| <= V, |a| <= A, |j| <= J and takes no step outward beyond a position limit. The state after
// reset() is at rest, hence certified. From a certified state there is always an allowed step to a certified
// state: the first step of its own stop, since the stop from there is the rest of it. limit() takes another
// step only after checking that its state is certified, and brake() takes no other. A pose found outside the
// position limits may only move toward the inside. Where no certified step exists (the limits were tightened
// in motion), jerk gives way first, then acceleration; velocity and position never.
//
// Which step: the target itself where it can be reached and certified, and (while catching up) stayed with.
// Otherwise the acceleration from which a jerk-limited stop, seen from the moving target, ends on the target;
// found by bisection. A single target that is reachable in one period is taken at its word, so it may be
// overshot by up to J dt^3 afterwards.
//
// Loop calls: noexcept, no allocation, bounded: tens of microseconds for six joints that are all limited.
class SafetyLimiter {
 public:
  // robot: Robot::serial(); period in [s]. Throws ConfigError: limits that are not finite, empty or not
  // positive.
  SafetyLimiter(std::span<const JointSpec> joints, std::uint64_t robot, double period);

  std::size_t num_joints() const noexcept { return num_joints_; }
  double period() const noexcept { return period_; }

  // The command becomes the measured pose, at rest; nothing when a value is not finite.
  std::optional<SafeCommand> reset(std::span<const double> measured, std::uint64_t tick) noexcept;
  // One period toward `target` (num_joints) [rad].
  SafeCommand limit(std::span<const double> target, std::uint64_t tick, LimitReasons& reasons) noexcept;
  // One period of braking along the limits; at rest it keeps the last command exactly.
  SafeCommand brake(std::uint64_t tick, LimitReasons& reasons) noexcept;

  // Pulls the command of a joint back that stands further from it than its largest following error: to the
  // measured position and the joint's static sag toward the old command, or for one that grips, to its
  // largest following error. At rest there. Joints in velocity mode are left alone. Whether it was pulled
  // back.
  bool pull_back(std::size_t joint, double measured) noexcept;

  // Share of the velocity limits in force (0..1]; meant for a robot at rest.
  void set_velocity_share(double share) noexcept { velocity_share_ = share; }

  bool is_at_rest() const noexcept;
  std::span<const double> command() const noexcept { return {position_.data(), num_joints_}; }   // [rad]
  std::span<const double> velocity() const noexcept { return {velocity_.data(), num_joints_}; }  // [rad/s]
  // longest time that braking can take from any state within the limits [s]
  double max_stop_time() const noexcept;

 private:
  struct State {
    double p, v, a;
  };
  struct Bounds {
    double min_p, max_p, v, a, j;
  };
  struct Goal {  // the target with its finite differences
    double p, v, a;
  };

  Bounds bounds(std::size_t joint) const noexcept;
  State step_by(const State& from, double acceleration) const noexcept;
  State braking_step(const State& from, const Bounds& bounds) const noexcept;
  bool is_certified(const State& next, const Bounds& bounds, double slack) const noexcept;
  bool can_reach(const State& from, double target, const Bounds& bounds, State& next) const noexcept;
  bool can_stay(const State& next, const Goal& goal, const Bounds& bounds) const noexcept;
  double landing(const State& next, const Goal& goal, const Bounds& bounds) const noexcept;
  State choose(const State& from, const Goal& goal, const Bounds& bounds) const noexcept;
  bool is_smooth(const State& next, const State& from, const Bounds& bounds) const noexcept;
  static void trim(State& next, const State& from, const Bounds& bounds) noexcept;
  State brake_or_yield(const State& from, const Bounds& bounds, std::uint16_t& reasons) const noexcept;
  Goal observe(std::size_t joint, double target, const Bounds& bounds) noexcept;
  std::uint16_t reasons_for(const State& from, double wanted, double inside,
                            const Bounds& bounds) const noexcept;
  bool move(std::size_t joint, const State& next) noexcept;
  void stand(std::size_t joint) noexcept;
  SafeCommand make(std::uint64_t tick) const noexcept;

  std::size_t num_joints_ = 0;
  std::uint64_t robot_ = 0;
  double period_ = 0;  // [s]
  double velocity_share_ = 1;
  std::array<JointLimits, kMaxJoints> limits_{};
  JointArray max_following_error_{};  // [rad]
  JointArray pulled_to_{};            // from the measured position, at most [rad]
  JointArray position_{};             // last command       [rad]
  JointArray velocity_{};             // its differences    [rad/s]
  JointArray acceleration_{};         //                    [rad/s^2]
  JointArray target_{};               // last target, clamped to the position limits [rad]
  JointArray target_velocity_{};
  std::array<std::uint8_t, kMaxJoints> num_targets_{};  // how many targets in a row were seen, up to 2
  std::array<bool, kMaxJoints> is_on_target_{};         // the last command was the last target
};

}  // namespace wallx
