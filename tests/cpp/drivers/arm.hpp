// Arm: three scripted servos, the robot that drives them, and a maker of commands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "contract/command_maker.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"
#include "drivers/scripted_servos.hpp"

namespace wallx::test {

inline Embodiment make_embodiment() {
  Embodiment embodiment{.name = "arm", .motor_family = "feetech_sts", .joints = {}};
  for (const auto& [name, id] : {std::pair{"base", 1}, {"elbow", 2}, {"hand", 7}})
    embodiment.joints.push_back({.name = name,
                                 .id = id,
                                 .model_numbers = {777},
                                 .limits = {-1.5, 1.5, 3, 30, 600},
                                 .rest_position = 0});
  return embodiment;
}

// `elbow` turns against its encoder and has a homing offset
inline std::vector<JointCalibration> make_calibration() {
  return {{1, 0, 0, 743, 3441}, {2, 1, -85, 743, 3441}, {7, 0, 0, 743, 3441}};
}

struct Arm {
  explicit Arm(Embodiment embodiment = make_embodiment(),
               std::vector<JointCalibration> calibration = make_calibration())
      : servos(new ScriptedServos),
        robot(std::move(embodiment), std::move(calibration), std::unique_ptr<Bus>(servos)) {
    for (const int id : {1, 2, 7}) servos->add(id);
    servos->set16(2, 31, 0x0855);  // -85
  }

  SafeCommand command(const std::vector<double>& position, std::uint64_t tick = 5) const {
    return SafetyLimiter::make(robot.serial(), tick, position);
  }
  // sends the straight line from here to there in steps that a joint can go
  Result glide(const std::vector<double>& from, const std::vector<double>& to) {
    Result result;
    std::vector<double> row(to.size());
    for (int i = 1; i <= 20 && result.ok(); ++i) {
      for (std::size_t k = 0; k < to.size(); ++k)
        row[k] = i == 20 ? to[k] : from[k] + (to[k] - from[k]) * i / 20;
      result = robot.send(command(row), 5, deadline);
    }
    return result;
  }
  // connected, torque on, and the log empty
  void start() {
    robot.connect();
    REQUIRE(robot.read(deadline, state).ok());
    REQUIRE(
        robot.enable(command({state.position[0], state.position[1], state.position[2]}), 5, deadline).ok());
    servos->log.clear();
  }

  ScriptedServos* servos;  // owned by the robot
  FeetechRobot robot;
  JointState state;
  TimePoint deadline = TimePoint::max();  // the scripted bus never waits
};

}  // namespace wallx::test
