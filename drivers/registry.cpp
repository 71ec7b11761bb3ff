// Registry: the table of motor families.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/registry.hpp"

#include "base/errors.hpp"
#include "drivers/buses/registry.hpp"
#include "drivers/motors/damiao/damiao_registers.hpp"
#include "drivers/motors/damiao/damiao_robot.hpp"
#include "drivers/motors/dynamixel/dynamixel_registers.hpp"
#include "drivers/motors/dynamixel/dynamixel_robot.hpp"
#include "drivers/motors/feetech/feetech_registers.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"
#include "drivers/motors/loopback/loopback_robot.hpp"

namespace wallx {

std::shared_ptr<Robot> make_robot(const Embodiment& embodiment,
                                  const std::vector<JointCalibration>& calibration, const BusConfig& bus) {
  check_drops(embodiment);
  if (embodiment.motor_family == "feetech_sts")
    return std::make_shared<FeetechRobot>(embodiment, calibration, make_bus(bus));
  if (embodiment.motor_family == "loopback") return std::make_shared<LoopbackRobot>(embodiment);
  if (embodiment.motor_family == "dynamixel_x")
    return std::make_shared<DynamixelRobot>(embodiment, calibration, make_bus(bus));
  if (embodiment.motor_family == "damiao")
    return std::make_shared<DamiaoRobot>(embodiment, calibration, make_can_bus(bus));
  if (embodiment.motor_family == "feetech_scs")
    throw ConfigError(
        "embodiment '" + embodiment.name +
        "': feetech_scs servos are set up here but not driven: they answer no sync read and have no "
        "torque limit that an emergency stop could lower");
  throw ConfigError("embodiment '" + embodiment.name + "': motor_family is '" + embodiment.motor_family +
                    "', known are feetech_sts, dynamixel_x, damiao, loopback; correct embodiment.toml");
}

std::unique_ptr<MotorRegisters> make_motor_registers(const std::string& motor_family, const BusConfig& bus) {
  if (motor_family == "feetech_sts") return std::make_unique<FeetechRegisters>(make_bus(bus));
  if (motor_family == "feetech_scs") return std::make_unique<FeetechRegisters>(make_bus(bus), feetech::kScs);
  if (motor_family == "dynamixel_x") return std::make_unique<DynamixelRegisters>(make_bus(bus));
  if (motor_family == "damiao") return std::make_unique<DamiaoRegisters>(make_can_bus(bus));
  throw ConfigError("the registers of motor family '" + motor_family +
                    "' cannot be set up here, only those of feetech_sts, feetech_scs, dynamixel_x, damiao");
}

}  // namespace wallx
