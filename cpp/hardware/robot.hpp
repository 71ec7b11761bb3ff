// Robot: a live, connected embodiment; applies the calibration between the motor codec and SI, and checks
// every command once more before a family's code turns it into bytes. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "base/joint.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "hardware/safe_command.hpp"

namespace wallx {

// The public calls check, the private ones are what a motor family implements. The checks of send() share no
// code and no number with control's limiter: a defect there must not reach a motor.
class Robot {
 public:
  static constexpr double kStepMargin = 1.5;    // of max_velocity x cycle: the largest step of a goal
  static constexpr double kStepSlack = 2e-3;    // [rad] more than that: about one encoder tick
  static constexpr double kDefaultCycle = 0.1;  // [s], until a loop says how often it sends

  Robot();
  virtual ~Robot() = default;
  Robot(const Robot&) = delete;
  Robot& operator=(const Robot&) = delete;

  virtual const Embodiment& embodiment() const noexcept = 0;
  std::uint64_t serial() const noexcept {
    return serial_;
  }  // unique in the process; a SafeCommand carries it

  // Opens the bus, finds every motor, compares its registers with the calibration. Changes no torque and
  // moves nothing. Blocks up to a second. Throws BusError, BusTimeout, CalibrationError naming joint, value
  // and expected value.
  virtual void connect() = 0;
  // Stops every joint in velocity mode; joints in position mode keep their last goal, and every torque stays
  // as it is. For safe-stop, whose owner is dead or was shut out: needs no connect() and no answer; opens the
  // bus where it is closed. Throws BusError. Returns what sending led to; wrong_state with the first wheel of
  // a family that cannot do this.
  virtual Result stop_wheels(TimePoint deadline);
  // Closes the bus and sends nothing: the motors keep doing what they did. Idempotent.
  virtual void disconnect() noexcept = 0;
  // The file descriptor of the open bus, for safe-stop to inherit; -1: this bus has none.
  virtual int bus_descriptor() const noexcept { return -1; }
  virtual std::string bus_trouble() const { return {}; }  // Bus::trouble() of its bus

  // Time between two commands [s], for the step check of send(). Before the loop starts.
  void set_cycle(double seconds) noexcept { cycle_ = seconds; }

  // Loop calls: only the loop's thread, no throw, no allocation, bounded by `deadline`.

  // Asks every motor for its state. A joint that does not answer keeps its old entry and time.
  // Result: ok when every joint answered; timeout/bad_reply with the first joint that did not; torque_off
  // when a drive that was enabled has let go; bus_closed. Errors that drives report stand in drive_health.
  Result read(TimePoint deadline, JointState& state) noexcept;
  // Sends one command. wrong_state when it was made for another robot or another tick than `tick`, or nothing
  // was enabled; step_too_large when a goal would move further than the joint can in a cycle, and not toward
  // the measured pose: nothing is sent then.
  Result send(SafeCommand&& command, std::uint64_t tick, TimePoint deadline) noexcept;
  // Goal := measured position, then torque limits full, drive timeouts armed and both read back, then torque
  // on, for all joints; the command must be the measured pose. Whatever fails: no torque is taken away.
  Result enable(SafeCommand&& measured, std::uint64_t tick, TimePoint deadline) noexcept;
  // Bounds the torque of each joint, as a share of its configured maximum (num_joints) (0..1], and reads back
  // that it arrived. Torque stays on.
  Result limit_torque(std::span<const double> shares, TimePoint deadline) noexcept;
  Result limit_torque(double share, TimePoint deadline) noexcept;  // the same for all joints
  // Torque off, for all joints, and read back. Every joint that is gravity_loaded falls: who calls this has
  // been told which ones.
  Result release(TimePoint deadline) noexcept;

 private:
  // What a family implements; `position` and `shares` are finite, in joint order and of the right number.
  virtual Result read_state(TimePoint deadline, JointState& state) noexcept = 0;
  // position [rad]; velocity [rad/s]: what a drive in velocity mode is sent instead
  virtual Result write_goals(std::span<const double> position, std::span<const double> velocity,
                             TimePoint deadline) noexcept = 0;
  virtual Result switch_on(std::span<const double> measured, TimePoint deadline) noexcept = 0;
  virtual Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept = 0;
  virtual Result switch_off(TimePoint deadline) noexcept = 0;

  Result check(const SafeCommand& command, std::uint64_t tick) const noexcept;

  const std::uint64_t serial_;
  double cycle_ = kDefaultCycle;  // [s]
  bool has_goal_ = false;
  JointArray goal_{};      // last position sent  [rad]
  JointArray measured_{};  // of the last read()  [rad]
};

// Refuses an embodiment whose drives would let a gravity-loaded joint go when this computer falls silent,
// unless its user has accepted that. Throws ConfigError naming the joints.
void check_drops(const Embodiment& embodiment);

}  // namespace wallx
