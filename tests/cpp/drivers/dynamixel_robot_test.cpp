// DynamixelRobot against emulated servos: the Robot contract, and what only this family has: the bus
// watchdog, alerts, shared answers, current-based positions. SPDX-License-Identifier: Apache-2.0
#include "drivers/allocation_count.hpp"
#include "drivers/dynamixel_arm.hpp"

namespace wallx::test {
namespace {

std::unique_ptr<ArmUnderTest> make_arm() { return std::make_unique<DynamixelArm>(); }
std::unique_ptr<ArmUnderTest> make_old_arm() { return std::make_unique<DynamixelArm>(44); }

ROBOT_CONTRACT(dynamixel, make_arm)
// firmware without the fast sync read
ROBOT_PROMISE(dynamixel_44, make_old_arm, read_gives_si_and_times)
ROBOT_PROMISE(dynamixel_44, make_old_arm, a_silent_motor_keeps_its_old_entry_and_time)
ROBOT_PROMISE(dynamixel_44, make_old_arm, motors_go_where_they_are_sent_in_both_directions)

using robot_contract::Bench;
using robot_contract::kNever;

// a bench and its arm as what it is
struct DynamixelBench : Bench {
  explicit DynamixelBench(MakeArm make = make_arm) : Bench(make), own(static_cast<DynamixelArm&>(*arm)) {}
  // the first result of some cycles that is not ok
  Result cycles(int count, const std::vector<double>& row) {
    for (int i = 0; i < count; ++i)
      if (const Result result = cycle(row); !result.ok()) return result;
    return {};
  }
  DynamixelArm& own;
};

TEST(dynamixel_enable_arms_the_watchdog_and_a_silent_computer_makes_the_servos_hold) {
  DynamixelBench bench;
  bench.start();
  const std::vector<double> row = bench.measured();
  for (std::size_t i = 0; i < 3; ++i) CHECK_EQ(int{bench.own.servo(i).value(98)}, 5);  // 100 ms
  CHECK(bench.cycles(100, row).ok());
  for (std::size_t i = 0; i < 3; ++i) CHECK(!bench.own.servo(i).has_tripped());
  bench.arm->advance(std::chrono::milliseconds(130));
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(bench.own.servo(i).has_tripped());
    CHECK(bench.arm->has_torque(i));
    CHECK_NEAR(bench.arm->position(i), row[i], 0.01);
  }
}

TEST(dynamixel_a_tripped_watchdog_is_a_drive_error_until_enable_clears_it) {
  DynamixelBench bench;
  bench.start();
  std::vector<double> row = bench.measured();
  bench.arm->advance(std::chrono::milliseconds(130));
  Result found;
  for (int i = 0; i < 12 && found.ok(); ++i) found = bench.read();
  CHECK(found.code == ErrorCode::drive_error);
  CHECK_EQ(found.detail, DynamixelRobot::kWatchdogTripped);
  REQUIRE(found.joint >= 0);
  const auto joint = static_cast<std::size_t>(found.joint);
  CHECK(bench.state.drive_health[joint] == DriveHealth::fault);
  CHECK_EQ(int{bench.state.drive_error[joint]}, int{dynamixel::kErrorWatchdog});
  for (int i = 0; i < 18; ++i)
    CHECK(bench.read().ok());  // told once: who resets is not told again before enable()
  CHECK(bench.state.drive_health[joint] == DriveHealth::ok);
  // goals are refused: nothing moves
  const double before = bench.arm->goal(0);
  row[0] += 0.005;
  (void)bench.send(row);
  bench.arm->advance(robot_contract::kTick);
  CHECK_EQ(bench.arm->goal(0), before);
  REQUIRE(bench.enable(bench.measured()).ok());
  CHECK(bench.cycles(30, bench.measured()).ok());
}

// one servo alone has heard nothing: its wire was cut for longer than its watchdog
TEST(dynamixel_a_watchdog_that_tripped_in_one_servo_is_found) {
  DynamixelBench bench;
  bench.start();
  const std::vector<double> row = bench.measured();
  bench.arm->silence(1, true);
  (void)bench.cycles(1, row);
  for (int i = 0; i < 30; ++i) (void)bench.cycle(row);
  bench.arm->silence(1, false);
  CHECK(bench.own.servo(1).has_tripped());
  Result found;
  for (int i = 0; i < 40 && found.code != ErrorCode::drive_error; ++i) found = bench.cycle(row);
  CHECK(found.code == ErrorCode::drive_error);
  CHECK_EQ(found.joint, 1);
}

TEST(dynamixel_without_a_timeout_the_watchdog_stays_off) {
  DynamixelBench bench(
      []() -> std::unique_ptr<ArmUnderTest> { return std::make_unique<DynamixelArm>(52, 0.0); });
  bench.start();
  bench.arm->advance(std::chrono::seconds(3));
  CHECK_EQ(int{bench.own.servo(0).value(98)}, 0);
  CHECK(bench.read().ok());
}

TEST(dynamixel_refuses_a_timeout_that_the_watchdog_cannot_count) {
  CHECK_THROWS(DynamixelArm(52, 0.05), ConfigError, "steps of 0.02 s up to 2.54 s");
  CHECK_THROWS(DynamixelArm(52, 2.56), ConfigError, "'first'");
}

TEST(dynamixel_firmware_without_a_watchdog_is_refused_when_one_is_asked_for) {
  Bench bench([]() -> std::unique_ptr<ArmUnderTest> { return std::make_unique<DynamixelArm>(37); });
  CHECK_THROWS(bench.robot.connect(), DeviceError, "firmware_version (6) is 37, expected at least 38");
}

TEST(dynamixel_another_model_is_refused_with_both_numbers) {
  auto wire = std::make_shared<emulator::DxlBus>(
      std::vector<emulator::ServoSetup>{{.name = "one", .model = 1020}}, emulator::BusOptions{});
  Embodiment embodiment{.name = "arm", .motor_family = "dynamixel_x", .joints = {}};
  embodiment.joints.push_back({.name = "one",
                               .id = 1,
                               .model_numbers = {1200, 1060},
                               .limits = {-1, 1, 3, 30, 600},
                               .rest_position = 0});
  DynamixelRobot robot(embodiment, {{1, 0, 0, 0, 4095}},
                       std::make_unique<LockStepBus<emulator::DxlBus>>(wire));
  CHECK_THROWS(robot.connect(), DeviceError, "model_number (0) is 1020, expected 1200 or 1060");
}

TEST(dynamixel_reads_all_servos_in_one_answer_and_plainly_while_one_is_missing) {
  DynamixelBench bench;
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  CHECK(bench.own.driver->reads_fast());
  bench.arm->silence(0, true);  // the first: nobody would answer behind it
  const Result result = bench.read();
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 0);
  CHECK(!bench.own.driver->reads_fast());
  bench.arm->silence(0, false);
  for (int i = 0; i < 200; ++i) REQUIRE(bench.read().ok());
  CHECK(bench.own.driver->reads_fast());
  DynamixelBench old(make_old_arm);
  old.robot.connect();
  CHECK(!old.own.driver->reads_fast());
}

