// StateMachine: what the loop does this tick, from requests and findings; pure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "control/watchdog.hpp"

namespace wallx {

enum class LoopState : std::uint8_t {
  boot,        // no tick yet: connect() finds the motors and compares each with the calibration
  identify,    // reading; not every joint answers
  calibrated,  // every joint answers; torque as found; nothing is sent
  armed,       // torque on at the measured pose, at rest there until the first plan
  ramp,        // catching the rows at a reduced velocity until the command is the row
  run,         // playing rows
  hold,        // braking along the limits to rest, then keeping the last command
  off,         // torque off, because somebody released the joints; nothing is sent
  fault,       // braking and holding while the bus accepts it; latched until reset
};
const char* to_string(LoopState state) noexcept;

// bits; what outsiders may ask for. Of one tick's requests e-stop beats all, and hold beats resume.
enum Request : std::uint8_t {
  kRequestEnable = 1,  // identify, calibrated, off -> armed, from the measured pose, once every joint answers
  kRequestHold = 2,    // hold until resume, and drop every plan made so far
  kRequestResume = 4,  // move again, with a plan of the new generation
  kRequestReset = 8,   // fault -> identify once at rest
  kRequestEstop = 16,  // -> fault; the torque limit is lowered at rest
  kRequestRelease = 32,  // calibrated, armed, hold -> off; in fault: torque off, still latched; once at rest
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
  bool releases = false;           // torque off now, then report released()
};

class StateMachine {
 public:
  LoopState state() const noexcept { return state_; }
  const Finding& cause() const noexcept { return cause_; }  // of hold or fault
  bool is_enabled() const noexcept { return is_enabled_; }  // commands are sent
  bool is_estop() const noexcept { return state_ == LoopState::fault && cause_.reason == Reason::estop; }

  Decision decide(const StateInput& input) noexcept;

  // reports of what a decision led to
  void enabled() noexcept;
  void released() noexcept;
  // a fault found after the decision; false: already latched. An e-stop stays the cause, but for a closed
  // bus.
  bool fail(const Finding& cause) noexcept;

 private:
  void enter(LoopState state, const Finding& cause) noexcept;
  void identify(const Finding& finding) noexcept;
  void request(std::uint8_t requests, bool is_at_rest, Decision& decision) noexcept;
  bool may_move() const noexcept {
    return state_ == LoopState::armed || state_ == LoopState::ramp || state_ == LoopState::run ||
           state_ == LoopState::hold;
  }
  bool may_enable() const noexcept {
    return state_ == LoopState::identify || state_ == LoopState::calibrated || state_ == LoopState::off;
  }

  LoopState state_ = LoopState::boot;
  Finding cause_;
  bool is_enabled_ = false;
  bool wants_enable_ = false;
  bool wants_reset_ = false;
  bool wants_release_ = false;
  bool needs_resume_ = false;
};

}  // namespace wallx
