// SafetyLimiter: the choice of one step per period, and the certificate that a stop follows it.
// SPDX-License-Identifier: Apache-2.0
#include "control/safety_limiter.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/errors.hpp"
#include "control/stop_profile.hpp"

namespace wallx {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kRelative = 1e-10;  // slack of a comparison with a limit, as a share of it
constexpr double kPosition = 1e-13;  // unit of slack at a position limit [rad]
constexpr double kVelocity = 1e-11;  // unit of slack at a velocity limit, as a share of it
constexpr double kShy = -10;   // a chosen step keeps clear of what rounding can do on the way to the stop
constexpr double kExact = 1;   // a target on the very limit passes
constexpr double kLoose = 20;  // following a certified stop is always right
constexpr double kTracking =
    0.95;  // share of the limits that catching up plans with: the rest absorbs surprises
constexpr double kMinRelative = 0.25;  // share of A always left for catching up with an accelerating target
constexpr int kBisections = 48;        // of a window 2 J dt wide: to its last bits

void check(bool ok, const JointSpec& joint, const char* what, double value) {
  if (!ok)
    throw ConfigError("limits of joint '" + joint.name + "': " + what + ", got " + std::to_string(value) +
                      "; correct them in the embodiment's file");
}

// rounding of a difference of positions over one period [rad]
double rounding(double p) noexcept { return 4 * kEpsilon * (1 + std::abs(p)); }

}  // namespace

SafetyLimiter::SafetyLimiter(std::span<const JointSpec> joints, std::uint64_t robot, double period)
    : num_joints_(joints.size()), robot_(robot), period_(period) {
  if (joints.empty() || joints.size() > kMaxJoints)
    throw ConfigError("a robot has 1 to " + std::to_string(kMaxJoints) + " joints, got " +
                      std::to_string(joints.size()) + "; correct the embodiment's file");
  if (!std::isfinite(period) || period < 1e-5 || period > 1)
    throw ConfigError("the loop's period must be 1e-5 to 1 s, got " + std::to_string(period) +
                      "; correct rate_hz");
  for (std::size_t j = 0; j < num_joints_; ++j) {
    const JointLimits& l = joints[j].limits;
    check(std::isfinite(l.min_position), joints[j], "min_position must be finite [rad]", l.min_position);
    check(std::isfinite(l.max_position) && l.max_position > l.min_position, joints[j],
          "max_position must be finite and above min_position [rad]", l.max_position);
    check(std::isfinite(l.max_velocity) && l.max_velocity > 0, joints[j],
          "max_velocity must be positive [rad/s]", l.max_velocity);
    check(std::isfinite(l.max_acceleration) && l.max_acceleration > 0, joints[j],
          "max_acceleration must be positive [rad/s^2]", l.max_acceleration);
    check(std::isfinite(l.max_jerk) && l.max_jerk > 0, joints[j], "max_jerk must be positive [rad/s^3]",
          l.max_jerk);
    limits_[j] = l;
    const JointSpec& joint = joints[j];
    check(joint.max_following_error > 0, joint, "max_following_error must be above 0 [rad]",
          joint.max_following_error);
    check(joint.static_sag >= 0 && joint.static_sag < joint.max_following_error, joint,
          "static_sag must be at least 0 and below max_following_error [rad]", joint.static_sag);
    max_following_error_[j] = joint.mode == JointMode::velocity ? std::numeric_limits<double>::infinity()
                                                                : joint.max_following_error;
    pulled_to_[j] = joint.grips ? joint.max_following_error : joint.static_sag;
  }
}

SafetyLimiter::Bounds SafetyLimiter::bounds(std::size_t joint) const noexcept {
  const JointLimits& l = limits_[joint];
  return {l.min_position, l.max_position, l.max_velocity * velocity_share_, l.max_acceleration, l.max_jerk};
}

double SafetyLimiter::max_stop_time() const noexcept {
  double longest = 0;
  for (std::size_t j = 0; j < num_joints_; ++j) {
    const JointLimits& l = limits_[j];
    // from (V, A) against the direction of motion or along it: at most two ramps, and the velocity gained on
    // the way
    const double ramp = l.max_acceleration / l.max_jerk;
    longest = std::max(longest, 2 * l.max_velocity / l.max_acceleration + 4 * ramp);
  }
  return longest + 4 * period_;
}

SafetyLimiter::State SafetyLimiter::step_by(const State& from, double acceleration) const noexcept {
  const double v = from.v + acceleration * period_;
  return {from.p + v * period_, v, acceleration};
}

