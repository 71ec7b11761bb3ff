// Watchdog: the rules.
// SPDX-License-Identifier: Apache-2.0
#include "control/watchdog.hpp"

#include <algorithm>
#include <cmath>

namespace wallx {

const char* to_string(Verdict verdict) noexcept {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::hold:
      return "hold";
    case Verdict::fault:
      return "fault";
  }
  return "unknown";
}

const char* to_string(Reason reason) noexcept {
  switch (reason) {
    case Reason::none:
      return "none";
    case Reason::no_plan:
      return "no plan";
    case Reason::plan_exhausted:
      return "plan exhausted";
    case Reason::requested:
      return "requested";
    case Reason::stale_feedback:
      return "stale feedback";
    case Reason::bus_closed:
      return "bus closed";
    case Reason::not_finite:
      return "not finite";
    case Reason::send_failed:
      return "send failed";
    case Reason::enable_failed:
      return "enable failed";
    case Reason::torque_lost:
      return "torque lost";
    case Reason::step_cap:
      return "step cap";
    case Reason::drive_fault:
      return "drive fault";
    case Reason::obstruction:
      return "obstruction";
    case Reason::overload:
      return "overload";
    case Reason::far_row:
      return "far row";
    case Reason::implausible:
      return "implausible";
    case Reason::stalled:
      return "stalled";
    case Reason::estop:
      return "e-stop";
  }
  return "unknown";
}

double sample_age(const JointState& feedback, std::size_t joint, TimePoint now) noexcept {
  return std::max(0.0, to_seconds(now - feedback.sampled_at[joint]));
}

Finding watch(const WatchdogConfig& config, const WatchdogInput& input) noexcept {
  if (input.is_bus_closed) return {Verdict::fault, Reason::bus_closed, -1};
  const JointState& feedback = *input.feedback;
  std::int16_t oldest = -1;
  Duration age = Duration::min();
  for (std::size_t j = 0; j < feedback.num_joints; ++j) {
    if (!std::isfinite(feedback.position[j]))
      return {Verdict::fault, Reason::not_finite, static_cast<std::int16_t>(j)};
    if (feedback.drive_health[j] == DriveHealth::fault)
      return {Verdict::fault, Reason::drive_fault, static_cast<std::int16_t>(j)};
    if (input.now - feedback.sampled_at[j] > age) {
      age = input.now - feedback.sampled_at[j];
      oldest = static_cast<std::int16_t>(j);
    }
  }
  if (age > config.stale_fault) return {Verdict::fault, Reason::stale_feedback, oldest};
  if (age > config.stale_hold) return {Verdict::hold, Reason::stale_feedback, oldest};
  if (!input.has_plan) return {Verdict::hold, Reason::no_plan, -1};
  if (input.is_plan_exhausted) return {Verdict::hold, Reason::plan_exhausted, -1};
  return {};
}

}  // namespace wallx
