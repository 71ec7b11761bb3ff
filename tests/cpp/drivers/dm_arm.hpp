// DmArm: emulated Damiao motors on a lock-step CAN line, and the robot that drives them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "check.hpp"
#include "contract/command_maker.hpp"
#include "contract/lock_step_can_bus.hpp"
#include "drivers/motors/damiao/damiao_robot.hpp"
#include "emulator/dm_bus.hpp"

namespace wallx::test {

inline constexpr double kDegree = std::numbers::pi / 180;

struct DmParts {
  Embodiment embodiment;
  std::vector<JointCalibration> calibration;
  std::vector<emulator::DmSetup> motors;
};

// three DM-J4310; `middle` turns against its motor and has an offset. mode 1: MIT, 4: position with force
inline DmParts make_dm_parts(int mode) {
  DmParts parts{.embodiment = {.name = "arm", .motor_family = "damiao", .joints = {}},
                .calibration = {{1, 0, 0, -100, 100}, {2, 1, -17, -100, 100}, {7, 0, 5, -100, 100}},
                .motors = {}};
  int i = 0;
  for (const char* name : {"first", "middle", "last"}) {
    const JointCalibration& joint = parts.calibration[static_cast<std::size_t>(i)];
    JointSpec spec{.name = name,
                   .id = joint.id,
                   .model_numbers = {4310},
                   .limits = {-1.5, 1.5, 3, 30, 600},
                   .rest_position = 0};
    spec.drive = {{"control_mode", mode}, {"max_torque", 7}};
    if (mode == 1) spec.drive.insert({{"kp", 60}, {"kd", 1.5}});
    parts.embodiment.joints.push_back(spec);
    emulator::DmSetup motor;
    motor.name = name;
    motor.id = joint.id;
    motor.feedback_id = joint.id + 0x10;
    motor.mode = mode;
    motor.serial = 100 + i;
    motor.position = joint.homing_offset * kDegree + 0.01 * i;
    motor.friction = 0.003;
    parts.motors.push_back(motor);
    ++i;
  }
  return parts;
}

struct DmArm {
  explicit DmArm(int mode = 1, bool has_fd = true) : DmArm(make_dm_parts(mode), has_fd) {}
  explicit DmArm(DmParts made, bool has_fd = true)
      : parts(std::move(made)),
        wire(std::make_shared<emulator::DmBus>(
            parts.motors, emulator::DmBusOptions{.rates = {.data_bit_rate = has_fd ? 5'000'000 : 0},
                                                 .start = TimePoint{std::chrono::seconds(1)}})) {
    auto made_bus = std::make_unique<LockStepCanBus>(wire, has_fd);
    bus = made_bus.get();
    robot = std::make_unique<DamiaoRobot>(parts.embodiment, parts.calibration, std::move(made_bus));
  }

  SafeCommand command(const std::vector<double>& position) const {
    return SafetyLimiter::make(robot->serial(), tick, position);
  }
  std::vector<double> measured() const {
    return {state.position.begin(),
            state.position.begin() + static_cast<std::ptrdiff_t>(parts.motors.size())};
  }
  Result read() { return robot->read(TimePoint::max(), state); }
  Result send(const std::vector<double>& position) {
    return robot->send(command(position), tick, TimePoint::max());
  }
  Result enable() { return robot->enable(command(measured()), tick, TimePoint::max()); }
  void start() {
    robot->connect();
    REQUIRE(read().ok());
    REQUIRE(enable().ok());
  }
  Result cycle(const std::vector<double>& position) {
    ++tick;
    bus->advance(std::chrono::milliseconds(5));
    const Result result = read();
    const Result sent = send(position);
    return result.ok() ? sent : result;
  }
  // where a joint stands and what it was told, by the emulator's account [rad]
  double to_joint(std::size_t joint, double motor) const {
    const JointCalibration& c = parts.calibration[joint];
    return (c.drive_mode ? -1 : 1) * (motor - c.homing_offset * kDegree);
  }
  double position(std::size_t joint) const { return to_joint(joint, wire->motor(joint).position()); }
  double goal(std::size_t joint) const { return to_joint(joint, wire->motor(joint).goal()); }
  emulator::DmMotor& motor(std::size_t joint) const { return wire->motor(joint); }

  DmParts parts;
  std::shared_ptr<emulator::DmBus> wire;
  LockStepCanBus* bus = nullptr;  // owned by the robot
  std::unique_ptr<DamiaoRobot> robot;
  JointState state;
  std::uint64_t tick = 5;
};

}  // namespace wallx::test