SafetyLimiter::State SafetyLimiter::braking_step(const State& from, const Bounds& bounds) const noexcept {
  const StopProfile stop = StopProfile::from(from.v, from.a, bounds.a, bounds.j, period_);
  return step_by(from, stop.first() * bounds.j * period_);
}

// `next` is the state after a step that keeps acceleration and jerk; `slack` counts in units of rounding
bool SafetyLimiter::is_certified(const State& next, const Bounds& bounds, double slack) const noexcept {
  const double room = slack * (kPosition + rounding(next.p));
  const double max_v = bounds.v * (1 + slack * kVelocity) + slack * rounding(next.p) / period_;
  const double still = 4 * rounding(next.p) / period_;  // slower than this is rounding
  if (std::abs(next.v) > max_v) return false;
  if (next.v > still && next.p > bounds.max_p + room) return false;
  if (next.v < -still && next.p < bounds.min_p - room) return false;

  const StopProfile stop = StopProfile::from(next.v, next.a, bounds.a, bounds.j, period_);
  const double step = bounds.j * period_ * period_;  // unit of the profile's velocities [rad/s]
  const double unit = step * period_;
  const bool is_up = stop.sign > 0;
  const double outward = is_up ? bounds.max_p - next.p : next.p - bounds.min_p;  // room ahead [rad]
  const double behind = is_up ? next.p - bounds.min_p : bounds.max_p - next.p;
  if (stop.peak * step > max_v) return false;
  if (stop.peak * step > still && std::abs(stop.displacement()) * unit > outward + room) return false;
  return stop.w * step >= -still || -stop.backward_way() * unit <= behind + room;
}

// the finite differences of a command that is exactly the target, within all limits but the certificate
bool SafetyLimiter::can_reach(const State& from, double target, const Bounds& bounds,
                              State& next) const noexcept {
  next.p = target;
  next.v = (target - from.p) / period_;
  next.a = (next.v - from.v) / period_;
  const double noise = 2 * rounding(target) / (period_ * period_);
  const double jerk_step = bounds.j * period_;
  return std::abs(next.v) <= bounds.v * (1 + kRelative) &&
         std::abs(next.a) <= bounds.a * (1 + kRelative) + noise &&
         std::abs(next.a - from.a) <= jerk_step * (1 + kRelative) + noise;
}

// once on the target, can its velocity and then its acceleration be taken over within the limits?
bool SafetyLimiter::can_stay(const State& next, const Goal& goal, const Bounds& bounds) const noexcept {
  const double jerk_step = bounds.j * period_ + 2 * rounding(goal.p) / (period_ * period_);
  const double a = (goal.v + goal.a * period_ - next.v) / period_;
  return std::abs(a - next.a) <= jerk_step && std::abs(a) <= bounds.a && std::abs(goal.a - a) <= jerk_step;
}

// where a stop relative to the moving target would end, minus the target [rad]; rises with the acceleration
// of `next`
double SafetyLimiter::landing(const State& next, const Goal& goal, const Bounds& bounds) const noexcept {
  const double max_a = std::max(bounds.a - std::abs(goal.a), kMinRelative * bounds.a) * kTracking;
  const double max_j = bounds.j * kTracking;
  const StopProfile stop = StopProfile::from(next.v - goal.v, next.a - goal.a, max_a, max_j, period_);
  return next.p - goal.p + stop.displacement() * max_j * period_ * period_ * period_;
}

// the step toward a target that cannot be taken at once: as preferred, or as near to it as can be certified
SafetyLimiter::State SafetyLimiter::choose(const State& from, const Goal& goal,
                                           const Bounds& bounds) const noexcept {
  const double jerk_step = bounds.j * period_;
  double low = std::clamp(from.a - jerk_step, -bounds.a, bounds.a);
  double high = std::clamp(from.a + jerk_step, -bounds.a, bounds.a);
  double wanted = 0;
  if (landing(step_by(from, low), goal, bounds) >= 0) {
    wanted = low;
  } else if (landing(step_by(from, high), goal, bounds) <= 0) {
    wanted = high;
  } else {
    for (int i = 0; i < kBisections; ++i) {
      wanted = (low + high) / 2;
      (landing(step_by(from, wanted), goal, bounds) < 0 ? low : high) = wanted;
    }
  }
  const State preferred = step_by(from, wanted);
  if (is_certified(preferred, bounds, kShy)) return preferred;
  State safe = braking_step(from, bounds);
  double share_safe = 0, share_not = 1;  // of the way from braking to the preferred acceleration
  const double braking = safe.a;
  for (int i = 0; i < kBisections / 2; ++i) {
    const double share = (share_safe + share_not) / 2;
    const State between = step_by(from, braking + share * (wanted - braking));
    if (is_certified(between, bounds, kShy)) {
      share_safe = share;
      safe = between;
    } else {
      share_not = share;
    }
  }
  return safe;
}

