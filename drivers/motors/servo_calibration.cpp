// Servo calibration: the checks. SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/servo_calibration.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/errors.hpp"

namespace wallx {
namespace {

std::string quote(const std::string& name) { return "joint '" + name + "'"; }

}  // namespace

void check_calibration(const Embodiment& embodiment, const std::vector<JointCalibration>& calibration,
                       const ServoBounds& bounds) {
  const std::size_t num_joints = embodiment.joints.size();
  if (num_joints == 0 || num_joints > bounds.max_servos)
    throw ConfigError("embodiment '" + embodiment.name + "' has " + std::to_string(num_joints) +
                      " joints, one " + bounds.family + " bus drives 1.." +
                      std::to_string(bounds.max_servos));
  if (calibration.size() != num_joints)
    throw CalibrationError("calibration of '" + embodiment.name + "' has " +
                           std::to_string(calibration.size()) + " joints, the embodiment has " +
                           std::to_string(num_joints));
  for (std::size_t i = 0; i < num_joints; ++i) {
    const JointCalibration& joint = calibration[i];
    const std::string name = quote(embodiment.joints[i].name);
    if (embodiment.joints[i].model_numbers.empty())
      throw ConfigError(name + " of embodiment '" + embodiment.name +
                        "': model_numbers is empty, must list the servos that fit");
    if (!embodiment.joints[i].drive.empty())
      throw ConfigError(name + " of embodiment '" + embodiment.name + "': drive has '" +
                        embodiment.joints[i].drive.begin()->first + "', " + bounds.family +
                        " servos know no such settings; remove it");
    if (joint.id < 0 || joint.id > bounds.max_id)
      throw CalibrationError(name + ": id is " + std::to_string(joint.id) + ", must be 0.." +
                             std::to_string(bounds.max_id));
    for (std::size_t other = 0; other < i; ++other)
      if (calibration[other].id == joint.id)
        throw CalibrationError(name + ": id " + std::to_string(joint.id) + " is also that of " +
                               quote(embodiment.joints[other].name) + "; every servo needs its own");
    if (joint.drive_mode != 0 && joint.drive_mode != 1)
      throw CalibrationError(name + ": drive_mode is " + std::to_string(joint.drive_mode) +
                             ", must be 0 or 1");
    if (std::abs(joint.homing_offset) > bounds.max_homing_offset)
      throw CalibrationError(name + ": homing_offset is " + std::to_string(joint.homing_offset) +
                             ", must be -" + std::to_string(bounds.max_homing_offset) + ".." +
                             std::to_string(bounds.max_homing_offset));
    if (joint.range_min < 0 || joint.range_max > bounds.max_ticks || joint.range_min >= joint.range_max)
      throw CalibrationError(name + ": range " + std::to_string(joint.range_min) + ".." +
                             std::to_string(joint.range_max) + " must be rising and inside 0.." +
                             std::to_string(bounds.max_ticks));
  }
}

void narrow_limits(Embodiment& embodiment, const std::vector<JointCalibration>& calibration,
                   double rad_per_tick) {
  for (std::size_t i = 0; i < embodiment.joints.size(); ++i) {
    JointSpec& joint = embodiment.joints[i];
    if (joint.mode == JointMode::velocity) continue;
    const double half = (calibration[i].range_max - calibration[i].range_min) / 2.0 * rad_per_tick;
    joint.limits.min_position = std::max(joint.limits.min_position, -half);
    joint.limits.max_position = std::min(joint.limits.max_position, half);
    if (!(joint.limits.min_position < joint.limits.max_position))
      throw CalibrationError(quote(joint.name) + ": the calibrated range of +-" + std::to_string(half) +
                             " rad has nothing in common with the embodiment's position limits");
  }
}

}  // namespace wallx
