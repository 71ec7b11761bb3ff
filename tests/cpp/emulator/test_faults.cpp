// Faults: each kind does to an STS servo and its line what its row says, and ends when it is cleared.
// SPDX-License-Identifier: Apache-2.0
#include "base/errors.hpp"
#include "check.hpp"
#include "line.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {

constexpr const char* kPing1 = "FF FF 01 02 01 FB";
constexpr const char* kPong1 = "FF FF 01 02 00 FC";
constexpr const char* kRead1 = "FF FF 01 04 02 38 02 BE";  // position of servo 1
constexpr const char* kAt2048 = "FF FF 01 04 00 00 08 F2";

void set(Line& line, FaultKind kind, int id, double value = 0) {
  REQUIRE(line.bus.set_fault(kind, id, value));
}

void enable(Line& line, int goal) {
  line.exchange("FF FF 01 04 03 28 01 CE");
  Servo& servo = *line.bus.find(1);
  const std::uint8_t bytes[2]{static_cast<std::uint8_t>(goal), static_cast<std::uint8_t>(goal >> 8)};
  servo.write(reg::kGoalPosition, bytes);
}

}  // namespace

TEST(every_fault_has_a_name_and_a_preset_within_its_bounds) {
  for (const FaultRow& row : kFaultRows) {
    CHECK_EQ(&find_fault(row.name), &row);
    CHECK(row.min <= row.preset && row.preset <= row.max);
    CHECK((row.unit[0] == 0) == (row.max == row.min));
  }
  CHECK(kNumFaults >= 20);
}

TEST(a_fault_that_cannot_be_is_refused_by_name) {
  const FaultSupport some{FaultKind::drop, FaultKind::wrong_id, FaultKind::unplug, FaultKind::encoder_wrap};
  CHECK_THROWS(find_fault("dance"), ConfigError, "unknown fault 'dance'; known are drop, corrupt");
  CHECK_THROWS(check_fault("tin", some, FaultKind::block, 1, 0), ConfigError,
               "the emulated tin drives cannot do the fault 'block'; they can do drop, wrong_id, unplug");
  CHECK_THROWS(check_fault("tin", some, FaultKind::wrong_id, kEveryDrive, 3), ConfigError, "id of one drive");
  CHECK_THROWS(check_fault("tin", some, FaultKind::unplug, 3, 0), ConfigError, "belongs to the whole line");
  CHECK_THROWS(check_fault("tin", some, FaultKind::drop, 1, 1.5), ConfigError, "takes 0..1 chance, got 1.5");
  CHECK_THROWS(check_fault("tin", some, FaultKind::encoder_wrap, 1, 0.5), ConfigError, "whole numbers");
  check_fault("tin", some, FaultKind::drop, kEveryDrive, 0.5);
}

TEST(spoiled_answers_are_spoiled_as_told_and_whole_again_when_cleared) {
  for (const auto& [kind, answer] : {std::pair{FaultKind::drop, ""},
                                     {FaultKind::truncate, "FF FF 01 04"},
                                     {FaultKind::wrong_length, "FF FF 01 03 00 00 FB"},
                                     {FaultKind::late, ""}}) {
    Line line(plain_servos(2));
    set(line, kind, 1, 1);
    CHECK_EQ(line.exchange(kRead1), answer);
    CHECK_EQ(line.exchange("FF FF 02 02 01 FA"), "FF FF 02 02 00 FB");  // the other one is spared
    CHECK(line.bus.clear_fault(kind, 1));
    CHECK_EQ(line.exchange(kRead1), kAt2048);
    CHECK_EQ(line.bus.counters().answers_spoiled, 1u);
  }
  Line line(plain_servos(1));
  set(line, FaultKind::repeat, 1, 1);
  CHECK_EQ(line.exchange(kPing1), std::string(kPong1) + " " + kPong1);
  line.bus.clear_fault(FaultKind::repeat, 1);
  set(line, FaultKind::wrong_length, 1, 1);
  CHECK_EQ(line.exchange(kPing1), "FF FF 01 03 00 00 FB");
  line.bus.clear_fault(FaultKind::wrong_length, 1);
  set(line, FaultKind::noise, 1, 1);
  const std::string noisy = line.exchange(kPing1);
  CHECK(noisy.size() > std::string(kPong1).size() && noisy.ends_with(kPong1));
  line.bus.clear_fault(FaultKind::noise, 1);
  set(line, FaultKind::corrupt, kEveryDrive, 1);
  CHECK(line.exchange(kPing1) != kPong1);
}

