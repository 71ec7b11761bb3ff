// Watchdog: says when rows, feedback or bus are late; pure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/joint.hpp"
#include "base/time.hpp"

namespace wallx {

enum class Verdict : std::uint8_t { ok, hold, fault };

enum class Reason : std::uint8_t {
  none,
  no_plan,         // nothing was submitted since the last stop
  plan_exhausted,  // the last row is over and nothing follows: a late chunk
  requested,       // somebody asked
  stale_feedback,  // a joint has not answered for too long
  bus_closed,
  not_finite,  // a NaN or infinite position, measured or wanted
  send_failed,
  enable_failed,
  torque_lost,  // a drive let go by itself: restarted, or protected itself
  step_cap,     // a second check, the limiter's own or the robot's, refused a command
  drive_fault,  // a drive reports an error that its family's table calls a fault
  obstruction,  // a joint is further from its command than its largest following error
  overload,     // a joint's load stayed high at the lowest torque limit
  far_row,      // a plan begins further from the command than the first-frame guard lets through
  implausible,  // a position jumped further than its joint can move: the sensor or the answer is wrong
  stalled,      // this loop stood still, and safe-stop shut it out of the bus
  estop,        // somebody pressed it: Python, a signal, the socket, a key or a line
};
const char* to_string(Verdict verdict) noexcept;
const char* to_string(Reason reason) noexcept;

struct WatchdogConfig {
  Duration stale_hold;   // oldest sample to move on
  Duration stale_fault;  // oldest sample to go on with at all
};

struct WatchdogInput {
  TimePoint now;
  const JointState* feedback = nullptr;
  bool is_bus_closed = false;
  bool has_plan = false;
  bool is_plan_exhausted = false;
};

struct Finding {
  Verdict verdict = Verdict::ok;
  Reason reason = Reason::none;
  std::int16_t joint = -1;  // the oldest sample's, -1: none in particular
};

// The worst finding: a closed bus, NaN, a drive's fault and a very stale joint are faults; a stale joint and
// a missing or exhausted plan are holds.
Finding watch(const WatchdogConfig& config, const WatchdogInput& input) noexcept;

// age of a joint's sample, never negative [s]
double sample_age(const JointState& feedback, std::size_t joint, TimePoint now) noexcept;

}  // namespace wallx
