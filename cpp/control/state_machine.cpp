// StateMachine: the transitions.
// SPDX-License-Identifier: Apache-2.0
#include "control/state_machine.hpp"

namespace wallx {

const char* to_string(LoopState state) noexcept {
  switch (state) {
    case LoopState::idle:
      return "idle";
    case LoopState::ramp:
      return "ramp";
    case LoopState::run:
      return "run";
    case LoopState::hold:
      return "hold";
    case LoopState::estop:
      return "estop";
    case LoopState::fault:
      return "fault";
  }
  return "unknown";
}

void StateMachine::enter(LoopState state, const Finding& cause) noexcept {
  state_ = state;
  cause_ = cause;
}

void StateMachine::enabled() noexcept {
  is_enabled_ = true;
  wants_enable_ = false;
  enter(LoopState::ramp, {});
}

bool StateMachine::fail(const Finding& cause) noexcept {
  if (state_ == LoopState::fault) return false;
  wants_enable_ = wants_reset_ = false;
  enter(LoopState::fault, cause);
  return true;
}

Decision StateMachine::decide(const StateInput& input) noexcept {
  Decision decision;
  const Finding& finding = input.finding;
  const bool is_bus_closed = finding.reason == Reason::bus_closed;
  const bool asks_hold = input.requests & kRequestHold;
  const Finding requested{Verdict::hold, Reason::requested, -1};

  if (input.requests & kRequestEstop) {
    wants_enable_ = wants_reset_ = false;
    // a fault by a closed bus stays one: nothing can be sent any more
    if (state_ != LoopState::estop && !(state_ == LoopState::fault && is_bus_closed)) {
      enter(LoopState::estop, requested);
      decision.starts_generation = true;
    }
  } else {
    if ((input.requests & kRequestReset) && (state_ == LoopState::estop || state_ == LoopState::fault))
      wants_reset_ = true;
    if (wants_reset_ && input.is_at_rest) {  // never let go of a motion
      wants_reset_ = is_enabled_ = false;
      decision.starts_generation = true;
      enter(LoopState::idle, {});
    }
    if ((input.requests & kRequestEnable) && state_ == LoopState::idle) {
      wants_enable_ = true;
      needs_resume_ = false;
    }
    if (asks_hold && (may_move() || wants_enable_)) {
      needs_resume_ = true;
      decision.starts_generation = true;
      if (may_move()) enter(LoopState::hold, requested);
    } else if (input.requests & kRequestResume) {
      needs_resume_ = false;
    }
  }

  const bool is_fault = finding.verdict == Verdict::fault;
  if (is_fault && (may_move() || wants_enable_ || is_bus_closed) && fail(finding))
    decision.starts_generation = true;
  if (wants_enable_ && finding.reason != Reason::stale_feedback) decision.enables = true;

  switch (state_) {
    case LoopState::ramp:
    case LoopState::run:
      if (needs_resume_) {
        enter(LoopState::hold, requested);
      } else if (finding.verdict == Verdict::hold) {
        enter(LoopState::hold, finding);
      } else if (state_ == LoopState::ramp && input.is_on_target) {
        enter(LoopState::run, {});
      }
      break;
    case LoopState::hold:
      if (!needs_resume_ && finding.verdict == Verdict::ok && input.is_at_rest)
        enter(LoopState::ramp, {});
      else if (!needs_resume_ && finding.verdict == Verdict::hold)
        cause_ = finding;
      break;
    default:
      break;
  }

  if (state_ == LoopState::ramp || state_ == LoopState::run)
    decision.motion = Motion::follow;
  else if (is_enabled_ && state_ != LoopState::idle)
    decision.motion = Motion::brake;
  decision.lowers_torque = is_torque_pending() && (input.is_at_rest || !is_enabled_);
  return decision;
}

}  // namespace wallx
