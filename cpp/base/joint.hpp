// Joint: the limits, state and calibration of a robot's joints, in SI.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/time.hpp"

namespace wallx {

inline constexpr std::size_t kMaxJoints = 64;  // bound of the loop's fixed buffers
using JointArray = std::array<double, kMaxJoints>;

inline JointArray unknown_joints() noexcept {
  JointArray values;
  values.fill(std::numeric_limits<double>::quiet_NaN());
  return values;
}

struct JointLimits {
  double min_position = 0;      // [rad]
  double max_position = 0;      // [rad]
  double max_velocity = 0;      // [rad/s]
  double max_acceleration = 0;  // [rad/s^2]
  double max_jerk = 0;          // [rad/s^3]
};

// ticks <-> SI of one joint of one unit; field names are LeRobot's calibration file's
struct JointCalibration {
  int id = 0;             // bus id of the servo
  int drive_mode = 0;     // 1: the joint's positive direction is the encoder's negative one
  int homing_offset = 0;  // [ticks], as stored in the servo
  int range_min = 0;      // [ticks]
  int range_max = 0;      // [ticks]
};

// what a joint's drive is told: where to be, or how fast to turn (wheels)
enum class JointMode : std::uint8_t { position, velocity };

// what a drive does by itself when it has not heard from this computer for JointSpec::drive_timeout
enum class DriveAction : std::uint8_t { holds, brakes, lets_go };

struct JointSpec {
  std::string name;
  int id = 0;                      // nominal bus id
  std::vector<int> model_numbers;  // the drives that fit, as they report themselves
  JointLimits limits;
  double rest_position = 0;    // [rad]
  bool gravity_loaded = true;  // falls when the torque is cut
  JointMode mode = JointMode::position;
  double max_following_error =
      0.5;                   // between command and measurement, beyond it an obstacle is assumed [rad]
  double static_sag = 0.05;  // what its load alone makes of that at rest, at most           [rad]
  bool grips = false;        // meeting an obstacle is its work: no fault, the command waits there
  double drive_timeout = 0;  // silence after which the drive acts by itself; 0: it has no such timeout [s]
  DriveAction drive_action = DriveAction::holds;  // what it does then
  // settings that only the motor family knows, by name: it says what they mean and refuses unknown ones
  std::map<std::string, double> drive = {};
};

// what is the same for every unit of a robot model
struct Embodiment {
  std::string name;
  std::string motor_family;
  std::vector<JointSpec> joints;
  bool accepts_drop = false;  // its user knows that a drive's timeout may let a gravity-loaded joint fall
};

// what the error bits of a drive mean: each family has its table
enum class DriveHealth : std::uint8_t {
  ok,
  warning,  // reported, and the drive still does what it is told
  fault,    // it has let go, will, or can no longer be trusted
};

// feedback of one bus cycle; entries keep their last value and time when a joint did not answer. One time per
// joint holds for all its entries. NaN: this family, or this cycle, does not say.
//   Feetech STS: load, voltage, temperature; no current.
struct JointState {
  std::size_t num_joints = 0;
  JointArray position{};                               // [rad]
  JointArray velocity{};                               // [rad/s]
  JointArray load{};                                   // share of stall torque, signed [-1..1]
  JointArray current = unknown_joints();               // [A]
  JointArray voltage = unknown_joints();               // of the supply, at the drive [V]
  JointArray temperature = unknown_joints();           // [degC]
  std::array<TimePoint, kMaxJoints> sampled_at{};      // when the answer arrived; epoch: never
  std::array<std::uint8_t, kMaxJoints> drive_error{};  // error bits of the last answer, family-specific
  std::array<DriveHealth, kMaxJoints> drive_health{};  // what the family makes of them
};

}  // namespace wallx
