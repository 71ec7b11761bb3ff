// StateMachine: the transitions.
// SPDX-License-Identifier: Apache-2.0
#include "control/state_machine.hpp"

namespace wallx {

const char* to_string(LoopState state) noexcept {
  switch (state) {
    case LoopState::boot:
      return "boot";
    case LoopState::identify:
      return "identify";
    case LoopState::calibrated:
      return "calibrated";
    case LoopState::armed:
      return "armed";
    case LoopState::ramp:
      return "ramp";
    case LoopState::run:
      return "run";
    case LoopState::hold:
      return "hold";
    case LoopState::off:
      return "off";
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
  enter(LoopState::armed, {});
}

void StateMachine::released() noexcept {
  is_enabled_ = wants_release_ = false;
  if (state_ != LoopState::fault) enter(LoopState::off, {});
}

bool StateMachine::fail(const Finding& cause) noexcept {
  const bool is_worse = is_estop() && cause.reason == Reason::bus_closed;
  if (state_ == LoopState::fault && !is_worse) return false;
  wants_enable_ = wants_reset_ = wants_release_ = false;
  enter(LoopState::fault, cause);
  return true;
}

// while nothing is enabled: does every joint answer?
void StateMachine::identify(const Finding& finding) noexcept {
  const bool is_silent = finding.verdict == Verdict::fault && finding.reason == Reason::stale_feedback;
  if (state_ == LoopState::boot) enter(LoopState::identify, {});
  if (state_ == LoopState::identify && finding.reason != Reason::stale_feedback)
    enter(LoopState::calibrated, {});
  else if (state_ == LoopState::calibrated && is_silent)
    enter(LoopState::identify, {});
}

void StateMachine::request(std::uint8_t requests, bool is_at_rest, Decision& decision) noexcept {
  if ((requests & kRequestReset) && state_ == LoopState::fault) wants_reset_ = true;
  // never let go of a motion
  if (wants_reset_ && is_at_rest) {
    wants_reset_ = wants_release_ = is_enabled_ = false;
    decision.starts_generation = true;
    enter(LoopState::identify, {});
  }
  if ((requests & kRequestEnable) && may_enable()) {
    wants_enable_ = true;
    needs_resume_ = wants_release_ = false;
  }
  if ((requests & kRequestHold) && (may_move() || wants_enable_)) {
    needs_resume_ = true;
    decision.starts_generation = true;
    if (may_move()) enter(LoopState::hold, {Verdict::hold, Reason::requested, -1});
  } else if (requests & kRequestResume) {
    needs_resume_ = false;
  }
  // after the hold that may have come with it
  if ((requests & kRequestRelease) && (state_ == LoopState::calibrated || state_ == LoopState::armed ||
                                       state_ == LoopState::hold || state_ == LoopState::fault))
    wants_release_ = true;
}

Decision StateMachine::decide(const StateInput& input) noexcept {
  Decision decision;
  const Finding& finding = input.finding;
  const bool is_bus_closed = finding.reason == Reason::bus_closed;
  identify(finding);

  if (input.requests & kRequestEstop) {
    wants_enable_ = wants_reset_ = wants_release_ = false;
    // a fault by a closed bus stays one: nothing can be sent any more
    if (!is_estop() && !(state_ == LoopState::fault && is_bus_closed)) {
      enter(LoopState::fault, {Verdict::fault, Reason::estop, -1});
      decision.starts_generation = true;
    }
  } else {
    request(input.requests, input.is_at_rest, decision);
  }

  const bool is_fault = finding.verdict == Verdict::fault;
  if (is_fault && (may_move() || wants_enable_ || is_bus_closed) && fail(finding))
    decision.starts_generation = true;
  if (wants_enable_ && finding.reason != Reason::stale_feedback) decision.enables = true;

  switch (state_) {
    case LoopState::armed:
      // without a plan it stands where it was enabled
      if (needs_resume_)
        enter(LoopState::hold, {Verdict::hold, Reason::requested, -1});
      else if (finding.verdict == Verdict::hold && finding.reason == Reason::stale_feedback)
        enter(LoopState::hold, finding);
      else if (finding.verdict == Verdict::ok)
        enter(LoopState::ramp, {});
      else
        cause_ = finding;
      break;
    case LoopState::ramp:
    case LoopState::run:
      if (finding.verdict == Verdict::hold)
        enter(LoopState::hold, finding);
      else if (state_ == LoopState::ramp && input.is_on_target)
        enter(LoopState::run, {});
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
  else if (is_enabled_)
    decision.motion = Motion::brake;
  decision.releases = wants_release_ && input.is_at_rest;
  return decision;
}

}  // namespace wallx
