// StateMachine: what the loop does this tick, from requests and findings; pure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "control/watchdog.hpp"

namespace wallx {

enum class LoopState : std::uint8_t {
  idle,   // readable; torque as found; nothing is sent
  ramp,   // enabled, catching the rows at a reduced velocity until the command is the row
  run,    // enabled, playing rows
  hold,   // braking along the limits to rest, then keeping the last command
  estop,  // limited braking, then a low torque limit; latched until reset
  fault,  // braking and holding while the bus accepts it; latched until reset
};
const char* to_string(LoopState state) noexcept;

// bits; what outsiders may ask for. Of one tick's requests e-stop beats all, and hold beats resume.
enum Request : std::uint8_t {
  kRequestEnable = 1,  // idle -> ramp, from the measured pose
  kRequestHold = 2,    // hold until resume, and drop every plan made so far
  kRequestResume = 4,  // move again, with a plan of the new generation
  kRequestReset = 8,   // estop, fault -> idle once at rest
  kRequestEstop = 16,
};

struct StateInput {
  std::uint8_t requests = 0;  // Request bits
  Finding finding;            // the watchdog's
  bool is_at_rest = true;     // the last command does not move
  bool is_on_target = false;  // the last command was its row
};

enum class Motion : std::uint8_t { none, brake, follow };

struct Decision {
  Motion motion = Motion::none;
  bool starts_generation = false;  // a stop: plans made before it are dead
  bool enables = false;            // enable now, then report enabled()
  bool lowers_torque = false;      // limit the torque now, then report torque_lowered()
};

class StateMachine {
 public:
  LoopState state() const noexcept { return state_; }
  const Finding& cause() const noexcept { return cause_; }  // of hold, estop or fault
  bool is_enabled() const noexcept { return is_enabled_; }  // commands are sent
  bool is_torque_low() const noexcept { return is_torque_low_; }
  bool is_torque_pending() const noexcept { return state_ == LoopState::estop && !is_torque_low_; }

  Decision decide(const StateInput& input) noexcept;

  // reports of what a decision led to
  void enabled() noexcept;
  void torque_lowered() noexcept { is_torque_low_ = true; }
  void torque_restored() noexcept { is_torque_low_ = false; }
  // a fault found after the decision; false: already latched in fault
  bool fail(const Finding& cause) noexcept;

 private:
  void enter(LoopState state, const Finding& cause) noexcept;
  bool may_move() const noexcept {
    return state_ == LoopState::ramp || state_ == LoopState::run || state_ == LoopState::hold;
  }

  LoopState state_ = LoopState::idle;
  Finding cause_;
  bool is_enabled_ = false;
  bool wants_enable_ = false;
  bool wants_reset_ = false;
  bool needs_resume_ = false;
  bool is_torque_low_ = false;
};

}  // namespace wallx
