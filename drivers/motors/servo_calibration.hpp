// Servo calibration: what every unit of servos that count ticks must satisfy, whatever their family.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/joint.hpp"

namespace wallx {

struct ServoBounds {
  std::string family;          // "Feetech", for messages
  std::size_t max_servos = 0;  // on one bus
  int max_id = 0;
  int max_ticks = 0;
  int max_homing_offset = 0;  // either way [ticks]
  double rad_per_tick = 0;
};

// Throws ConfigError (embodiment) or CalibrationError (calibration) naming the joint: numbers of joints, ids,
// ranges. `calibration` in joint order.
void check_calibration(const Embodiment& embodiment, const std::vector<JointCalibration>& calibration,
                       const ServoBounds& bounds);
// Position joints only: the unit may have been calibrated over less than its model can do: whoever limits
// motion must know the smaller range. Throws CalibrationError when nothing is left.
void narrow_limits(Embodiment& embodiment, const std::vector<JointCalibration>& calibration,
                   double rad_per_tick);

}  // namespace wallx
