// The loop on an emulated plant: obstacles, stops and restarts, judged by where the joints really are.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>

#include "arm/plant.hpp"

using namespace wallx;
using wallx::test::Plant;

TEST(free_motion_at_every_limit_stays_well_below_the_following_error) {
  Plant plant;
  plant.enable();
  plant.run_at(1.4);
  JointArray worst{};
  plant.on_tick = [&] {
    for (std::size_t j = 0; j < Plant::kNumJoints; ++j) {
      const LoopRecord& r = plant.records.back();
      worst[j] = std::max(worst[j], std::abs(r.command[j] - r.measured[j]));
    }
  };
  for (const double to : {-1.4, 1.4, -1.4}) {
    plant.go_to(to);
    plant.tick(400);
  }
  CHECK(plant.loop->state() == LoopState::run);
  std::printf("  largest following error in free motion: %.3f %.3f %.3f rad\n", worst[0], worst[1], worst[2]);
  for (std::size_t j = 0; j < Plant::grip; ++j) {
    CHECK(worst[j] > 0.01);
    CHECK(worst[j] < 0.6 * plant.embodiment.joints[j].max_following_error);
  }
}

TEST(a_blocked_arm_pushes_no_harder_and_does_not_leap_when_freed) {
  Plant plant;
  plant.enable();
  plant.run_at(1.0);
  plant.go_to(-1.0);
  plant.tick(60);
  REQUIRE(plant.wire->set_fault(emulator::FaultKind::block, 2, 0));
  const double stands = plant.angle(Plant::lift);
  CHECK(stands < 0.9 && stands > -0.5);
  const int ticks = plant.tick_until(LoopState::fault, 200);
  std::printf("  noticed after %d ticks\n", ticks);
  REQUIRE(ticks > 0);
  CHECK(plant.records.back().cause.reason == Reason::obstruction);
  CHECK_EQ(plant.records.back().cause.joint, 1);
  CHECK_EQ(plant.torque_limit(Plant::lift), 500);
  CHECK_EQ(plant.torque_limit(Plant::pan), 1000);
  CHECK_NEAR(plant.goal(Plant::lift), stands, 0.05 + 2 * Plant::kTickAngle);
  plant.tick(40);
  double most = 0;
  for (int i = 0; i < 1000; ++i) {
    plant.tick();
    most = std::max(most, plant.effort(Plant::lift));
  }
  CHECK(most <= 0.5 + 1e-9);
  REQUIRE(plant.wire->clear_fault(emulator::FaultKind::block, 2));
  double lowest = stands, highest = stands;
  for (int i = 0; i < 400; ++i) {
    plant.tick();
    lowest = std::min(lowest, plant.angle(Plant::lift));
    highest = std::max(highest, plant.angle(Plant::lift));
  }
  std::printf("  freed: moved %.4f rad\n", std::max(stands - lowest, highest - stands));
  CHECK(stands - lowest <= 0.05 + 0.02 && highest - stands <= 0.05 + 0.02);
  CHECK(plant.loop->state() == LoopState::fault);
  // after a reset it goes on from where it stands
  plant.loop->request(kRequestReset);
  REQUIRE(plant.tick_until(LoopState::calibrated, 10) > 0);
  plant.enable();
  CHECK_EQ(plant.torque_limit(Plant::lift), 1000);
  plant.run_at(0.5);
  plant.tick(200);
  CHECK_NEAR(plant.angle(Plant::lift), 0.5, 0.03);
}

TEST(a_gripper_that_holds_something_is_no_fault_and_lets_it_go_gently) {
  Plant plant;
  plant.enable();
  plant.run_at(0.0);
  const std::vector<double> open{0, 0, 1.0}, closed{0, 0, -1.0};
  plant.loop->submit(open, plant.now, Seconds(60), plant.loop->generation());
  plant.tick(200);
  plant.loop->submit(closed, plant.now, Seconds(60), plant.loop->generation());
  plant.tick(50);
  REQUIRE(plant.wire->set_fault(emulator::FaultKind::block, 3, 0));
  const double holds = plant.angle(Plant::grip);
  plant.tick(1000);
  CHECK(plant.loop->state() == LoopState::run || plant.loop->state() == LoopState::ramp);
  CHECK(plant.goal(Plant::grip) >= holds - 0.5 - 0.03);
  CHECK(plant.goal(Plant::grip) <= holds - 0.4);  // it still presses
  REQUIRE(plant.wire->clear_fault(emulator::FaultKind::block, 3));
  plant.tick(300);
  CHECK_NEAR(plant.angle(Plant::grip), -1.0, 0.03);
  // along its limits, not at the servo's top speed
  const auto& records = plant.records;
  for (std::size_t i = records.size() - 300; i < records.size(); ++i)
    CHECK(std::abs(records[i].command[2] - records[i - 1].command[2]) <= 4.0 * 0.005 * (1 + 1e-9));
}

