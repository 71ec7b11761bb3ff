// Registry: from an embodiment's motor family to the Robot that drives it; a new family adds one line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hardware/robot.hpp"

namespace wallx {

// `calibration` in joint order, `port` a serial device, `baud_rate` [bit/s]. Opens nothing.
// Throws ConfigError for an unknown family or a rate out of bounds, CalibrationError for one that does not
// fit.
std::shared_ptr<Robot> make_robot(const Embodiment& embodiment,
                                  const std::vector<JointCalibration>& calibration, const std::string& port,
                                  int baud_rate);

}  // namespace wallx
