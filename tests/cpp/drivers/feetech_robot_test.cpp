// FeetechRobot's loop calls: the bytes they send, what they make of the answers, and what they refuse.
// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <thread>

#include "drivers/arm.hpp"
#include "hardware/loopback_bus.hpp"

namespace wallx::test {
namespace {

constexpr double kTick = 2 * M_PI / 4096;  // [rad]

TEST(read_asks_with_one_sync_read_and_converts_to_si) {
  Arm arm;
  arm.robot.connect();
  arm.servos->log.clear();
  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) {
    answers = {
        bytes("FF FF 01 0A 00 2C 08 E8 03 F4 01 7C 1F 45"),  // 2092, 1000 ticks/s, 500 per mille
        bytes("FF FF 02 0A 20 2C 0C 64 80 0A 04 7C 1F 0E"),  // 3116, -100 ticks/s, -10 per mille, overload
        bytes("FF FF 07 0A 00 2C 04 00 00 00 00 7C 1F 23"),  // 1068, at rest
    };
  };
  const TimePoint before = Clock::now();
  CHECK(arm.robot.read(arm.deadline, arm.state).ok());
  REQUIRE(arm.servos->log.size() == 1);
  CHECK_EQ(arm.servos->log[0], "FF FF FE 07 82 38 08 01 02 07 2E");
  CHECK_EQ(arm.state.num_joints, 3u);
  CHECK_NEAR(arm.state.position[0], 0.0, 1e-12);
  CHECK_NEAR(arm.state.velocity[0], 1000 * kTick, 1e-12);
  CHECK_NEAR(arm.state.load[0], 0.5, 1e-12);
  // elbow: drive_mode 1 turns every sign
  CHECK_NEAR(arm.state.position[1], -1024 * kTick, 1e-12);
  CHECK_NEAR(arm.state.velocity[1], 100 * kTick, 1e-12);
  CHECK_NEAR(arm.state.load[1], 0.01, 1e-12);
  CHECK_EQ(int{arm.state.drive_error[1]}, 0x20);
  CHECK_NEAR(arm.state.position[2], -1024 * kTick, 1e-12);
  CHECK_EQ(arm.state.velocity[2], 0.0);
  CHECK_EQ(int{arm.state.drive_error[0]}, 0);
  CHECK(arm.state.drive_health[0] == DriveHealth::ok);
  CHECK_NEAR(arm.state.voltage[1], 12.4, 1e-12);
  CHECK_EQ(arm.state.temperature[1], 31.0);
  CHECK(std::isnan(arm.state.current[1]));
  for (int i = 0; i < 3; ++i)
    CHECK(arm.state.sampled_at[i] >= before && arm.state.sampled_at[i] <= Clock::now());
}

TEST(read_takes_a_position_below_zero) {
  Arm arm;
  arm.robot.connect();
  arm.servos->set16(1, 56, 0x8000 + 10);
  CHECK(arm.robot.read(arm.deadline, arm.state).ok());
  CHECK_NEAR(arm.state.position[0], (-10 - 2092) * kTick, 1e-12);
}

TEST(read_puts_answers_together_from_single_bytes) {
  Arm arm;
  arm.servos->max_received = 1;
  arm.robot.connect();
  CHECK(arm.robot.read(arm.deadline, arm.state).ok());
}

TEST(a_silent_joint_keeps_its_old_entry_and_time) {
  Arm arm;
  arm.robot.connect();
  arm.servos->set16(2, 56, 2000);
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  const JointState old = arm.state;
  arm.servos->set16(1, 56, 2200);
  arm.servos->set16(2, 56, 2300);
  arm.servos->set16(7, 56, 2400);
  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) { answers.erase(answers.begin() + 1); };
  const Result result = arm.robot.read(arm.deadline, arm.state);
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(arm.state.position[1], old.position[1]);
  CHECK(arm.state.sampled_at[1] == old.sampled_at[1]);
  CHECK_NEAR(arm.state.position[0], 108 * kTick, 1e-12);
  CHECK_NEAR(arm.state.position[2], 308 * kTick, 1e-12);
  CHECK(arm.state.sampled_at[2] > old.sampled_at[2]);
}

