// ControlLoop: obstacles, loads, drive errors, far rows and letting go, on a fake robot and a fake clock.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "control/control_loop.hpp"
#include "fake_robot.hpp"

using namespace wallx;
using wallx::test::Bench;
using wallx::test::FakeRobot;
using wallx::test::make_embodiment;

namespace {

// running toward 1.5 rad, where joint 1 meets an obstacle on the way
void run_into_obstacle(Bench& bench) {
  bench.enable();
  bench.go_to(1.5);
  REQUIRE(bench.tick_until(LoopState::run, 2000) > 0);
  bench.go_to(-1.5);
  bench.tick(60);
  bench.robot->blocked_joint = 1;
}

}  // namespace

TEST(a_blocked_joint_is_pulled_back_to_where_it_stands_and_faults) {
  Bench bench;
  run_into_obstacle(bench);
  const double stands = bench.robot->pose[1];
  REQUIRE(bench.tick_until(LoopState::fault, 200) > 0);
  CHECK(bench.records.back().cause.reason == Reason::obstruction);
  CHECK_EQ(bench.records.back().cause.joint, 1);
  CHECK(bench.records.back().reasons[1] & kLimitFollowing);
  // in the very tick: the goal is where the joint stands, and its sag below
  CHECK_NEAR(bench.robot->goal[1], stands - bench.robot->embodiment().joints[1].static_sag, 1e-12);
  CHECK_EQ(bench.robot->torque_share[1], 0.5);
  CHECK_EQ(bench.robot->torque_share[0], 1.0);
  CHECK(bench.robot->limit_deadline <= bench.now + bench.loop->period());  // the others brake on in time
  // it never pushed further ahead than the bound
  for (const LoopRecord& r : bench.records)
    CHECK(std::abs(r.command[1] - r.measured[1]) <=
          bench.robot->embodiment().joints[1].max_following_error + 3.0 / 200);
  // freed, it does not leap
  bench.tick(100);
  bench.robot->blocked_joint = -1;
  bench.tick(100);
  CHECK_NEAR(bench.robot->pose[1], stands, 0.05 + 1e-9);
  CHECK(bench.records.back().state == LoopState::fault);
  // the others braked along their limits and stand
  const auto& sent = bench.robot->sent;
  CHECK(sent.back() == sent[sent.size() - 50]);
  const auto report = bench.loop->fault_report();
  REQUIRE(report.has_value());
  const std::string message = fault_message(*report, bench.robot->embodiment(), bench.config);
  CHECK(message.find("'joint1'") != std::string::npos && message.find("obstacle") != std::string::npos);
}

TEST(a_joint_that_is_pushed_away_while_it_holds_yields) {
  Bench bench;
  bench.enable();
  bench.tick(10);
  bench.robot->blocked_joint = 2;
  // as fast as a joint can be moved, and no faster
  const auto push = [&](double distance, int steps) {
    for (int i = 0; i < steps; ++i) bench.robot->pose[2] += distance / steps, bench.tick();
  };
  push(0.4, 4);
  bench.tick(10);
  CHECK(bench.loop->state() == LoopState::armed);
  push(0.08, 1);
  CHECK(bench.loop->state() == LoopState::armed);
  push(0.12, 1);
  CHECK(bench.loop->state() == LoopState::fault);
  CHECK_NEAR(bench.robot->goal[2], bench.robot->pose[2] - 0.05, 1e-12);
  // and goes on yielding while the fault is latched
  push(0.48, 4);
  CHECK_NEAR(bench.robot->goal[2], bench.robot->pose[2] - 0.05, 1e-12);
}

