// DynamixelArm: three emulated servos in lock-step, and the robot that drives them, for the Robot contract.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "contract/lock_step_bus.hpp"
#include "contract/robot_contract.hpp"
#include "drivers/motors/dynamixel/dynamixel_robot.hpp"
#include "emulator/dxl_bus.hpp"

namespace wallx::test {

// `first` measures no current; `middle` reverses its direction, is homed and bounds its current; the middle
// of `last` lies between two ticks
class DynamixelArm final : public ArmUnderTest {
 public:
  explicit DynamixelArm(int firmware = 52, double drive_timeout = 0.1) {
    Embodiment embodiment{.name = "arm", .motor_family = "dynamixel_x", .joints = {}};
    std::vector<emulator::ServoSetup> servos;
    int i = 0;
    for (const char* name : {"first", "middle", "last"}) {
      const JointCalibration& joint = calibration[static_cast<std::size_t>(i)];
      JointSpec spec{.name = name,
                     .id = joint.id,
                     .model_numbers = {1200, 1060},
                     .limits = {-1.5, 1.5, 3, 30, 600},
                     .rest_position = 0};
      spec.drive_timeout = drive_timeout;
      embodiment.joints.push_back(spec);
      emulator::ServoSetup servo{.name = name};
      servo.id = joint.id;
      servo.model = i == 0 ? 1060 : 1200;
      servo.firmware = firmware;
      servo.drive_mode = joint.drive_mode;
      servo.operating_mode = i == 1 ? 5 : i == 0 ? 3 : 4;
      servo.homing_offset = joint.homing_offset;
      servo.range_min = joint.range_min;
      servo.range_max = joint.range_max;
      servo.stop_min = 500;
      servo.stop_max = 3700;
      servo.position = 2010 + 30 * ++i;
      servo.inertia = 0.002;
      servo.damping = 0.02;
      servo.friction = 0.002;
      servos.push_back(servo);
    }
    wire = std::make_shared<emulator::DxlBus>(
        servos, emulator::BusOptions{.start = TimePoint{std::chrono::seconds(1)}});
    auto line = std::make_unique<LockStepBus<emulator::DxlBus>>(wire);
    bus = line.get();
    driver = std::make_unique<DynamixelRobot>(embodiment, calibration, std::move(line));
  }

  Robot& robot() override { return *driver; }
  void advance(Duration duration) override { bus->advance(duration); }
  double position(std::size_t joint) override { return to_rad(joint, servo(joint).position_ticks()); }
  double goal(std::size_t joint) override { return to_rad(joint, servo(joint).goal_ticks()); }
  double resolution(std::size_t) override { return kTickAngle; }
  bool has_torque(std::size_t joint) override { return servo(joint).torque() == 1; }
  double torque_bound(std::size_t joint) override {
    const auto word = [&](int at) { return servo(joint).value(at) + 256 * servo(joint).value(at + 1); };
    return joint == 1 ? word(102) / 1750.0 : word(100) / 885.0;
  }
  std::uint64_t num_requests() override { return bus->num_requests; }
  std::uint64_t num_writes() override {
    const auto& counters = wire->counters();
    return counters.writes + counters.reg_writes + counters.actions + counters.sync_writes +
           counters.bulk_writes + counters.reboots;
  }
  void silence(std::size_t joint, bool is_silent) override {
    set(emulator::FaultKind::silent, joint, is_silent);
  }
  void reboot(std::size_t joint) override { set(emulator::FaultKind::brown_out, joint, true, 0.1); }
  void hang_up() override { bus->is_gone = true; }

  std::vector<Mismatch> mismatches() override {
    const auto write = [this](int address, std::vector<std::uint8_t> bytes) {
      REQUIRE(servo(1).write(address, bytes).error == 0);
    };
    return {
        {"velocity mode", [=] { write(11, {1}); }, {"operating_mode", "is 1", "3 (position)"}},
        {"forced mode",
         [this] { set(emulator::FaultKind::wrong_mode, 1, true, 16); },
         {"operating_mode", "is 16"}},
        {"direction", [=] { write(10, {0}); }, {"drive_mode", "is 0", "bit 0 to be 1"}},
        {"time profile", [=] { write(10, {5}); }, {"drive_mode", "is 5", "bits 2 and 3 clear"}},
        {"goal turns torque on", [=] { write(10, {9}); }, {"drive_mode", "is 9", "bits 2 and 3 clear"}},
        {"slow answers", [=] { write(9, {250}); }, {"return_delay", "is 250", "0..10"}},
        {"few answers", [=] { write(68, {1}); }, {"status_return_level", "is 1", "expected 2"}},
        {"torque at start", [=] { write(60, {1}); }, {"startup_configuration", "is 1", "expected 0"}},
        {"no power", [=] { write(36, {0, 0}); }, {"pwm_limit", "is 0", "1..885"}},
        {"no current", [=] { write(38, {0, 0}); }, {"current_limit", "is 0", "at least 1"}},
        {"homing", [=] { write(20, {0xAA, 0xFF, 0xFF, 0xFF}); }, {"homing_offset", "is -86", "expected -85"}},
        {"lower end", [=] { write(52, {0xE8, 2, 0, 0}); }, {"min_position", "is 744", "expected 743"}},
        {"upper end", [=] { write(48, {0x70, 13, 0, 0}); }, {"max_position", "is 3440", "expected 3441"}},
    };
  }

  emulator::DxlServo& servo(std::size_t joint) {
    return static_cast<emulator::DxlServo&>(wire->servo(joint));
  }
  void set(emulator::FaultKind kind, std::size_t joint, bool is_set, double value = 0) {
    const int id = calibration[joint].id;
    REQUIRE(is_set ? wire->set_fault(kind, id, value) : wire->clear_fault(kind, id));
  }

  const std::vector<JointCalibration> calibration{
      {1, 0, 0, 743, 3441}, {2, 1, -85, 743, 3441}, {7, 0, 300, 744, 3441}};
  std::shared_ptr<emulator::DxlBus> wire;
  LockStepBus<emulator::DxlBus>* bus = nullptr;  // owned by the robot
  std::unique_ptr<DynamixelRobot> driver;

 private:
  static constexpr double kTickAngle = 2 * std::numbers::pi / 4096;  // [rad]
  double to_rad(std::size_t joint, double ticks) const {
    return (ticks - (calibration[joint].range_min + calibration[joint].range_max) / 2.0) * kTickAngle;
  }
};

}  // namespace wallx::test