TEST(a_joint_that_never_answered_has_no_time) {
  Arm arm;
  arm.robot.connect();
  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) { answers.clear(); };
  const Result result = arm.robot.read(arm.deadline, arm.state);
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 0);
  CHECK_EQ(arm.state.num_joints, 3u);
  CHECK(arm.state.sampled_at[0] == TimePoint{});
}

TEST(every_damaged_bit_of_an_answer_is_noticed) {
  Arm arm;
  arm.robot.connect();
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  const double position = arm.state.position[1];
  arm.servos->set16(2, 56, 1800);
  for (std::size_t at = 0; at < 14; ++at)
    for (int bit = 0; bit < 8; ++bit) {
      arm.servos->fault = [&](const Bytes&, std::vector<Bytes>& answers) {
        answers[1][at] = static_cast<std::uint8_t>(answers[1][at] ^ 1 << bit);
      };
      const Result result = arm.robot.read(arm.deadline, arm.state);
      CHECK(result.code == ErrorCode::bad_reply);
      CHECK_EQ(result.joint, 1);
      CHECK_EQ(arm.state.position[1], position);
    }
}

TEST(a_damaged_answer_is_a_bad_reply) {
  Arm arm;
  arm.robot.connect();
  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) { answers[1].back() ^= 1; };
  const Result result = arm.robot.read(arm.deadline, arm.state);
  CHECK(result.code == ErrorCode::bad_reply);
  CHECK_EQ(result.joint, 1);
}

TEST(an_answer_of_another_length_or_id_is_a_bad_reply) {
  for (const char* strange : {"FF FF 02 04 00 2C 08 C5", "FF FF 09 0A 00 2C 08 00 00 00 00 7C 1F 1D"}) {
    Arm arm;
    arm.robot.connect();
    arm.servos->fault = [&](const Bytes&, std::vector<Bytes>& answers) { answers[1] = bytes(strange); };
    const Result result = arm.robot.read(arm.deadline, arm.state);
    CHECK(result.code == ErrorCode::bad_reply);
    CHECK_EQ(result.joint, 1);
    CHECK(arm.state.sampled_at[1] == TimePoint{});
  }
}

TEST(garbage_between_answers_does_no_harm) {
  Arm arm;
  arm.robot.connect();
  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) {
    answers.insert(answers.begin() + 1, bytes("FF FF 00 12 FF FF FF"));
    answers.insert(answers.begin(), bytes("FF"));
  };
  CHECK(arm.robot.read(arm.deadline, arm.state).ok());
}

TEST(answers_that_waited_since_the_last_cycle_are_dropped) {
  Arm arm;
  arm.robot.connect();
  arm.servos->input = ScriptedServos::answer(1, 0, bytes("FF 01 00 00 00 00 7C 1F"));
  arm.servos->registers.erase(1);
  const Result result = arm.robot.read(arm.deadline, arm.state);
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 0);
  CHECK(arm.state.sampled_at[0] == TimePoint{});
}

// the tail of the previous cycle may still be on its way when the input is discarded
TEST(an_answer_that_comes_late_out_of_order_is_not_taken_for_this_cycle) {
  Arm arm;
  arm.robot.connect();
  arm.servos->late = ScriptedServos::answer(7, 0, bytes("FF 01 00 00 00 00 7C 1F"));
  CHECK(arm.robot.read(arm.deadline, arm.state).ok());
  CHECK_NEAR(arm.state.position[2], 0.0, 1e-12);

  JointState state;
  arm.servos->late = ScriptedServos::answer(7, 0, bytes("FF 01 00 00 00 00 7C 1F"));
  arm.servos->registers.erase(7);
  const Result result = arm.robot.read(arm.deadline, state);
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 2);
  CHECK(state.sampled_at[2] == TimePoint{});
}