TEST(an_estop_stops_within_the_braking_distance_at_a_low_torque_limit) {
  Plant plant;
  plant.enable();
  plant.run_at(1.2);
  plant.go_to(-1.2);
  plant.tick(80);
  JointArray at{};
  for (std::size_t j = 0; j < 2; ++j) at[j] = plant.angle(j);
  plant.loop->estop();
  CHECK(plant.tick().state == LoopState::fault);
  CHECK_EQ(plant.torque_limit(0), 1000);
  plant.tick(300);
  for (std::size_t j = 0; j < Plant::kNumJoints; ++j)
    CHECK_EQ(plant.torque_limit(j), j == Plant::grip ? 250 : 500);
  for (std::size_t j = 0; j < 2; ++j) {
    // v^2 / 2 A, the time to ramp the acceleration up and down, and what the joint lags behind
    const JointLimits& l = plant.embodiment.joints[j].limits;
    const double distance = l.max_velocity * l.max_velocity / (2 * l.max_acceleration) +
                            l.max_velocity * l.max_acceleration / l.max_jerk;
    CHECK(std::abs(plant.angle(j) - at[j]) <= distance + 0.3);
    CHECK(plant.wire->servo(j).torque() == emulator::kTorqueOn);
    CHECK(std::abs(plant.wire->servo(j).velocity()) < 0.02);
  }
}

TEST(a_servo_that_restarts_is_torque_lost_and_the_others_hold) {
  Plant plant;
  plant.enable();
  plant.run_at(0.4);
  REQUIRE(plant.wire->set_fault(emulator::FaultKind::brown_out, 1, 0.1));
  REQUIRE(plant.tick_until(LoopState::fault, 100) > 0);
  const Reason reason = plant.records.back().cause.reason;
  CHECK(reason == Reason::torque_lost || reason == Reason::stale_feedback);
  plant.tick(200);
  CHECK(plant.wire->servo(0).torque() != emulator::kTorqueOn);
  CHECK(plant.wire->servo(1).torque() == emulator::kTorqueOn);
  CHECK_NEAR(plant.angle(Plant::lift), 0.4, 0.03);
}

TEST(a_servo_that_lost_its_torque_is_noticed) {
  Plant plant;
  plant.enable();
  plant.run_at(0.4);
  // longer than a restart takes: what the others hold must not hide it
  REQUIRE(plant.wire->set_fault(emulator::FaultKind::brown_out, 1, 0.1));
  plant.tick(400);
  CHECK(plant.loop->state() == LoopState::fault);
  plant.loop->request(kRequestReset);
  plant.tick(3);
  plant.enable();  // with every joint, also the one that restarted
  plant.tick(50);
  REQUIRE(plant.loop->state() == LoopState::armed);
  const std::uint8_t off[] = {0};
  plant.wire->set_fault(emulator::FaultKind::silent, 1, 0);
  plant.tick(2);
  (void)plant.wire->servo(0).write(40, off);  // away for two answers, and back without torque
  plant.wire->clear_fault(emulator::FaultKind::silent, 1);
  CHECK_EQ(plant.tick_until(LoopState::fault, 5), 1);
  CHECK(plant.records.back().cause.reason == Reason::torque_lost);
  CHECK_EQ(plant.records.back().cause.joint, 0);
}

TEST(releasing_lets_go_of_every_joint) {
  Plant plant;
  plant.enable();
  plant.run_at(0.6);
  plant.loop->request(kRequestHold | kRequestRelease);
  REQUIRE(plant.tick_until(LoopState::off, 200) > 0);
  for (std::size_t j = 0; j < Plant::kNumJoints; ++j) CHECK_EQ(int{plant.wire->servo(j).torque()}, 0);
  plant.tick(200);
  CHECK(std::abs(plant.angle(Plant::lift) - 0.6) > 0.1);  // it falls: that is what was asked for
  CHECK(plant.loop->state() == LoopState::off);
}