TEST(a_position_that_jumps_is_not_followed) {
  for (const bool grips : {false, true}) {
    Embodiment embodiment = make_embodiment();
    embodiment.joints[1].grips = grips;
    Bench bench(200, std::make_shared<FakeRobot>(embodiment));
    bench.enable();
    bench.tick(10);
    const double goal = bench.robot->goal[1];
    bench.robot->blocked_joint = 1;
    bench.robot->pose[1] += 1.2;  // an encoder that slipped: no joint moves that far in a period
    const LoopRecord record = bench.tick();
    CHECK(record.state == LoopState::fault && record.cause.reason == Reason::implausible);
    CHECK_EQ(record.cause.joint, 1);
    bench.tick(50);
    CHECK_EQ(bench.robot->goal[1], goal);  // it holds, however often the wrong pose is repeated
  }
}

TEST(a_wheel_turns_past_the_end_of_its_encoder) {
  Embodiment embodiment = make_embodiment();
  embodiment.joints[1].mode = JointMode::velocity;
  Bench bench(200, std::make_shared<FakeRobot>(embodiment));
  bench.enable();
  bench.tick(10);
  bench.robot->pose[1] -= 6.28;  // what it reports wraps once in a turn
  bench.tick(10);
  CHECK(bench.loop->state() != LoopState::fault);
}

TEST(a_joint_that_grips_waits_at_what_it_holds) {
  Embodiment embodiment = make_embodiment();
  embodiment.joints[1].grips = true;
  Bench bench(200, std::make_shared<FakeRobot>(embodiment));
  run_into_obstacle(bench);
  const double stands = bench.robot->pose[1];
  bench.tick(400);
  CHECK(bench.loop->state() == LoopState::run || bench.loop->state() == LoopState::ramp);
  CHECK(std::abs(bench.robot->goal[1] - stands) <= 0.5 + 3.0 / 200 + 1e-9);
  CHECK(std::abs(bench.robot->goal[1] - stands) >= 0.5 - 1e-9);
  CHECK_EQ(bench.robot->goal[0], -1.5);
  CHECK(bench.loop->counters().num_limited_ticks[8] > 100);
}

TEST(a_torque_limit_that_was_not_confirmed_is_sent_again) {
  Bench bench;
  bench.enable();
  bench.tick(5);
  bench.robot->num_lost_limits = 3;
  bench.loop->estop();
  bench.tick(3);
  CHECK_EQ(bench.robot->torque_share[0], 1.0);
  bench.tick();
  CHECK_EQ(bench.robot->torque_share[0], 0.5);
  CHECK_EQ(bench.robot->num_torque_limits, 4);
  bench.tick(10);
  CHECK_EQ(bench.robot->num_torque_limits, 4);
}

TEST(long_high_load_steps_the_torque_down_and_then_faults) {
  Bench bench;
  bench.enable();
  bench.tick(5);
  bench.robot->load[0] = -0.79;
  bench.tick(1000);
  CHECK_EQ(bench.robot->torque_share[0], 1.0);
  bench.robot->load[0] = -0.85;
  bench.tick(150);
  bench.robot->load[0] = 0.1;  // a short one does nothing, and the time starts again
  bench.tick(5);
  bench.robot->load[0] = -0.85;
  bench.tick(195);
  CHECK_EQ(bench.robot->torque_share[0], 1.0);
  bench.tick(10);
  CHECK_EQ(bench.robot->torque_share[0], 0.75);
  CHECK_EQ(bench.robot->torque_share[1], 1.0);
  bench.tick(200);
  CHECK_EQ(bench.robot->torque_share[0], 0.5);
  CHECK(bench.loop->state() == LoopState::armed);
  CHECK_EQ(bench.tick_until(LoopState::fault, 210), 201 - 5);
  CHECK(bench.records.back().cause.reason == Reason::overload);
  CHECK_EQ(bench.records.back().cause.joint, 0);
  CHECK_EQ(bench.records.back().torque_share[0], 0.5f);
}

