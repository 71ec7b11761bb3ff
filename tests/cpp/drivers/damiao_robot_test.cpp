// DamiaoRobot's loop calls: what the motors hear, what is made of their answers, and what every fault ends
// in. SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <functional>
#include <random>

#include "drivers/dm_arm.hpp"
#include "drivers/hex.hpp"

namespace wallx::test {
namespace {

using emulator::FaultKind;
using emulator::kEveryDrive;

constexpr double kUnit = 25.0 / 65535;  // [rad]

std::string text(const CanFrame& frame) {
  char id[8];
  std::snprintf(id, sizeof id, "%03X#", frame.id);
  return id + hex({frame.data.data(), frame.size});
}

TEST(damiao_enable_arms_timeouts_then_gives_goals_then_torque) {
  DmParts parts = make_dm_parts(1);
  for (JointSpec& joint : parts.embodiment.joints) joint.drive_timeout = 0.1;
  DmArm arm(std::move(parts));
  arm.robot->connect();
  REQUIRE(arm.read().ok());
  arm.bus->sent.clear();
  REQUIRE(arm.enable().ok());
  REQUIRE(arm.bus->sent.size() == 12);
  CHECK_EQ(text(arm.bus->sent[0]), "7FF#01 00 55 09 D0 07 00 00");
  CHECK_EQ(text(arm.bus->sent[2]), "7FF#07 00 55 09 D0 07 00 00");
  CHECK_EQ(text(arm.bus->sent[3]), text(arm.bus->sent[9]));  // the goal, before and after
  CHECK_EQ(text(arm.bus->sent[6]), "001#FF FF FF FF FF FF FF FC");
  for (const CanFrame& frame : arm.bus->sent) CHECK(frame.is_fd && frame.is_bit_rate_switched);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK_EQ(arm.motor(i).raw_register(9), 2000u);
    CHECK_NEAR(arm.goal(i), arm.position(i), kUnit);
  }
}

TEST(damiao_position_mode_uses_its_own_ids) {
  DmArm arm(4, false);
  arm.robot->connect();
  REQUIRE(arm.read().ok());
  arm.bus->sent.clear();
  REQUIRE(arm.enable().ok());
  CHECK_EQ(arm.bus->sent[6].id, 0x301u);
  CHECK_EQ(arm.bus->sent[11].id, 0x307u);
  for (const CanFrame& frame : arm.bus->sent) CHECK(!frame.is_fd);
}

TEST(damiao_loop_sends_one_frame_a_motor_and_asks_nothing) {
  DmArm arm;
  arm.start();
  const std::vector<double> row = arm.measured();
  REQUIRE(arm.cycle(row).ok());
  arm.bus->sent.clear();
  for (int i = 0; i < 10; ++i) REQUIRE(arm.cycle(row).ok());
  CHECK_EQ(arm.bus->sent.size(), 30u);
  // without new goals it asks with the old ones
  const std::vector<CanFrame> last = arm.bus->sent;
  arm.bus->sent.clear();
  REQUIRE(arm.read().ok());
  CHECK(arm.bus->sent.empty());  // the last goals' answers
  REQUIRE(arm.read().ok());
  REQUIRE(arm.bus->sent.size() == 3);
  CHECK_EQ(text(arm.bus->sent[1]), text(last[last.size() - 2]));
  // where nothing holds it must not make anything hold
  REQUIRE(arm.robot->release(TimePoint::max()).ok());
  arm.bus->sent.clear();
  REQUIRE(arm.read().ok());
  REQUIRE(arm.bus->sent.size() == 3);
  CHECK_EQ(text(arm.bus->sent[1]), "7FF#02 00 CC 00 00 00 00 00");
}

TEST(damiao_armed_timeout_holds_while_the_loop_only_reads) {
  DmParts parts = make_dm_parts(1);
  for (JointSpec& joint : parts.embodiment.joints) joint.drive_timeout = 0.1;
  DmArm arm(std::move(parts));
  arm.start();
  for (int i = 0; i < 100; ++i) {  // as after a reset
    arm.bus->advance(std::chrono::milliseconds(5));
    REQUIRE(arm.read().ok());
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(arm.motor(i).is_on());
}

TEST(damiao_goal_and_velocity_are_turned_and_shifted) {
  DmArm arm;
  arm.start();
  ++arm.tick;
  std::vector<double> row = arm.measured();
  row[1] += 0.05;
  REQUIRE(arm.robot
              ->send(SafetyLimiter::make(arm.robot->serial(), arm.tick, row, {0, 0.5, 0}), arm.tick,
                     TimePoint::max())
              .ok());
  CHECK_EQ(text(arm.bus->sent.back()).substr(0, 4), "007#");
  arm.bus->advance(std::chrono::milliseconds(2));
  CHECK_NEAR(arm.goal(1), row[1], kUnit);
  CHECK_NEAR(arm.motor(1).position() - arm.motor(1).goal(), 0.05, 0.002);  // drive_mode 1: the other way
}

TEST(damiao_answers_of_old_goals_are_not_reported_as_new) {
  DmArm arm;
  arm.bus->is_simulated = true;
  arm.robot->connect();
  const auto read = [&] {
    return arm.robot->read(arm.wire->now() + std::chrono::milliseconds(3), arm.state);
  };
  REQUIRE(read().ok());
  REQUIRE(arm.robot->enable(arm.command(arm.measured()), arm.tick, arm.wire->now() + std::chrono::seconds(1))
              .ok());
  const auto send = [&] {
    return arm.robot->send(arm.command(arm.measured()), arm.tick,
                           arm.wire->now() + std::chrono::milliseconds(3));
  };
  REQUIRE(send().ok());
  arm.bus->advance(std::chrono::milliseconds(5));
  arm.bus->sent.clear();
  const TimePoint at = arm.wire->now();
  REQUIRE(read().ok());
  CHECK(arm.bus->sent.empty());
  CHECK(arm.state.sampled_at[0] < at);  // when it came, not when it was read
  REQUIRE(send().ok());
  arm.bus->advance(std::chrono::seconds(10));
  arm.bus->sent.clear();
  const TimePoint later = arm.wire->now();
  REQUIRE(read().ok());
  CHECK_EQ(arm.bus->sent.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) CHECK(arm.state.sampled_at[i] > later);
}

TEST(damiao_lost_answers_keep_the_old_sample_and_its_time) {
  for (const FaultKind kind : {FaultKind::drop, FaultKind::truncate, FaultKind::wrong_length,
                               FaultKind::silent, FaultKind::wrong_id, FaultKind::non_fd}) {
    DmArm arm;
    arm.start();
    const std::vector<double> row = arm.measured();
    REQUIRE(arm.cycle(row).ok());
    REQUIRE(arm.cycle(row).ok());
    const JointState old = arm.state;
    arm.wire->set_fault(kind, 2, kind == FaultKind::wrong_id ? 0x33 : 1);
    (void)arm.cycle(row);
    const Result result = arm.cycle(row);
    CHECK_EQ(result.joint, 1);
    const bool is_strange =
        kind == FaultKind::truncate || kind == FaultKind::wrong_length || kind == FaultKind::non_fd;
    CHECK(result.code == (is_strange ? ErrorCode::bad_reply : ErrorCode::timeout));
    CHECK_EQ(arm.state.position[1], old.position[1]);
    CHECK(arm.state.sampled_at[1] <= old.sampled_at[1] + std::chrono::milliseconds(100));
    CHECK(arm.state.sampled_at[0] > arm.state.sampled_at[1]);
    arm.wire->clear_fault(kind, 2);
    (void)arm.cycle(row);
    CHECK(arm.cycle(row).ok());
    CHECK(arm.state.sampled_at[1] > old.sampled_at[1]);
  }
}

TEST(damiao_never_reads_its_own_frames) {
  for (const int mode : {1, 4}) {
    DmArm arm(mode);
    arm.bus->hears_itself = true;
    arm.start();
    std::vector<double> row = arm.measured();
    for (int i = 0; i < 100; ++i) {
      for (double& value : row) value += 0.01;
      REQUIRE(arm.cycle(row).ok());
      for (std::size_t k = 0; k < 3; ++k) CHECK_NEAR(arm.state.position[k], arm.position(k), 0.05);
    }
    // silent motors: only our own frames come in
    arm.wire->set_fault(FaultKind::silent, kEveryDrive, 0);
    (void)arm.cycle(row);
    const JointState old = arm.state;
    CHECK(arm.cycle(row).code == ErrorCode::timeout);
    for (std::size_t k = 0; k < 3; ++k) CHECK_EQ(arm.state.position[k], old.position[k]);
  }
}

TEST(damiao_pushes_no_harder_than_its_torque_bound) {
  for (const double share : {1.0, 0.5, 0.1}) {
    DmArm arm;
    arm.start();
    std::vector<double> row = arm.measured();
    REQUIRE(arm.robot->limit_torque(share, TimePoint::max()).ok());
    arm.wire->set_fault(FaultKind::block, 1, 0);
    for (int i = 0; i < 50; ++i) {
      row[0] += 0.01;
      REQUIRE(arm.cycle(row).ok());
      CHECK(std::abs(arm.motor(0).torque()) <= 7 * share + 0.05);
    }
    CHECK(std::abs(arm.motor(0).torque()) >= std::min(7 * share, 6.0) - 0.1);
    CHECK_NEAR(arm.state.load[0], std::abs(arm.motor(0).torque()) / 7, 0.01);
  }
}

TEST(damiao_a_drive_that_let_go_is_torque_lost_with_its_code) {
  struct Case {
    FaultKind kind;
    double value;
    int status;
  };
  for (const Case& c :
       {Case{FaultKind::torque_lost, 0, 0}, Case{FaultKind::reboot, 0, 0}, Case{FaultKind::supply, 10, 9},
        Case{FaultKind::supply, 40, 8}, Case{FaultKind::overheat, 130, 12},
        Case{FaultKind::drive_error, 10, 10}, Case{FaultKind::drive_error, 11, 11},
        Case{FaultKind::drive_error, 14, 14}, Case{FaultKind::drive_error, 5, 5}}) {
    DmArm arm;
    arm.start();
    const std::vector<double> row = arm.measured();
    REQUIRE(arm.cycle(row).ok());
    arm.wire->set_fault(c.kind, 7, c.value);
    Result result;
    int cycles = 0;
    while (result.ok() && ++cycles < 5) result = arm.cycle(row);
    CHECK(result.code == ErrorCode::torque_off);
    CHECK_EQ(result.joint, 2);
    CHECK_EQ(result.detail, c.status);
    CHECK_EQ(int{arm.state.drive_error[2]}, c.status);
    CHECK(arm.state.drive_health[2] == (c.status >= 8   ? DriveHealth::warning
                                        : c.status == 5 ? DriveHealth::fault
                                                        : DriveHealth::ok));
    CHECK(arm.state.drive_health[0] == DriveHealth::ok);
    CHECK(cycles <= 3);
  }
}

TEST(damiao_enabling_clears_what_is_over_and_refuses_what_is_not) {
  DmArm arm;
  arm.start();
  arm.wire->set_fault(FaultKind::overheat, 2, 130);
  const std::vector<double> row = arm.measured();
  while (arm.cycle(row).ok()) {
  }
  Result result = arm.enable();
  CHECK(result.code == ErrorCode::drive_error);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(result.detail, 12);
  CHECK(arm.motor(0).is_on());  // nothing else was let go
  CHECK(arm.motor(2).is_on());
  arm.wire->clear_fault(FaultKind::overheat, 2);
  arm.bus->advance(std::chrono::seconds(120));  // cools
  REQUIRE(arm.read().code != ErrorCode::bus_closed);
  CHECK(arm.enable().ok());
  CHECK(arm.motor(1).is_on());
}

TEST(damiao_timeout_of_another_program_is_overwritten) {
  DmParts parts = make_dm_parts(1);
  parts.motors[1].timeout = 8000;  // 400 ms, from its flash
  DmArm arm(std::move(parts));
  arm.start();
  CHECK_EQ(arm.motor(1).raw_register(9), 0u);
  arm.bus->advance(std::chrono::seconds(5));
  CHECK(arm.motor(1).is_on());  // no timeout was asked for: it holds
}

TEST(damiao_timeout_that_does_not_take_refuses_to_enable) {
  DmParts parts = make_dm_parts(1);
  parts.motors[1].timeout = 8000;
  parts.embodiment.joints[1].drive_timeout = 0.1;
  DmArm arm(std::move(parts));
  arm.wire->set_fault(FaultKind::ignore_writes, 2, 0);
  arm.robot->connect();
  REQUIRE(arm.read().ok());
  const Result result = arm.enable();
  CHECK(result.code == ErrorCode::drive_error);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(result.detail, 8000);
  for (std::size_t i = 0; i < 3; ++i) CHECK(!arm.motor(i).is_on());
}

TEST(damiao_armed_timeout_lets_go_when_the_loop_stops) {
  DmParts parts = make_dm_parts(1);
  for (JointSpec& joint : parts.embodiment.joints) joint.drive_timeout = 0.1;
  DmArm arm(std::move(parts));
  arm.start();
  const std::vector<double> row = arm.measured();
  for (int i = 0; i < 100; ++i) REQUIRE(arm.cycle(row).ok());
  arm.bus->advance(std::chrono::milliseconds(120));
  for (std::size_t i = 0; i < 3; ++i) CHECK(!arm.motor(i).is_on());
  const Result result = arm.cycle(row);
  // the answers that are read first are older than that
  const Result next = result.ok() ? arm.cycle(row) : result;
  CHECK(next.code == ErrorCode::torque_off);
  CHECK_EQ(next.detail, 13);
}

TEST(damiao_release_takes_the_torque_and_reads_it_back) {
  DmArm arm;
  arm.start();
  CHECK(arm.robot->release(TimePoint::max()).ok());
  for (std::size_t i = 0; i < 3; ++i) CHECK(!arm.motor(i).is_on());
  CHECK(arm.send(arm.measured()).code == ErrorCode::wrong_state);
  CHECK(arm.read().ok());
  CHECK(arm.enable().ok());
  arm.wire->set_fault(FaultKind::silent, 2, 0);
  const Result result = arm.robot->release(TimePoint::max());
  CHECK(!result.ok());
  CHECK_EQ(result.joint, 1);
}

TEST(damiao_enable_refuses_a_joint_outside_its_range) {
  for (const double turns : {1.0, -1.0}) {
    DmArm arm;
    arm.wire->set_fault(FaultKind::encoder_wrap, 1, turns);
    arm.robot->connect();
    REQUIRE(arm.read().ok());
    const Result result = arm.enable();
    CHECK(result.code == ErrorCode::out_of_range);
    CHECK_EQ(result.joint, 0);
    CHECK_EQ(arm.wire->counters().enables, 0u);
  }
}

TEST(damiao_bus_off_closes_the_bus) {
  DmArm arm;
  arm.start();
  const std::vector<double> row = arm.measured();
  arm.wire->set_fault(FaultKind::bus_off, kEveryDrive, 0);
  (void)arm.cycle(row);
  CHECK(arm.cycle(row).code == ErrorCode::bus_closed);
}

TEST(damiao_every_line_fault_ends_well) {
  // whatever comes in: no invented number, no torque taken, and the robot works again when it is over
  for (const FaultKind kind :
       {FaultKind::drop, FaultKind::truncate, FaultKind::wrong_length, FaultKind::noise, FaultKind::repeat,
        FaultKind::late, FaultKind::delay, FaultKind::babble, FaultKind::freeze, FaultKind::stuck}) {
    DmArm arm;
    arm.start();
    std::vector<double> row = arm.measured();
    REQUIRE(arm.cycle(row).ok());
    arm.wire->set_fault(kind, 2, kind == FaultKind::delay ? 0.02 : kind == FaultKind::babble ? 500 : 0.5);
    for (int i = 0; i < 60; ++i) {
      const Result result = arm.cycle(row);
      CHECK(result.ok() || result.code == ErrorCode::timeout || result.code == ErrorCode::bad_reply);
      for (std::size_t k = 0; k < 3; ++k) {
        CHECK_NEAR(arm.state.position[k], arm.position(k), 0.04);
        CHECK(arm.motor(k).is_on());
      }
    }
    arm.wire->clear_fault(kind, 2);
    for (int i = 0; i < 3; ++i) (void)arm.cycle(row);
    CHECK(arm.cycle(row).ok());
  }
}

TEST(damiao_a_motor_that_takes_anothers_id_is_missed) {
  DmArm arm;
  arm.start();
  const std::vector<double> row = arm.measured();
  REQUIRE(arm.cycle(row).ok());
  arm.wire->set_fault(FaultKind::duplicate_id, 2, 1);
  (void)arm.cycle(row);  // its last answer was on its way
  const TimePoint last = arm.state.sampled_at[1];
  for (int i = 0; i < 20; ++i) {
    const Result result = arm.cycle(row);
    CHECK(result.code == ErrorCode::bad_reply || result.code == ErrorCode::timeout);
    CHECK_EQ(result.joint, 1);
    CHECK(arm.state.sampled_at[1] == last);
    CHECK_NEAR(arm.state.position[0], arm.position(0), 0.01);  // not the stranger's
  }
}

TEST(damiao_settings_that_cannot_be_are_refused) {
  const auto refuses = [](const std::function<void(DmParts&)>& spoil, const char* part) {
    DmParts parts = make_dm_parts(1);
    spoil(parts);
    std::string message;
    try {
      DmArm arm(std::move(parts));
      fail(__FILE__, __LINE__, std::string("accepted, expected: ") + part);
    } catch (const WallxError& error) {
      message = error.what();
      if (message.find(part) == std::string::npos || message.find("'middle'") == std::string::npos)
        fail(__FILE__, __LINE__, std::string("message lacks ") + part + ": " + message);
    }
  };
  const auto drive = [](const char* key, double value) {
    return [=](DmParts& parts) { parts.embodiment.joints[1].drive[key] = value; };
  };
  refuses(drive("kq", 1), "drive.kq is not a setting");
  refuses(drive("kd", 0), "drive.kd is 0, must be 0.002..5");
  refuses(drive("kp", 501), "drive.kp is 501, must be 0.2..500");
  refuses(drive("control_mode", 2), "drive.control_mode is 2");
  refuses(drive("max_torque", 11), "drive.max_torque is 11 N m");
  refuses(drive("max_current", 0.5), "drive.max_current is not a setting of this mode");
  refuses(drive("feedback_id", 0x17), "feedback_id 0x17 is also");  // that of id 7
  refuses(drive("feedback_id", 0x07), "feedback_id 0x7 is also an id of commands");
  refuses(drive("feedback_id", 0x301), "also an id of commands");
  refuses([](DmParts& p) { p.embodiment.joints[1].drive.erase("kp"); }, "drive.kp is missing");
  refuses([](DmParts& p) { p.embodiment.joints[1].model_numbers = {4711}; }, "position_range is missing");
  refuses([](DmParts& p) { p.embodiment.joints[1].mode = JointMode::velocity; }, "mode is velocity");
  refuses([](DmParts& p) { p.calibration[1].id = 0; }, "id is 0, must be 1..255");
  refuses([](DmParts& p) { p.calibration[1].id = 1; }, "id 1 is also that of joint 'first'");
  refuses([](DmParts& p) { p.calibration[1].drive_mode = 2; }, "drive_mode is 2");
  refuses([](DmParts& p) { p.calibration[1].range_max = 800; }, "-720..720");
  refuses([](DmParts& p) { p.calibration[1].range_min = 150, p.calibration[1].range_max = 160; },
          "nothing in common");
  refuses([](DmParts& p) { p.calibration[1].homing_offset = 700; }, "counts only to");
}

TEST(damiao_ranges_of_unknown_models_can_be_given) {
  DmParts parts = make_dm_parts(1);
  parts.embodiment.joints[1].model_numbers = {4711};
  for (const auto& [key, value] :
       {std::pair{"position_range", 12.5}, {"velocity_range", 8.0}, {"torque_range", 28.0}})
    parts.embodiment.joints[1].drive[key] = value;
  parts.motors[1].vmax = 8;
  parts.motors[1].tmax = 28;
  DmArm arm(std::move(parts));
  arm.start();
  CHECK(arm.cycle(arm.measured()).ok());
}

TEST(damiao_old_firmware_is_refused) {
  DmParts parts = make_dm_parts(1);
  parts.embodiment.joints[1].drive["min_firmware"] = 6000;
  DmArm arm(std::move(parts));
  CHECK_THROWS(arm.robot->connect(), DeviceError, "software_version (14) is 5013, expected at least 6000");
}

// eight motors on a line at its own pace, deadlines of the loop, as a robot has them
void paced_loop(bool has_fd, int rate_hz) {
  DmParts parts = make_dm_parts(1);
  parts.embodiment.joints.resize(1);
  parts.calibration.resize(1);
  parts.motors.resize(1);
  for (int id = 2; id <= 8; ++id) {
    parts.embodiment.joints.push_back(parts.embodiment.joints[0]);
    parts.embodiment.joints.back().name = "joint " + std::to_string(id);
    parts.calibration.push_back(parts.calibration[0]);
    parts.calibration.back().id = id;
    parts.motors.push_back(parts.motors[0]);
    parts.motors.back().id = id;
    parts.motors.back().feedback_id = 0x10 + id;
  }
  DmArm arm(std::move(parts), has_fd);
  arm.bus->is_simulated = true;
  arm.robot->connect();
  REQUIRE(arm.robot->read(arm.wire->now() + std::chrono::milliseconds(20), arm.state).ok());
  std::vector<double> row = arm.measured();
  const Result enabled =
      arm.robot->enable(arm.command(row), arm.tick, arm.wire->now() + std::chrono::milliseconds(100));
  REQUIRE(enabled.ok());
  arm.robot->set_cycle(1.0 / rate_hz);
  const Duration period = to_duration(Seconds(1.0 / rate_hz));
  TimePoint at = arm.wire->now();
  const std::uint64_t busy = arm.wire->counters().busy_ns;
  double oldest = 0;
  constexpr int kTicks = 600;
  for (int i = 0; i < kTicks; ++i) {
    at += period;
    if (arm.wire->now() < at) arm.bus->advance(at - arm.wire->now());
    ++arm.tick;
    if (i > 0) {
      REQUIRE(arm.robot->read(at + period * 85 / 100, arm.state).ok());
      CHECK(arm.wire->now() == at);  // everything was there already
      for (std::size_t k = 0; k < 8; ++k) oldest = std::max(oldest, to_seconds(at - arm.state.sampled_at[k]));
    }
    for (double& value : row) value = 0.3 * std::sin(i * 3.0 / rate_hz);
    REQUIRE(arm.robot->send(arm.command(row), arm.tick, at + period * 90 / 100).ok());
  }
  const double load = double(arm.wire->counters().busy_ns - busy) * 1e-9 / (kTicks * to_seconds(period));
  std::printf("  8 motors, %s, %d Hz: line busy %.0f %%, oldest sample %.2f ms\n", has_fd ? "FD" : "classic",
              rate_hz, 100 * load, 1e3 * oldest);
  CHECK(load <= 0.7);
  CHECK_EQ(arm.wire->counters().lost, 0u);
  CHECK(oldest < to_seconds(period));
}

TEST(damiao_eight_motors_fit_a_classic_line_at_300_hz) { paced_loop(false, 300); }
TEST(damiao_eight_motors_fit_an_fd_line_at_500_hz) { paced_loop(true, 500); }

}  // namespace
}  // namespace wallx::test