TEST(a_late_answer_takes_the_place_of_the_next) {
  Line line(plain_servos(1));
  set(line, FaultKind::late, 1, 1);
  CHECK_EQ(line.exchange(kPing1), "");
  CHECK_EQ(line.exchange(kRead1), kPong1);  // what was asked before
  CHECK_EQ(line.exchange(kPing1), kAt2048);
}

TEST(a_delayed_answer_comes_whole_and_late) {
  Line line(plain_servos(1));
  set(line, FaultKind::delay, 1, 0.02);
  const TimePoint before = line.now;
  CHECK_EQ(line.exchange(kPing1), kPong1);
  CHECK_EQ((line.now - before) / std::chrono::microseconds(1), 20'120);
}

TEST(two_servos_with_one_id_fall_on_each_other) {
  Line line(plain_servos(2));
  line.bus.find(2)->set_fault(FaultKind::drive_error, kOverloadError);
  set(line, FaultKind::duplicate_id, 2, 1);
  CHECK_EQ(line.exchange("FF FF 02 02 01 FA"), "");      // nobody is called that any more
  CHECK_EQ(line.exchange(kPing1), "FF FF 01 02 00 DC");  // FC and DC at once: a 0 wins
  line.bus.clear_fault(FaultKind::duplicate_id, 2);
  CHECK_EQ(line.exchange(kPing1), kPong1);
  CHECK_EQ(line.exchange("FF FF 02 02 01 FA"), "FF FF 02 02 20 DB");
}

TEST(a_babbler_speaks_unasked_but_leaves_the_line_free_in_between) {
  Line line(plain_servos(2));
  set(line, FaultKind::babble, 2, 500);
  line.wait(0.1);
  Bytes heard;
  line.collect(heard);
  CHECK_NEAR(static_cast<double>(heard.size()), 6 * 50, 12);
  CHECK_EQ(show({heard.begin(), heard.begin() + 6}), "FF FF 02 02 00 FB");
  CHECK(line.exchange(kPing1).find(kPong1) != std::string::npos);
  line.bus.clear_fault(FaultKind::babble, 2);
  line.exchange(kPing1);
  CHECK_EQ(line.exchange(kPing1), kPong1);
}

TEST(ignored_writes_are_acknowledged) {
  Line line(plain_servos(1));
  set(line, FaultKind::ignore_writes, 1);
  CHECK_EQ(line.exchange("FF FF 01 04 03 28 01 CE"), kPong1);
  CHECK_EQ(int{line.byte(1, reg::kTorque)}, 0);
}

TEST(a_stuck_servo_takes_goals_and_keeps_its_last) {
  Line line(plain_servos(1));
  enable(line, 2100);
  line.wait(1);
  set(line, FaultKind::stuck, 1);
  enable(line, 2500);
  line.wait(1);
  CHECK_EQ(line.word(1, reg::kGoalPosition), 2500);
  CHECK_NEAR(line.bus.servo(0).present_ticks(), 2100, 3);
}

TEST(frozen_feedback_repeats_itself_while_the_joint_moves) {
  Line line(plain_servos(1));
  set(line, FaultKind::freeze, 1);
  enable(line, 2500);
  line.wait(1);
  CHECK_EQ(line.exchange(kRead1), kAt2048);
  CHECK_NEAR(line.bus.servo(0).present_ticks(), 2500, 3);
}

TEST(another_mode_is_told_and_follows_no_position) {
  Line line(plain_servos(1));
  set(line, FaultKind::wrong_mode, 1, 1);
  CHECK_EQ(int{line.byte(1, reg::kMode)}, 1);
  enable(line, 2500);
  line.wait(1);
  CHECK_NEAR(line.bus.servo(0).present_ticks(), 2048, 2);
  set(line, FaultKind::reboot, 1);
  CHECK_EQ(int{line.byte(1, reg::kMode)}, 1);
  line.bus.clear_fault(FaultKind::wrong_mode, 1);
  CHECK_EQ(int{line.byte(1, reg::kMode)}, 0);
}

TEST(torque_lost_keeps_the_registers_and_a_reboot_does_not) {
  Line line(plain_servos(1));
  Servo& servo = line.bus.servo(0);
  for (const FaultKind kind : {FaultKind::torque_lost, FaultKind::reboot}) {
    enable(line, 2100);
    const std::uint8_t acceleration[1]{20};
    servo.write(reg::kAcceleration, acceleration);
    set(line, kind, 1);
    CHECK_EQ(int{line.byte(1, reg::kTorque)}, 0);
    CHECK_EQ(int{line.byte(1, reg::kAcceleration)}, kind == FaultKind::reboot ? 0 : 20);
    CHECK_EQ(line.exchange(kPing1), kPong1);  // and not an answer is missed
  }
}

TEST(a_brown_out_lasts_as_long_as_told) {
  Line line(plain_servos(1));
  set(line, FaultKind::brown_out, 1, 0.5);
  line.wait(0.49);
  CHECK_EQ(line.exchange(kPing1), "");
  line.wait(0.02);
  CHECK_EQ(line.exchange(kPing1), kPong1);
}

TEST(supply_and_heat_are_reported_and_protected_against) {
  Line line(plain_servos(1));
  set(line, FaultKind::supply, 1, 3.5);
  line.wait(0.01);
  CHECK_EQ(int{line.byte(1, reg::kPresentVoltage)}, 35);
  CHECK_EQ(line.bus.servo(0).error_bits() & kVoltageError, int{kVoltageError});
  line.bus.clear_fault(FaultKind::supply, 1);
  set(line, FaultKind::overheat, 1, 95);
  enable(line, 2500);
  line.wait(0.5);
  CHECK_EQ(int{line.byte(1, reg::kPresentTemperature)}, 95);
  CHECK_EQ(int{line.bus.servo(0).error_bits()}, int{kTemperatureError});
  CHECK(line.bus.servo(0).present_ticks() < 2110);  // the drive was cut almost at once
}

TEST(a_sensor_that_jumps_misleads_the_servo_and_a_wrap_only_the_reader) {
  Line line(plain_servos(1));
  enable(line, 2048);
  line.wait(0.1);
  const int ticks = 100;
  set(line, FaultKind::sensor_jump, 1, ticks * kRadiansPerTick + 1e-9);
  CHECK_EQ(line.word(1, reg::kPresentPosition), 2048 + ticks);
  line.wait(1);
  CHECK_NEAR(line.word(1, reg::kPresentPosition), 2048, 3);
  line.bus.clear_fault(FaultKind::sensor_jump, 1);
  CHECK_NEAR(line.word(1, reg::kPresentPosition), 2048 - ticks, 3);  // where the joint was driven
  line.wait(1);
  set(line, FaultKind::encoder_wrap, 1, 1);
  CHECK_NEAR(line.word(1, reg::kPresentPosition), 2048 + 4096, 3);
  line.wait(1);
  CHECK_NEAR(line.bus.servo(0).present_ticks(), 2048, 3);
}

TEST(a_hand_moves_a_limp_joint_and_not_a_stiff_one) {
  ServoSetup setup = plain_servo(1);
  setup.stop_min = 1000, setup.stop_max = 3000;
  Line line({setup});
  Servo& servo = line.bus.servo(0);
  servo.set_hand(1.0);
  line.wait(2);
  CHECK_NEAR(servo.present_ticks(), 3000, 4);
  servo.set_hand(0.0);
  line.wait(3);
  CHECK_NEAR(servo.present_ticks(), 1000, 4);
  servo.set_hand(0.5);
  line.wait(2);
  CHECK_NEAR(servo.present_ticks(), 2000, 20);
  servo.set_hand(std::numeric_limits<double>::quiet_NaN());
  enable(line, 2000);
  line.wait(1);
  servo.set_hand(1.0);
  line.wait(0.5);
  CHECK(servo.present_ticks() < 2040);
}

TEST(faults_are_logged_with_who_and_what) {
  EventRing ring;
  Line line(plain_servos(1), {}, &ring);
  set(line, FaultKind::drop, kEveryDrive, 1);
  line.exchange(kPing1);
  line.bus.clear_fault(FaultKind::drop, 1);
  std::vector<Event> events;
  for (Event event; ring.pop(event);) {
    if (event.kind == EventKind::fault) events.push_back(event);
  }
  REQUIRE(events.size() == 3);
  CHECK(events[0].action == FaultAction::set && events[0].fault_id == kEveryDrive && events[0].value == 1);
  CHECK(events[1].action == FaultAction::hit && events[1].fault_id == 1);
  CHECK(events[2].action == FaultAction::cleared && events[2].fault == FaultKind::drop);
}