TEST(a_drive_fault_stops_the_robot_and_refuses_enabling) {
  Bench bench;
  bench.enable();
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  bench.robot->health[2] = DriveHealth::warning;
  bench.tick(5);
  CHECK(bench.loop->state() == LoopState::run);
  bench.robot->health[2] = DriveHealth::fault;
  CHECK(bench.tick().state == LoopState::fault);
  CHECK(bench.records.back().cause.reason == Reason::drive_fault);
  CHECK_EQ(bench.records.back().cause.joint, 2);
  bench.loop->request(kRequestReset);
  REQUIRE(bench.tick_until(LoopState::calibrated, 100) > 0);
  const int enables = bench.robot->num_enables;
  bench.loop->request(kRequestEnable);
  CHECK(bench.tick().state == LoopState::fault);
  CHECK_EQ(bench.robot->num_enables, enables);
}

TEST(a_plan_that_begins_far_away_is_not_followed) {
  Bench bench;
  bench.config.max_first_step = 0.5;
  bench.loop = std::make_unique<ControlLoop>(bench.robot, bench.config);
  bench.enable();
  bench.go_to(0.9);  // 0.8 rad from joint 0
  bench.tick(50);
  CHECK(bench.loop->state() == LoopState::armed);
  CHECK(bench.records.back().cause.reason == Reason::far_row);
  CHECK_EQ(bench.records.back().cause.joint, 0);
  CHECK_EQ(bench.robot->goal[0], 0.1);
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  // in motion: brakes, and stays refused however near it comes
  bench.go_to(-0.2);
  CHECK(bench.tick(2).state == LoopState::hold);
  CHECK(bench.records.back().cause.reason == Reason::far_row);
  bench.tick(200);
  CHECK_EQ(bench.robot->goal[0], 0.5);
  bench.go_to(0.1);
  CHECK(bench.tick_until(LoopState::run, 1000) > 0);
}

TEST(release_takes_the_torque_once_at_rest_and_enabling_starts_at_the_measured_pose) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(60);
  bench.loop->request(kRequestHold);
  bench.tick();
  bench.loop->request(kRequestRelease);
  CHECK(bench.tick().state == LoopState::hold);
  CHECK_EQ(bench.robot->num_releases, 0);
  REQUIRE(bench.tick_until(LoopState::off, 300) > 3);
  CHECK_EQ(bench.robot->num_releases, 1);
  CHECK(!bench.robot->is_torque_on && !bench.records.back().is_enabled);
  const int sends = bench.robot->num_sends;
  bench.robot->pose[1] -= 0.3;  // it fell
  bench.loop->request(kRequestResume);
  bench.go_to(0.5);
  bench.tick(50);
  CHECK_EQ(bench.robot->num_sends, sends);
  CHECK(bench.loop->state() == LoopState::off);
  bench.loop->request(kRequestEnable);
  bench.tick();
  CHECK(bench.loop->state() == LoopState::armed);
  CHECK_EQ(bench.robot->goal[1], bench.robot->pose[1]);
}

TEST(wheels_ramp_to_zero_when_the_robot_holds) {
  Embodiment embodiment = make_embodiment(2);
  embodiment.joints[1].mode = JointMode::velocity;
  embodiment.joints[1].limits.min_position = -1e6;
  embodiment.joints[1].limits.max_position = 1e6;
  Bench bench(200, std::make_shared<FakeRobot>(embodiment));
  bench.robot->lag = 0;  // wheels are not watched for following
  bench.enable();
  std::vector<double> rows;
  for (int i = 0; i < 60; ++i) rows.insert(rows.end(), {0.1, 0.2 + 0.5 * 0.05 * i});
  bench.loop->submit(rows, bench.now, Seconds(0.05), bench.loop->generation());
  REQUIRE(bench.tick_until(LoopState::run, 300) > 0);
  bench.tick(20);
  CHECK_NEAR(bench.robot->goal_velocity[1], 0.5, 0.05);
  bench.loop->request(kRequestHold);
  double last = bench.robot->goal_velocity[1];
  for (int i = 0; i < 100; ++i) {
    bench.tick();
    CHECK(std::abs(bench.robot->goal_velocity[1] - last) <= 20 * 0.005 * (1 + 1e-9));
    last = bench.robot->goal_velocity[1];
  }
  CHECK_EQ(last, 0.0);
}