TEST(dynamixel_an_alert_is_read_up_and_a_fault_when_it_takes_the_torque) {
  DynamixelBench bench;
  bench.start();
  const std::vector<double> row = bench.measured();
  bench.own.set(emulator::FaultKind::supply, 1, true, 2.5);  // below 3 V
  (void)bench.cycles(2, row);
  CHECK_EQ(int{bench.state.drive_error[1]}, int{dynamixel::kErrorVoltage});
  CHECK(bench.state.drive_health[1] == DriveHealth::warning);
  CHECK(bench.state.drive_health[0] == DriveHealth::ok);
  bench.own.set(emulator::FaultKind::supply, 1, false);
  CHECK(bench.cycles(2, row).ok());
  CHECK(bench.state.drive_health[1] == DriveHealth::ok);
  bench.own.set(emulator::FaultKind::overheat, 2, true, 95);
  const Result result = bench.cycles(3, row);
  CHECK(result.code == ErrorCode::torque_off);
  CHECK_EQ(result.joint, 2);
  CHECK_EQ(int{bench.state.drive_error[2]}, int{dynamixel::kErrorTemperature});
  CHECK(bench.state.drive_health[2] == DriveHealth::fault);
}

TEST(dynamixel_torque_that_is_lost_between_two_reads_is_found) {
  for (const auto kind : {emulator::FaultKind::torque_lost, emulator::FaultKind::reboot}) {
    DynamixelBench bench;
    bench.start();
    const std::vector<double> row = bench.measured();
    bench.own.set(kind, 2, true);
    Result found;
    for (int i = 0; i < 9 && found.code != ErrorCode::torque_off; ++i) found = bench.cycle(row);
    CHECK(found.code == ErrorCode::torque_off);
    CHECK_EQ(found.joint, 2);
  }
}

