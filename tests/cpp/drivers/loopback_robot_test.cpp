// LoopbackRobot: it is where it was told to be, and only while connected.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/loopback/loopback_robot.hpp"

#include "base/errors.hpp"
#include "check.hpp"
#include "contract/command_maker.hpp"

namespace wallx {
namespace {

Embodiment embodiment(std::size_t joints) {
  Embodiment e;
  e.name = e.motor_family = "loopback";
  for (std::size_t j = 0; j < joints; ++j) {
    JointSpec joint;
    joint.name = "joint" + std::to_string(j);
    joint.limits = {-2, 2, 3, 20, 400};
    joint.rest_position = 0.1 * static_cast<double>(j);
    e.joints.push_back(joint);
  }
  return e;
}

}  // namespace

TEST(a_loopback_robot_rests_then_is_where_it_was_told) {
  LoopbackRobot robot(embodiment(3));
  JointState state;
  CHECK(robot.read(TimePoint::max(), state).code == ErrorCode::bus_closed);
  robot.connect();
  REQUIRE(robot.read(TimePoint::max(), state).ok());
  CHECK_EQ(state.num_joints, 3u);
  CHECK_EQ(state.position[2], 0.2);
  CHECK(state.sampled_at[2] != TimePoint{});
  robot.set_cycle(0.1);
  REQUIRE(robot.enable(SafetyLimiter::make(robot.serial(), 1, {0, 0.1, 0.2}), 1, TimePoint::max()).ok());
  REQUIRE(robot.send(SafetyLimiter::make(robot.serial(), 2, {0.1, 0.1, 0.1}), 2, TimePoint::max()).ok());
  REQUIRE(robot.read(TimePoint::max(), state).ok());
  CHECK_EQ(state.position[0], 0.1);
  CHECK_EQ(state.position[2], 0.1);
  robot.disconnect();
  CHECK(robot.send(SafetyLimiter::make(robot.serial(), 3, {0, 0, 0}), 3, TimePoint::max()).code ==
        ErrorCode::bus_closed);
}

TEST(a_loopback_robot_has_joints_and_not_too_many) {
  CHECK_THROWS(LoopbackRobot(embodiment(0)), ConfigError, "has 0 joints");
  CHECK_THROWS(LoopbackRobot(embodiment(kMaxJoints + 1)), ConfigError, "1..64");
}

}  // namespace wallx
