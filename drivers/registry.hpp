// Registry: from an embodiment's motor family to the Robot that drives it; a new family adds one line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "hardware/bus_config.hpp"
#include "hardware/robot.hpp"

namespace wallx {

// `calibration` in joint order. Opens nothing.
// Throws ConfigError for an unknown family, or a bus that is unknown, wrong or of the wrong sort for it;
// CalibrationError for a calibration that does not fit.
std::shared_ptr<Robot> make_robot(const Embodiment& embodiment,
                                  const std::vector<JointCalibration>& calibration, const BusConfig& bus);

}  // namespace wallx