TEST(dynamixel_tells_current_voltage_and_temperature) {
  DynamixelBench bench;
  bench.robot.connect();
  for (int i = 0; i < 9; ++i) REQUIRE(bench.read().ok());
  CHECK(std::isnan(bench.state.current[0]));  // an XL430 measures a load
  CHECK_NEAR(bench.state.current[1], 0.0, 0.01);
  CHECK_NEAR(bench.state.voltage[0], 12.0, 0.15);
  CHECK_NEAR(bench.state.voltage[1], 5.0, 0.15);
  CHECK_NEAR(bench.state.temperature[2], 25.0, 1.0);
}

// closing on something: the torque stays at the bound that goal_current sets
TEST(dynamixel_a_current_based_joint_pushes_no_harder_than_its_share) {
  DynamixelBench bench;
  bench.start();
  REQUIRE(bench.robot.limit_torque(0.2, kNever).ok());
  bench.own.set(emulator::FaultKind::block, 1, true);
  std::vector<double> from = bench.measured(), to = from;
  to[1] += 0.5;
  bench.move(from, to, 60);
  CHECK(bench.cycles(20, to).ok());
  CHECK_NEAR(std::abs(bench.state.current[1]), 0.2 * 1.75, 0.02);
  CHECK_NEAR(std::abs(bench.state.load[1]), 0.2 * 1.75 / 1.47, 0.02);
}

TEST(dynamixel_release_lets_go_and_says_so) {
  DynamixelBench bench;
  bench.start();
  CHECK(bench.robot.release(kNever).ok());
  for (std::size_t i = 0; i < 3; ++i) CHECK(!bench.arm->has_torque(i));
  CHECK(bench.send(bench.measured()).code == ErrorCode::wrong_state);
}

TEST(dynamixel_loop_calls_never_allocate) {
  DynamixelBench bench;
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  const std::vector<double> row = bench.measured();
  std::size_t num_failed = 0;
  const std::size_t before = allocations_on_this_thread();
  num_failed += !bench.enable(row).ok();
  for (int i = 0; i < 30; ++i) num_failed += !bench.cycle(row).ok();
  num_failed += !bench.robot.limit_torque(0.5, kNever).ok();
  const std::size_t num_failed_whole = num_failed;
  bench.arm->silence(1, true);
  for (int i = 0; i < 3; ++i) num_failed += !bench.cycle(row).ok();
  num_failed += !bench.enable(row).ok();
  num_failed += !bench.robot.release(kNever).ok();
  CHECK_EQ(allocations_on_this_thread(), before);
  CHECK_EQ(num_failed_whole, 0u);
  CHECK_EQ(num_failed, 5u);
  bench.robot.disconnect();
}

TEST(dynamixel_goals_never_leave_the_calibrated_range) {
  DynamixelBench bench;
  bench.robot.set_cycle(100);  // so that the step check lets everything pass
  bench.start();
  for (const double far : {100.0, -100.0}) {
    REQUIRE(bench.send({far, far, far}).ok());
    bench.arm->advance(robot_contract::kTick);
    for (std::size_t i = 0; i < 3; ++i) {
      const int goal = bench.own.servo(i).goal_ticks();
      CHECK_EQ(goal, far > 0 ? bench.own.calibration[i].range_max : bench.own.calibration[i].range_min);
    }
  }
  CHECK_EQ(bench.own.driver->num_clamped(), 6u);
}

TEST(dynamixel_enable_refuses_a_joint_outside_its_calibrated_range) {
  DynamixelBench bench;
  bench.robot.connect();
  bench.own.servo(0).set_hand(0);  // to its end stop at 500 ticks
  bench.arm->advance(std::chrono::seconds(4));
  REQUIRE(bench.read().ok());
  const Result result = bench.enable(bench.measured());
  CHECK(result.code == ErrorCode::out_of_range);
  CHECK_EQ(result.joint, 0);
  CHECK_NEAR(result.detail, 500, 3);
  CHECK_EQ(bench.arm->num_writes(), 0u);
}

}  // namespace
}  // namespace wallx::test
