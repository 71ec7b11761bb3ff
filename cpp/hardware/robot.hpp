// Robot: a live, connected embodiment; applies the calibration between the motor codec and SI.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/joint.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "hardware/safe_command.hpp"

namespace wallx {

class Robot {
 public:
  virtual ~Robot() = default;

  virtual const Embodiment& embodiment() const noexcept = 0;
  virtual std::uint64_t serial() const noexcept = 0;  // unique in the process; a SafeCommand carries it

  // Opens the bus, finds every motor, compares its registers with the calibration. Changes no torque and
  // moves nothing. Blocks up to a second. Throws BusError, BusTimeout, CalibrationError naming joint, value
  // and expected value.
  virtual void connect() = 0;
  // Closes the bus and sends nothing: the motors keep doing what they did. Idempotent.
  virtual void disconnect() noexcept = 0;

  // Loop calls: only the loop's thread, no throw, no allocation, bounded by `deadline`.

  // Asks every motor for its state. A joint that does not answer keeps its old entry and time.
  // Result: ok when every joint answered; timeout/bad_reply with the first joint that did not; bus_closed.
  virtual Result read(TimePoint deadline, JointState& state) noexcept = 0;
  // Sends one command. wrong_state when it was made for another robot or another tick than `tick`.
  virtual Result send(SafeCommand&& command, std::uint64_t tick, TimePoint deadline) noexcept = 0;
  // Goal := measured position, then torque on, for all joints; the command must be the measured pose.
  virtual Result enable(SafeCommand&& measured, std::uint64_t tick, TimePoint deadline) noexcept = 0;
  // Bounds the torque of every joint, as a share of its configured maximum (0..1]. Torque stays on.
  virtual Result limit_torque(double share, TimePoint deadline) noexcept = 0;
};

}  // namespace wallx
