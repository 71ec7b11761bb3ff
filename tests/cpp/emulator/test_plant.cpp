// Plant: what the joint behind the registers does: holds, moves, falls, warms up, protects itself.
// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include "line.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {

constexpr double kDegreesPerTick = 360.0 / kTicksPerTurn;

Bytes word(int value) {
  return {static_cast<std::uint8_t>(value & 0xFF), static_cast<std::uint8_t>(value >> 8)};
}
void write_byte(Servo& servo, int address, int value) {
  const std::uint8_t byte = static_cast<std::uint8_t>(value);
  servo.write(address, {&byte, 1});
}
void write_word(Servo& servo, int address, int value) { servo.write(address, word(value)); }

// a link that gravity pulls down with its full moment when level at position 2048
ServoSetup loaded_servo(double gravity) {
  ServoSetup setup = plain_servo(1);
  setup.gravity = gravity;
  setup.pitch_sign = 1;
  setup.stop_min = 1300;
  setup.stop_max = 3200;
  return setup;
}

}  // namespace

TEST(holds_within_a_fraction_of_a_degree_under_load) {
  Line line({loaded_servo(0.8)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(2.0);
  const double sag = (2048 - servo.position_ticks()) * kDegreesPerTick;
  CHECK(sag > 0.05);  // a P controller gives way
  CHECK(sag < 0.45);
  CHECK_NEAR(servo.velocity(), 0.0, 1e-6);
}

TEST(integral_gain_takes_the_sag_away) {
  Line line({loaded_servo(0.8)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kIGain, 32);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(5.0);
  CHECK_NEAR(servo.position_ticks(), 2048, 1.5);  // the dead zone remains
}

TEST(settles_without_oscillation) {
  for (const double inertia : {0.028, 0.045}) {
    ServoSetup setup = plain_servo(1);
    setup.inertia = inertia;
    Line line({setup});
    Servo& servo = line.bus.servo(0);
    write_byte(servo, reg::kTorque, kTorqueOn);
    write_word(servo, reg::kGoalPosition, 2048 + 512);
    double highest = 0;
    int turns = 0;
    double last = servo.position_ticks();
    bool is_rising = true;
    for (int i = 0; i < 3000; ++i) {
      line.wait(0.001);
      const double now = servo.position_ticks();
      highest = std::max(highest, now);
      if (now < last - 1e-6 && is_rising) ++turns, is_rising = false;
      if (now > last + 1e-6 && !is_rising) ++turns, is_rising = true;
      last = now;
    }
    CHECK((highest - 2560) * kDegreesPerTick < 0.4);
    CHECK(turns <= 1);
    CHECK_NEAR(last, 2560, 0.6 / kDegreesPerTick);
    CHECK_EQ(int{line.byte(1, reg::kMoving)}, 0);
  }
}

TEST(follows_a_streamed_ramp_closely) {
  Line line({loaded_servo(0.4)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  double worst = 0;
  for (int tick = 0; tick < 200; ++tick) {  // 1 rad/s at 200 Hz
    const int goal = 2048 + static_cast<int>(tick * 0.005 / kRadiansPerTick);
    write_word(servo, reg::kGoalPosition, goal);
    line.wait(0.005);
    worst = std::max(worst, std::abs(goal - servo.position_ticks()) * kDegreesPerTick);
  }
  CHECK(worst < 2.0);
}

TEST(speed_acceleration_and_time_bound_the_move) {
  const auto highest_speed = [](int acceleration, int time_ms, int speed, double& duration) {
    Line line(plain_servos(1));
    Servo& servo = line.bus.servo(0);
    write_byte(servo, reg::kTorque, kTorqueOn);
    write_byte(servo, reg::kAcceleration, acceleration);
    const int goal = 2048 + 1024;
    Bytes data = word(goal);
    for (const int value : {time_ms, speed}) {
      const Bytes more = word(value);
      data.insert(data.end(), more.begin(), more.end());
    }
    servo.write(reg::kGoalPosition, data);
    double fastest = 0;
    duration = 0;
    for (int i = 0; i < 5000; ++i) {
      line.wait(0.001);
      fastest = std::max(fastest, servo.velocity());
      if (std::abs(servo.position_ticks() - goal) > 10) duration = (i + 1) * 0.001;
    }
    return fastest;
  };
  double duration = 0;
  CHECK_NEAR(highest_speed(0, 0, 0, duration), 4.7, 0.3);
  CHECK(duration < 0.5);
  CHECK_NEAR(highest_speed(0, 0, 1000, duration), 1000 * kRadiansPerTick, 0.1);  // 1000 steps/s
  CHECK_NEAR(duration, 1.024, 0.06);
  CHECK_NEAR(highest_speed(0, 2000, 0, duration), 1024 * kRadiansPerTick / 2, 0.1);
  CHECK_NEAR(duration, 2.0, 0.1);
  highest_speed(10, 0, 0, duration);  // 1000 steps/s^2: 2 sqrt(distance / acceleration)
  CHECK_NEAR(duration, 2 * std::sqrt(1.024), 0.2);
}

TEST(goal_is_clamped_by_the_position_limits) {
  ServoSetup setup = plain_servo(1);
  setup.range_min = 1500, setup.range_max = 2500;
  Line line({setup});
  Servo& servo = line.bus.servo(0);
  write_word(servo, reg::kGoalPosition, 4000);
  CHECK_EQ(servo.goal_ticks(), 2500);
  write_word(servo, reg::kGoalPosition, 100);
  CHECK_EQ(servo.goal_ticks(), 1500);
  write_word(servo, reg::kGoalPosition, 0x8000 | 50);  // -50
  CHECK_EQ(servo.goal_ticks(), 1500);
  CHECK_EQ(line.word(1, reg::kTargetPosition), 1500);
}

TEST(torque_off_lets_the_joint_fall_to_its_stop) {
  Line line({loaded_servo(0.8)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(0.5);
  write_byte(servo, reg::kTorque, kTorqueOff);
  line.wait(0.2);
  const int early = servo.present_ticks();
  CHECK(early < 2040 && early > 1300);  // on its way
  line.wait(5.0);
  CHECK_EQ(servo.present_ticks(), 1300);
  CHECK_EQ(servo.velocity(), 0.0);
  CHECK_EQ(line.word(1, reg::kPresentLoad), 0);
}

TEST(damping_mode_falls_slower_than_torque_off) {
  const auto fallen = [](int mode) {
    Line line({loaded_servo(0.8)});
    write_byte(line.bus.servo(0), reg::kTorque, mode);
    line.wait(0.4);
    return 2048 - line.bus.servo(0).position_ticks();
  };
  CHECK(fallen(kTorqueDamping) > 0);
  CHECK(fallen(kTorqueDamping) < 0.6 * fallen(kTorqueOff));
}

TEST(torque_on_goes_to_whatever_goal_the_register_holds) {
  Line line(plain_servos(1));
  Servo& servo = line.bus.servo(0);
  write_word(servo, reg::kGoalPosition, 2300);
  line.wait(1.0);
  CHECK_EQ(servo.present_ticks(), 2048);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(1.0);
  CHECK_NEAR(servo.present_ticks(), 2300, 2);
}

TEST(a_low_torque_limit_holds_a_light_link_and_drops_a_heavy_one) {
  for (const double gravity : {0.3, 1.2}) {
    Line line({loaded_servo(gravity)});
    Servo& servo = line.bus.servo(0);
    write_byte(servo, reg::kTorque, kTorqueOn);
    write_word(servo, reg::kTorqueLimit, 200);
    line.wait(3.0);
    CHECK_EQ(servo.present_ticks() < 1900, gravity > 1);
    CHECK(std::abs(servo.effort()) <= 0.2);
  }
}

TEST(load_speed_and_current_carry_their_signs) {
  Line line({loaded_servo(0.8)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(1.0);
  CHECK(line.word(1, reg::kPresentLoad) > 100 && line.word(1, reg::kPresentLoad) < 1024);  // pushes up
  write_word(servo, reg::kGoalPosition, 1400);
  line.wait(0.1);
  CHECK(line.word(1, reg::kPresentSpeed) > 0x8000);  // sign-magnitude: negative
  CHECK_EQ(int{line.byte(1, reg::kMoving)}, 1);
  ServoSetup hanging = loaded_servo(0.8);
  hanging.pitch_sign = -1;
  Line other({hanging});
  write_byte(other.bus.servo(0), reg::kTorque, kTorqueOn);
  other.wait(1.0);
  CHECK((other.word(1, reg::kPresentLoad) & 0x400) != 0);
  CHECK((other.word(1, reg::kPresentCurrent) & 0x8000) != 0);
}

TEST(a_joint_carries_the_links_above_it) {
  std::vector<ServoSetup> arm = {loaded_servo(0.2), loaded_servo(0.6)};
  arm[1].id = 2;
  Line line(arm);
  for (std::size_t i = 0; i < 2; ++i) write_byte(line.bus.servo(i), reg::kTorque, kTorqueOn);
  line.wait(2.0);
  CHECK(line.bus.servo(0).effort() > line.bus.servo(1).effort());
  const double before = line.bus.servo(0).effort();
  write_word(line.bus.servo(1), reg::kGoalPosition, 2048 + 1024);  // the upper link stands upright
  line.wait(2.0);
  CHECK(line.bus.servo(0).effort() < before - 0.05);
}

TEST(temperature_rises_with_load_and_decays) {
  Line line({loaded_servo(1.2)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(200);
  const double hot = servo.temperature();
  CHECK(hot > 30 && hot < 45);
  CHECK_EQ(int{line.byte(1, reg::kPresentTemperature)}, static_cast<int>(std::lround(hot)));
  write_byte(servo, reg::kTorque, kTorqueOff);
  line.wait(200);
  CHECK(servo.temperature() < 0.5 * (hot - 25) + 25);
}

TEST(heat_beyond_the_limit_cuts_the_drive_and_tells) {
  Line line({loaded_servo(1.2)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kMaxTemperature, 30);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.wait(300);
  CHECK((servo.error_bits() & kTemperatureError) != 0);
  CHECK_EQ(servo.effort(), 0.0);
}

TEST(supply_sags_under_load) {
  Line line({loaded_servo(1.2)});
  line.wait(0.1);
  CHECK_EQ(int{line.byte(1, reg::kPresentVoltage)}, 120);
  Servo& servo = line.bus.servo(0);
  line.bus.set_fault(FaultKind::block, 1, 0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  write_word(servo, reg::kGoalPosition, 3000);
  line.wait(0.5);
  CHECK(line.byte(1, reg::kPresentVoltage) < 119);
  CHECK_EQ(int{servo.error_bits()}, 0);
}

TEST(a_blocked_joint_overloads_and_recovers_when_freed) {
  Line line(plain_servos(1));
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  CHECK(line.bus.set_fault(FaultKind::block, 1, 0));
  write_word(servo, reg::kGoalPosition, 2600);
  line.wait(1.0);
  CHECK_EQ(servo.present_ticks(), 2048);
  CHECK_EQ(int{servo.error_bits()}, 0);
  CHECK_NEAR(servo.effort(), 1.0, 1e-9);
  line.wait(1.5);  // the protection time is 2 s
  CHECK_EQ(int{servo.error_bits()}, int{kOverloadError});
  CHECK_NEAR(servo.effort(), 0.2, 1e-9);  // the holding torque
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 20 DC");
  CHECK(line.bus.clear_fault(FaultKind::block, 1));
  write_byte(servo, reg::kTorque, kTorqueOn);
  CHECK_EQ(int{servo.error_bits()}, 0);
  line.wait(2.0);
  CHECK_NEAR(servo.present_ticks(), 2600, 3);
}

TEST(over_current_cuts_the_drive_until_torque_is_written) {
  ServoSetup setup = plain_servo(1);
  setup.protection_current = 250;  // 1.6 A of the 2.7 A stall
  Line line({setup});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  line.bus.set_fault(FaultKind::block, 1, 0);
  write_word(servo, reg::kGoalPosition, 2600);
  line.wait(3.0);
  CHECK((servo.error_bits() & kCurrentError) != 0);
  CHECK_EQ(servo.effort(), 0.0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  CHECK((servo.error_bits() & kCurrentError) == 0);
}

TEST(a_brown_out_loses_torque_and_volatile_registers) {
  Line line({loaded_servo(0.8)});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  write_word(servo, reg::kTorqueLimit, 300);
  write_byte(servo, reg::kAcceleration, 20);
  line.wait(0.5);
  CHECK(line.bus.set_fault(FaultKind::brown_out, 1, 0.1));
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "");  // it boots
  line.wait(0.2);
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
  CHECK_EQ(int{servo.torque()}, 0);
  CHECK_EQ(line.word(1, reg::kTorqueLimit), 1000);  // copied from registers 16-17
  CHECK_EQ(int{line.byte(1, reg::kAcceleration)}, 0);
  CHECK_EQ(int{line.byte(1, reg::kLock)}, 1);
  CHECK(servo.present_ticks() < 2000);  // and it falls
}

TEST(eprom_keeps_only_what_was_written_unlocked) {
  Line line(plain_servos(1));
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kPGain, 20);  // locked: works until the power goes
  CHECK_EQ(int{line.byte(1, reg::kPGain)}, 20);
  write_byte(servo, reg::kLock, 0);
  write_byte(servo, reg::kDGain, 40);
  write_word(servo, reg::kMaxTorque, 500);
  write_byte(servo, reg::kLock, 1);
  CHECK_EQ(line.word(1, reg::kTorqueLimit), 1000);
  servo.power_cycle();
  CHECK_EQ(int{line.byte(1, reg::kPGain)}, 16);
  CHECK_EQ(int{line.byte(1, reg::kDGain)}, 40);
  CHECK_EQ(line.word(1, reg::kTorqueLimit), 500);
}

TEST(homing_offset_shifts_what_is_reported_not_the_joint) {
  ServoSetup setup = plain_servo(1);
  setup.homing_offset = -85;
  setup.position = 1000;
  Line line({setup});
  CHECK_EQ(line.word(1, reg::kPresentPosition), 1000);
  CHECK_EQ(line.word(1, reg::kHomingOffset), 0x0855);
  write_word(line.bus.servo(0), reg::kHomingOffset, 0);
  CHECK_EQ(line.word(1, reg::kPresentPosition), 1000 - 85);
}

TEST(torque_128_makes_the_present_position_the_center) {
  ServoSetup setup = plain_servo(1);
  setup.homing_offset = 300;
  setup.position = 1000;
  Line line({setup});
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kMakeCenter);
  CHECK_EQ(servo.present_ticks(), 2048);
  CHECK_EQ(int{servo.torque()}, 0);
  servo.power_cycle();
  CHECK_EQ(servo.present_ticks(), 2048);
}

TEST(events_tell_goals_and_torque_as_written) {
  EventRing events;
  Line line(plain_servos(2), {}, &events);
  line.exchange("FF FF FE 0A 83 2A 02 01 00 08 02 00 04 39");
  line.exchange("FF FF 01 04 03 28 01 CE");
  Event event;
  REQUIRE(events.pop(event));
  CHECK(event.kind == EventKind::instruction);
  REQUIRE(event.num_goals == 2);
  CHECK_EQ(event.goals[0], 2048);
  CHECK_EQ(event.goals[1], 1024);
  CHECK_EQ(int{event.goal_ids[1]}, 2);
  CHECK_EQ(event.at.time_since_epoch().count(), 140'000);  // 14 bytes on the wire
  REQUIRE(events.pop(event));
  REQUIRE(event.num_torques == 1);
  CHECK_EQ(int{event.torques[0]}, 1);
  CHECK(!events.pop(event));
}