// within acceleration and jerk
bool SafetyLimiter::is_smooth(const State& next, const State& from, const Bounds& bounds) const noexcept {
  return std::abs(next.a) <= bounds.a * (1 + 1e-9) &&
         std::abs(next.a - from.a) <= bounds.j * period_ * (1 + 1e-9);
}

// rounding may not carry a command beyond a limit, nor further out of it
void SafetyLimiter::trim(State& next, const State& from, const Bounds& bounds) noexcept {
  next.p = std::clamp(next.p, std::min(from.p, bounds.min_p), std::max(from.p, bounds.max_p));
}

// the first step of the certified stop; where there is none, jerk yields, then acceleration
SafetyLimiter::State SafetyLimiter::brake_or_yield(const State& from, const Bounds& bounds,
                                                   std::uint16_t& reasons) const noexcept {
  const State braking = braking_step(from, bounds);
  if (is_smooth(braking, from, bounds) && is_certified(braking, bounds, kLoose)) return braking;
  reasons |= kLimitYieldedJerk;
  const State hard = step_by(from, std::clamp(-from.v / period_, -bounds.a, bounds.a));
  if (is_certified(hard, {bounds.min_p, bounds.max_p, bounds.v, bounds.a, 2 * bounds.a / period_}, kExact))
    return hard;
  reasons |= kLimitYieldedAcceleration;
  double v = std::clamp(hard.v, -bounds.v, bounds.v);
  if (v > 0) v = std::min(v, std::max(0.0, (bounds.max_p - from.p) / period_));
  if (v < 0) v = std::max(v, std::min(0.0, (bounds.min_p - from.p) / period_));
  return step_by(from, (v - from.v) / period_);
}

// the target with its velocity and acceleration where these can be followed at all: a jump says nothing about
// either
SafetyLimiter::Goal SafetyLimiter::observe(std::size_t joint, double target, const Bounds& bounds) noexcept {
  Goal goal{target, 0, 0};
  const double v = (target - target_[joint]) / period_;
  const bool is_steady = num_targets_[joint] >= 1 && std::abs(v) <= bounds.v * (1 + kRelative);
  if (is_steady) {
    goal.v = v;
    const double a = (v - target_velocity_[joint]) / period_;
    if (num_targets_[joint] >= 2 && std::abs(a) <= bounds.a * (1 + kRelative)) goal.a = a;
  }
  target_[joint] = target;
  target_velocity_[joint] = goal.v;
  num_targets_[joint] = is_steady ? 2 : 1;
  return goal;
}

std::uint16_t SafetyLimiter::reasons_for(const State& from, double wanted, double inside,
                                         const Bounds& bounds) const noexcept {
  std::uint16_t reasons = wanted != inside ? kLimitPosition : 0;
  const double v = (inside - from.p) / period_;
  const double a = (v - from.v) / period_;
  const double noise = 2 * rounding(inside) / (period_ * period_);
  if (std::abs(v) > bounds.v * (1 + kRelative)) reasons |= kLimitVelocity;
  if (std::abs(a) > bounds.a * (1 + kRelative) + noise) reasons |= kLimitAcceleration;
  if (std::abs(a - from.a) > bounds.j * period_ * (1 + kRelative) + noise) reasons |= kLimitJerk;
  return reasons;
}

bool SafetyLimiter::move(std::size_t joint, const State& next) noexcept {
  const double last = position_[joint];
  const double cap = limits_[joint].max_velocity * period_ * (1 + 1e-9) + rounding(last);
  // the second, independent check; written so that NaN fails it
  if (!(std::abs(next.p - last) <= cap)) {
    stand(joint);
    return false;
  }
  position_[joint] = next.p;
  velocity_[joint] = next.v;
  acceleration_[joint] = next.a;
  return true;
}

