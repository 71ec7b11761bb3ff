// Joint: the limits, state and calibration of a robot's joints, in SI.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/time.hpp"

namespace wallx {

inline constexpr std::size_t kMaxJoints = 64;  // bound of the loop's fixed buffers
using JointArray = std::array<double, kMaxJoints>;

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

struct JointSpec {
  std::string name;
  int id = 0;                      // nominal bus id
  std::vector<int> model_numbers;  // the drives that fit, as they report themselves
  JointLimits limits;
  double rest_position = 0;    // [rad]
  bool gravity_loaded = true;  // falls when the torque is cut
};

// what is the same for every unit of a robot model
struct Embodiment {
  std::string name;
  std::string motor_family;
  std::vector<JointSpec> joints;
};

// feedback of one bus cycle; entries keep their last value and time when a joint did not answer
struct JointState {
  std::size_t num_joints = 0;
  JointArray position{};                               // [rad]
  JointArray velocity{};                               // [rad/s]
  JointArray load{};                                   // share of stall torque, signed [-1..1]
  std::array<TimePoint, kMaxJoints> sampled_at{};      // when the answer arrived; epoch: never
  std::array<std::uint8_t, kMaxJoints> drive_error{};  // error bits of the last answer, family-specific
};

}  // namespace wallx
