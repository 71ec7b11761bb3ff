// Registry: the table of motor families.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/registry.hpp"

#include "base/errors.hpp"
#include "drivers/buses/registry.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"

namespace wallx {

std::shared_ptr<Robot> make_robot(const Embodiment& embodiment,
                                  const std::vector<JointCalibration>& calibration, const BusConfig& bus) {
  check_drops(embodiment);
  if (embodiment.motor_family == "feetech_sts")
    return std::make_shared<FeetechRobot>(embodiment, calibration, make_bus(bus));
  throw ConfigError("embodiment '" + embodiment.name + "': motor_family is '" + embodiment.motor_family +
                    "', known is feetech_sts; correct embodiment.toml");
}

}  // namespace wallx