// a joint at rest is on a target that stands still
void SafetyLimiter::stand(std::size_t joint) noexcept {
  velocity_[joint] = acceleration_[joint] = target_velocity_[joint] = 0;
  target_[joint] = position_[joint];
  num_targets_[joint] = 2;
  is_on_target_[joint] = true;
}

SafeCommand SafetyLimiter::make(std::uint64_t tick) const noexcept {
  SafeCommand command(robot_, tick, num_joints_);
  std::copy_n(position_.begin(), num_joints_, command.position_.begin());
  std::copy_n(velocity_.begin(), num_joints_, command.velocity_.begin());
  return command;
}

std::optional<SafeCommand> SafetyLimiter::reset(std::span<const double> measured,
                                                std::uint64_t tick) noexcept {
  if (measured.size() != num_joints_) return std::nullopt;
  for (const double p : measured)
    if (!std::isfinite(p)) return std::nullopt;
  std::copy_n(measured.begin(), num_joints_, position_.begin());
  for (std::size_t j = 0; j < num_joints_; ++j) stand(j);
  return make(tick);
}

SafeCommand SafetyLimiter::limit(std::span<const double> target, std::uint64_t tick,
                                 LimitReasons& reasons) noexcept {
  reasons = {};
  bool is_finite = target.size() == num_joints_;
  for (std::size_t j = 0; j < num_joints_ && is_finite; ++j) is_finite = std::isfinite(target[j]);
  if (!is_finite) {
    SafeCommand command = brake(tick, reasons);
    for (std::size_t j = 0; j < num_joints_; ++j)
      if (target.size() != num_joints_ || !std::isfinite(target[j])) reasons.joint[j] |= kLimitNotFinite;
    reasons.any |= kLimitNotFinite;
    return command;
  }
  for (std::size_t j = 0; j < num_joints_; ++j) {
    const Bounds b = bounds(j);
    const State from{position_[j], velocity_[j], acceleration_[j]};
    const double inside = std::clamp(target[j], b.min_p, b.max_p);
    const Goal goal = observe(j, inside, b);
    std::uint16_t& why = reasons.joint[j];
    State next;
    const bool is_reachable = can_reach(from, inside, b, next);
    if (is_reachable && (is_on_target_[j] || can_stay(next, goal, b)) && is_certified(next, b, kExact)) {
      if (inside != target[j]) why = kLimitPosition;
      is_on_target_[j] = true;
    } else {
      why = reasons_for(from, target[j], inside, b);
      // within reach, but not to be stayed with or stopped after
      if (why == 0) why = is_certified(next, b, kExact) ? kLimitJerk : kLimitPosition;
      next = choose(from, goal, b);
      if (!is_smooth(next, from, b) || !is_certified(next, b, kLoose)) next = brake_or_yield(from, b, why);
      trim(next, from, b);
      is_on_target_[j] = false;
    }
    if (!move(j, next)) why |= kLimitStepCap;
    reasons.any |= why;
  }
  return make(tick);
}

SafeCommand SafetyLimiter::brake(std::uint64_t tick, LimitReasons& reasons) noexcept {
  reasons = {};
  for (std::size_t j = 0; j < num_joints_; ++j) {
    if (velocity_[j] == 0 && acceleration_[j] == 0) {
      stand(j);
      continue;
    }
    num_targets_[j] = 0;
    is_on_target_[j] = false;
    const Bounds b = bounds(j);
    const State from{position_[j], velocity_[j], acceleration_[j]};
    State next = brake_or_yield(from, b, reasons.joint[j]);
    trim(next, from, b);
    // rest is exact: a velocity this small is rounding
    if (std::abs(next.v) <= 4 * rounding(from.p) / period_) {
      next.p = from.p;
      next.v = 0;
      if (std::abs(next.a) <= kRelative * b.j * period_) next.a = 0;
    }
    if (!move(j, next)) reasons.joint[j] |= kLimitStepCap;
    reasons.any |= reasons.joint[j];
  }
  return make(tick);
}

bool SafetyLimiter::pull_back(std::size_t joint, double measured) noexcept {
  const double ahead = position_[joint] - measured;
  if (!(std::abs(ahead) > max_following_error_[joint])) return false;
  position_[joint] = measured + std::copysign(pulled_to_[joint], ahead);
  stand(joint);
  return true;
}

bool SafetyLimiter::is_at_rest() const noexcept {
  for (std::size_t j = 0; j < num_joints_; ++j)
    if (velocity_[j] != 0 || acceleration_[j] != 0) return false;
  return true;
}

}  // namespace wallx
