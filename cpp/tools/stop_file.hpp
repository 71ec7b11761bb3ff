// StopFile: what safe-stop must know of a robot, as wallx-edge writes it when a robot is connected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/joint.hpp"
#include "hardware/bus_config.hpp"

namespace wallx {

// {"name", "motor_family", "bus": {"kind", "port", "baud_rate", "bit_rate", "data_bit_rate", "interface"},
//  "joints": [{"name", "id", "mode": "position" or "velocity"}]}
struct StopFile {
  Embodiment embodiment;  // limits and calibration are not needed to stop, and are not told
  std::vector<JointCalibration> calibration;
  BusConfig bus;
};

// Throws ConfigError naming file and key.
StopFile read_stop_file(const std::string& path);

}  // namespace wallx