TEST(a_line_that_never_falls_silent_does_not_keep_the_loop) {
  Arm arm;
  arm.robot.connect();
  arm.servos->fault = [&](const Bytes&, std::vector<Bytes>& answers) {
    answers.assign(2000, Bytes(64, 0xFF));
  };
  CHECK(!arm.robot.read(TimePoint{}, arm.state).ok());
  CHECK(arm.servos->input.size() > 64'000);
}

TEST(an_unplugged_bus_is_reported_by_every_call) {
  Arm arm;
  arm.start();
  arm.servos->is_unplugged = true;
  CHECK(arm.robot.read(arm.deadline, arm.state).code == ErrorCode::bus_closed);
  CHECK(arm.robot.send(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::bus_closed);
  CHECK(arm.robot.limit_torque(0.5, arm.deadline).code == ErrorCode::bus_closed);
}

TEST(nothing_works_before_connect_or_after_disconnect) {
  Arm arm;
  for (int round = 0; round < 2; ++round) {
    CHECK(arm.robot.read(arm.deadline, arm.state).code == ErrorCode::wrong_state);
    CHECK(arm.robot.send(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
    CHECK(arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
    CHECK(arm.robot.limit_torque(0.5, arm.deadline).code == ErrorCode::wrong_state);
    if (round == 0) CHECK(arm.servos->log.empty());
    if (round == 0) arm.start();
    arm.robot.disconnect();
  }
  CHECK(arm.servos->log.empty());
}

// it answers every request, at rest and in time: only its torque register tells
TEST(torque_that_is_lost_between_two_reads_is_found_within_eight) {
  Arm arm;
  arm.start();
  arm.servos->registers[2][40] = 0;
  Result found;
  int count = 0;
  while (found.ok() && count < 8) found = arm.robot.read(arm.deadline, arm.state), ++count;
  CHECK(found.code == ErrorCode::torque_off);
  CHECK_EQ(found.joint, 1);
  arm.servos->registers[2][40] = 1;
  for (int i = 0; i < 16; ++i) CHECK(arm.robot.read(arm.deadline, arm.state).ok());
}

TEST(send_writes_all_goals_in_one_frame) {
  Arm arm;
  arm.start();
  CHECK(arm.robot.send(arm.command({100 * kTick, 100 * kTick, -0.6 * kTick}), 5, arm.deadline).ok());
  REQUIRE(arm.servos->log.size() == 1);
  // 2192, 1992 (the elbow turns the other way), 2091
  CHECK_EQ(arm.servos->log[0], "FF FF FE 0D 83 2A 02 01 90 08 02 C8 07 07 2B 08 A1");
  CHECK_EQ(arm.robot.num_clamped(), 0u);
}

TEST(send_refuses_another_robot_another_tick_and_another_width) {
  Arm arm, other;
  arm.start();
  CHECK(arm.robot.send(other.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.robot.send(arm.command({0, 0, 0}, 4), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.robot.send(arm.command({0, 0, 0}, 6), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.robot.send(arm.command({0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.servos->log.empty());
}

TEST(send_refuses_numbers_that_are_none) {
  Arm arm;
  arm.start();
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const Result result = arm.robot.send(arm.command({0, bad, 0}), 5, arm.deadline);
    CHECK(result.code == ErrorCode::not_finite);
    CHECK_EQ(result.joint, 1);
  }
  CHECK(arm.servos->log.empty());
}

TEST(send_is_refused_until_enable) {
  Arm arm;
  arm.robot.connect();
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->log.clear();
  CHECK(arm.robot.send(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.servos->log.empty());
  arm.start();
  arm.robot.disconnect();
  arm.robot.connect();
  arm.servos->log.clear();
  CHECK(arm.robot.send(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.servos->log.empty());
}

TEST(goals_never_leave_the_calibrated_range_and_clamps_are_counted) {
  Arm arm;
  arm.start();
  const double half = 1349 * kTick;
  CHECK(arm.glide({0, 0, 0}, {half, half, -half}).ok());
  CHECK_EQ(arm.servos->get16(1, 42), 3441);
  CHECK_EQ(arm.servos->get16(2, 42), 743);
  CHECK_EQ(arm.servos->get16(7, 42), 743);
  CHECK_EQ(arm.robot.num_clamped(), 0u);
  CHECK(arm.robot.send(arm.command({half + kTick, half + 0.3, -half}), 5, arm.deadline).ok());
  CHECK_EQ(arm.servos->get16(1, 42), 3441);
  CHECK_EQ(arm.servos->get16(2, 42), 743);
  CHECK_EQ(arm.robot.num_clamped(), 2u);
}

TEST(a_sent_goal_reads_back_within_half_a_tick) {
  auto calibration = make_calibration();
  calibration[0].range_max = 3440;  // the middle lies between two ticks
  Arm arm(make_embodiment(), calibration);
  arm.servos->set16(1, 11, 3440);
  arm.start();
  REQUIRE(arm.glide({0, 0, 0}, {-1.5, -1.5, -1.5}).ok());
  for (int i = -150; i <= 150; ++i) {
    const double wanted = i * 0.01;
    REQUIRE(arm.robot.send(arm.command({wanted, wanted, wanted}), 5, arm.deadline).ok());
    for (const int id : {1, 2, 7}) arm.servos->set16(id, 56, arm.servos->get16(id, 42));
    REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
    for (int joint = 0; joint < 3; ++joint) CHECK_NEAR(arm.state.position[joint], wanted, kTick / 2 + 1e-9);
  }
}

TEST(enable_sets_the_goal_first_then_the_torque_limit_then_the_torque_and_reads_it_back) {
  Arm arm;
  arm.servos->set16(2, 16, 600);
  arm.robot.connect();
  for (const int id : {1, 2, 7}) arm.servos->set16(id, 56, 2100 + id);
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->log.clear();
  const auto& position = arm.state.position;
  CHECK(arm.robot.enable(arm.command({position[0], position[1], position[2]}), 5, arm.deadline).ok());
  const std::vector<std::string> expected{
      // acceleration 0, goal 2101 / 2102 / 2107, time 0, speed 0
      "FF FF FE 1C 83 29 07 01 00 35 08 00 00 00 00 02 00 36 08 00 00 00 00 07 00 3B 08 00 00 00 00 6A",
      "FF FF FE 0D 83 30 02 01 E8 03 02 58 02 07 E8 03 05",  // 1000, 600, 1000
      "FF FF FE 07 82 30 02 01 02 07 3C",
      "FF FF FE 0A 83 28 01 01 01 02 01 07 01 3E",
      "FF FF FE 07 82 28 01 01 02 07 45",
  };
  CHECK_EQ(arm.servos->log.size(), expected.size());
  for (std::size_t i = 0; i < std::min(arm.servos->log.size(), expected.size()); ++i)
    CHECK_EQ(arm.servos->log[i], expected[i]);
  CHECK_EQ(arm.robot.num_clamped(), 0u);
}

TEST(enable_names_the_joint_whose_torque_stays_off) {
  Arm arm;
  arm.robot.connect();
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->fault = [&](const Bytes&, std::vector<Bytes>&) { arm.servos->registers[7][40] = 0; };
  arm.servos->error[7] = 0x20;
  const Result result = arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline);
  CHECK(result.code == ErrorCode::drive_error);
  CHECK_EQ(result.joint, 2);
  CHECK_EQ(result.detail, 0x20);
  CHECK_EQ(int{arm.servos->registers[1][40]}, 1);
}

TEST(enable_names_the_joint_that_does_not_confirm) {
  Arm arm;
  arm.robot.connect();
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->fault = [&](const Bytes&, std::vector<Bytes>& answers) {
    if (!answers.empty()) answers.pop_back();
  };
  const Result result = arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline);
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 2);
}

TEST(enable_refuses_a_joint_outside_its_calibrated_range) {
  Arm arm;
  arm.robot.connect();
  arm.servos->set16(2, 56, 300);
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->log.clear();
  const auto& position = arm.state.position;
  const Result result =
      arm.robot.enable(arm.command({position[0], position[1], position[2]}), 5, arm.deadline);
  CHECK(result.code == ErrorCode::out_of_range);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(result.detail, 300);
  CHECK(arm.servos->log.empty());  // a goal clamped into the range would have been a jump
}

TEST(enable_refuses_a_pose_that_was_not_measured) {
  Arm arm;
  arm.robot.connect();
  arm.servos->log.clear();
  CHECK(arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline).code ==
        ErrorCode::wrong_state);  // never read
  CHECK(arm.servos->log.empty());

  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->log.clear();
  const Result far = arm.robot.enable(arm.command({0, 0.11, 0}), 5, arm.deadline);
  CHECK(far.code == ErrorCode::out_of_range);
  CHECK_EQ(far.joint, 1);
  CHECK(arm.robot.enable(arm.command({0, 0, 0}, 4), 5, arm.deadline).code == ErrorCode::wrong_state);
  CHECK(arm.robot.enable(arm.command({0, 0, std::nan("")}), 5, arm.deadline).code == ErrorCode::not_finite);
  CHECK(arm.servos->log.empty());

  arm.servos->fault = [](const Bytes&, std::vector<Bytes>& answers) { answers.erase(answers.begin()); };
  CHECK(!arm.robot.read(arm.deadline, arm.state).ok());
  arm.servos->fault = nullptr;
  arm.servos->log.clear();
  const Result unread = arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline);
  CHECK(unread.code == ErrorCode::wrong_state);
  CHECK_EQ(unread.joint, 0);
  CHECK(arm.servos->log.empty());
}

TEST(limit_torque_is_a_share_of_what_each_servo_is_configured_for) {
  Arm arm;
  arm.servos->set16(2, 16, 600);
  arm.start();
  CHECK(arm.robot.limit_torque(0.25, arm.deadline).ok());
  REQUIRE(arm.servos->log.size() == 2);
  CHECK_EQ(arm.servos->log[0], "FF FF FE 0D 83 30 02 01 FA 00 02 96 00 07 FA 00 AB");  // 250, 150, 250
  CHECK_EQ(arm.servos->log[1], "FF FF FE 07 82 30 02 01 02 07 3C");                    // read back
  CHECK_EQ(int{arm.servos->registers[1][40]}, 1);
  CHECK(arm.robot.limit_torque(1e-9, arm.deadline).ok());
  CHECK_EQ(arm.servos->get16(2, 48), 1);  // never 0: that would let go
}

TEST(a_torque_limit_that_did_not_arrive_is_named) {
  Arm arm;
  arm.start();
  arm.servos->fault = [&](const Bytes&, std::vector<Bytes>& answers) {
    for (Bytes& answer : answers)
      if (answer[2] == 2) answer = ScriptedServos::answer(2, 0, bytes("E8 03"));
  };
  const Result result = arm.robot.limit_torque(0.5, arm.deadline);
  CHECK(result.code == ErrorCode::drive_error);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(result.detail, 1000);
}

TEST(a_step_that_no_joint_can_make_is_not_sent) {
  Arm arm;
  arm.start();
  arm.robot.set_cycle(0.005);
  const double largest = 1.5 * 3 * 0.005 + 2e-3;
  CHECK(arm.robot.send(arm.command({largest * 0.999, 0, 0}), 5, arm.deadline).ok());
  arm.servos->log.clear();
  const Result result = arm.robot.send(arm.command({largest * 0.999, 0, -largest * 1.001}), 5, arm.deadline);
  CHECK(result.code == ErrorCode::step_too_large);
  CHECK_EQ(result.joint, 2);
  CHECK(arm.servos->log.empty());
  // refused steps do not add up
  CHECK(arm.robot.send(arm.command({largest * 0.999, 0, -largest * 1.001}), 5, arm.deadline).code ==
        ErrorCode::step_too_large);
  // a goal far from where the joint stands may be pulled back to it at once, and not beyond
  REQUIRE(arm.glide({largest * 0.999, 0, 0}, {0.02, 0, 0}).ok());
  arm.servos->set16(1, 56, 2092 - 652);  // pushed to -1 rad
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
  const double stands = arm.state.position[0];
  CHECK(arm.robot.send(arm.command({stands - kTick, 0, 0}), 5, arm.deadline).code ==
        ErrorCode::step_too_large);
  CHECK(arm.robot.send(arm.command({stands + 0.05, 0, 0}), 5, arm.deadline).ok());
  CHECK(arm.robot.send(arm.command({stands + 0.5, 0, 0}), 5, arm.deadline).code == ErrorCode::step_too_large);
}

TEST(release_takes_the_torque_of_every_joint_and_ends_motion) {
  Arm arm;
  arm.start();
  CHECK(arm.robot.release(arm.deadline).ok());
  for (const int id : {1, 2, 7}) CHECK_EQ(int{arm.servos->registers[id][40]}, 0);
  CHECK(arm.robot.send(arm.command({0, 0, 0}), 5, arm.deadline).code == ErrorCode::wrong_state);
  REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());  // no torque is no fault now
  arm.start();
  arm.servos->fault = [&](const Bytes&, std::vector<Bytes>&) { arm.servos->registers[7][40] = 1; };
  const Result result = arm.robot.release(arm.deadline);
  CHECK(result.code == ErrorCode::drive_error);
  CHECK_EQ(result.joint, 2);
}

TEST(errors_are_judged_by_what_the_servo_lets_go_for) {
  auto embodiment = make_embodiment();
  embodiment.joints[2].grips = true;
  Arm arm(embodiment);
  for (const int id : {1, 2, 7}) arm.servos->registers[id][19] = 0x2C;  // the factory's unload_condition
  arm.robot.connect();
  const auto judge = [&](std::uint8_t bits, std::size_t joint) {
    for (const int id : {1, 2, 7}) arm.servos->error[id] = bits;
    REQUIRE(arm.robot.read(arm.deadline, arm.state).ok());
    return arm.state.drive_health[joint];
  };
  CHECK(judge(0, 0) == DriveHealth::ok);
  CHECK(judge(feetech::kErrorVoltage, 0) == DriveHealth::warning);
  CHECK(judge(feetech::kErrorAngle, 0) == DriveHealth::fault);
  CHECK(judge(feetech::kErrorTemperature, 0) == DriveHealth::fault);
  CHECK(judge(feetech::kErrorCurrent, 0) == DriveHealth::fault);
  CHECK(judge(feetech::kErrorOverload, 0) == DriveHealth::fault);
  CHECK(judge(feetech::kErrorOverload, 2) == DriveHealth::warning);  // it grips
  CHECK(judge(feetech::kErrorTemperature, 2) == DriveHealth::fault);
  // a servo that is told to let go at a low voltage
  arm.robot.disconnect();
  arm.servos->registers[1][19] = 0x2D;
  arm.robot.connect();
  CHECK(judge(feetech::kErrorVoltage, 0) == DriveHealth::fault);
  CHECK(judge(feetech::kErrorVoltage, 1) == DriveHealth::warning);
}

TEST(wheels_are_told_a_speed_and_stand_when_enabled) {
  auto embodiment = make_embodiment();
  embodiment.joints[1].mode = JointMode::velocity;
  embodiment.joints[1].limits = {-1e6, 1e6, 3, 30, 600};
  Arm arm(embodiment);
  CHECK_THROWS(arm.robot.connect(), DeviceError, "1 (velocity)");
  arm.servos->registers[2][33] = 1;
  arm.servos->set16(2, 9, 0);  // wheels have no range
  arm.servos->set16(2, 11, 0);
  arm.servos->set16(2, 46, 700);
  arm.start();
  CHECK_EQ(arm.servos->get16(2, 46), 0);
  const double start = arm.state.position[1];
  CHECK(
      arm.robot
          .send(SafetyLimiter::make(arm.robot.serial(), 5, {0, start + 0.005, 0}, {0, 1, 0}), 5, arm.deadline)
          .ok());
  CHECK_EQ(arm.servos->get16(2, 46), 0x8000 + 652);  // it turns against its encoder
  CHECK_EQ(arm.servos->get16(1, 46), 0);
  const Result fast = arm.robot.send(
      SafetyLimiter::make(arm.robot.serial(), 5, {0, start + 0.01, 0}, {0, 4.6, 0}), 5, arm.deadline);
  CHECK(fast.code == ErrorCode::step_too_large);
  CHECK_EQ(fast.joint, 1);
}

TEST(limit_torque_refuses_what_is_no_share) {
  Arm arm;
  arm.start();
  for (const double bad : {0.0, -0.1, 1.0001})
    CHECK(arm.robot.limit_torque(bad, arm.deadline).code == ErrorCode::out_of_range);
  CHECK(arm.robot.limit_torque(std::nan(""), arm.deadline).code == ErrorCode::not_finite);
  CHECK(arm.servos->log.empty());
}

TEST(enable_restores_the_torque_that_an_emergency_stop_took) {
  Arm arm;
  arm.start();
  CHECK(arm.robot.limit_torque(0.1, arm.deadline).ok());
  CHECK_EQ(arm.servos->get16(1, 48), 100);
  CHECK(arm.robot.enable(arm.command({0, 0, 0}), 5, arm.deadline).ok());
  CHECK_EQ(arm.servos->get16(1, 48), 1000);
}

// the servos on another thread, so that the robot really waits for them
TEST(the_whole_chain_works_over_a_line_with_a_servo_thread) {
  auto [near, far] = make_loopback("loop");
  far->open();
  ScriptedServos servos;
  for (const int id : {1, 2, 7}) servos.add(id);
  servos.set16(2, 31, 0x0855);
  std::thread thread([&servos, &line = *far] {
    Bytes pending;
    std::uint8_t buffer[256];
    std::size_t received = 0;
    while (true) {
      const Result result = line.receive(buffer, Clock::now() + std::chrono::seconds(20), received);
      if (result.code == ErrorCode::bus_closed && servos.log.empty())
        continue;  // the robot has not opened it yet
      if (!result.ok()) return;
      pending.insert(pending.end(), buffer, buffer + received);
      while (pending.size() >= 4 && pending.size() >= 4u + pending[3]) {
        const Bytes request(pending.begin(), pending.begin() + 4 + pending[3]);
        pending.erase(pending.begin(), pending.begin() + 4 + pending[3]);
        for (const Bytes& answer : servos.handle(request))
          (void)line.transmit(answer, Clock::now() + std::chrono::seconds(20));
      }
    }
  });
  {
    FeetechRobot robot(make_embodiment(), make_calibration(), std::move(near));
    const TimePoint deadline = Clock::now() + std::chrono::seconds(20);
    JointState state;
    robot.connect();
    CHECK(robot.read(deadline, state).ok());
    CHECK(robot.enable(SafetyLimiter::make(robot.serial(), 1, {0, 0, 0}), 1, deadline).ok());
    CHECK(robot.send(SafetyLimiter::make(robot.serial(), 2, {0.1, 0.1, 0.1}), 2, deadline).ok());
    CHECK(robot.read(deadline, state).ok());
  }
  thread.join();
  CHECK_EQ(servos.get16(1, 42), 2157);
  CHECK_EQ(servos.get16(2, 42), 2027);
}

}  // namespace
}  // namespace wallx::test
