// The Robot contract for Feetech STS servos, against their emulator. SPDX-License-Identifier: Apache-2.0
#include <numbers>

#include "contract/lock_step_bus.hpp"
#include "contract/robot_contract.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"
#include "emulator/sts_bus.hpp"

namespace wallx::test {
namespace {

using emulator::StsBus;

constexpr double kTickAngle = 2 * std::numbers::pi / 4096;  // [rad]

// `middle` turns against its encoder and has a homing offset; `last` has a middle between two ticks
class FeetechArm final : public ArmUnderTest {
 public:
  FeetechArm() {
    Embodiment embodiment{.name = "arm", .motor_family = "feetech_sts", .joints = {}};
    std::vector<emulator::ServoSetup> servos;
    int i = 0;
    for (const char* name : {"first", "middle", "last"}) {
      const JointCalibration& joint = calibration_[static_cast<std::size_t>(i++)];
      embodiment.joints.push_back({.name = name,
                                   .id = joint.id,
                                   .model_numbers = {777},
                                   .limits = {-1.5, 1.5, 3, 30, 600},
                                   .rest_position = 0});
      emulator::ServoSetup servo{.name = name};
      servo.id = joint.id;
      servo.homing_offset = joint.homing_offset;
      servo.range_min = joint.range_min;
      servo.range_max = joint.range_max;
      servo.stop_min = 500;
      servo.stop_max = 3700;
      servo.position = 2010 + 30 * i;
      servo.friction = 0.005;
      servos.push_back(servo);
    }
    wire_ =
        std::make_shared<StsBus>(servos, emulator::BusOptions{.start = TimePoint{std::chrono::seconds(1)}});
    auto bus = std::make_unique<LockStepBus<StsBus>>(wire_);
    bus_ = bus.get();
    robot_ = std::make_unique<FeetechRobot>(embodiment, calibration_, std::move(bus));
  }

  Robot& robot() override { return *robot_; }
  void advance(Duration duration) override { bus_->advance(duration); }
  double position(std::size_t joint) override { return to_rad(joint, wire_->servo(joint).position_ticks()); }
  double goal(std::size_t joint) override { return to_rad(joint, wire_->servo(joint).goal_ticks()); }
  double resolution(std::size_t) override { return kTickAngle; }
  bool has_torque(std::size_t joint) override { return wire_->servo(joint).torque() == emulator::kTorqueOn; }
  double torque_bound(std::size_t joint) override {
    const auto registers = wire_->servo(joint).registers();
    return (registers[48] + 256 * registers[49]) / 1000.0;
  }
  std::uint64_t num_requests() override { return bus_->num_requests; }
  std::uint64_t num_writes() override {
    const auto& counters = wire_->counters();
    return counters.writes + counters.reg_writes + counters.actions + counters.sync_writes;
  }
  void silence(std::size_t joint, bool is_silent) override {
    (void)(is_silent ? wire_->set_fault(emulator::FaultKind::silent, id(joint), 0)
                     : wire_->clear_fault(emulator::FaultKind::silent, id(joint)));
  }
  void reboot(std::size_t joint) override {
    (void)wire_->set_fault(emulator::FaultKind::brown_out, id(joint), 0.1);
  }
  void hang_up() override { bus_->is_gone = true; }

  std::vector<Mismatch> mismatches() override {
    const auto byte = [this](int address, int value) { set(address, {static_cast<std::uint8_t>(value)}); };
    const auto word = [this](int address, int value) {
      set(address, {static_cast<std::uint8_t>(value % 256), static_cast<std::uint8_t>(value / 256)});
    };
    return {
        {"response level", [=] { byte(8, 0); }, {"response_level", "is 0", "expected 1"}},
        {"phase", [=] { byte(18, 8); }, {"phase", "is 8", "factory value 12"}},
        {"multi-turn", [=] { byte(18, 28); }, {"phase", "is 28", "bit 4 clear"}},
        {"no torque", [=] { word(16, 0); }, {"max_torque", "is 0", "1..1000"}},
        {"homing", [=] { word(31, 86 + 0x800); }, {"homing_offset", "is -86", "expected -85"}},
        {"lower end", [=] { word(9, 744); }, {"min_angle", "is 744", "expected 743"}},
        {"upper end", [=] { word(11, 3440); }, {"max_angle", "is 3440", "expected 3441"}},
    };
  }

 private:
  int id(std::size_t joint) const { return calibration_[joint].id; }
  void set(int address, std::vector<std::uint8_t> bytes) { (void)wire_->servo(1).write(address, bytes); }
  double to_rad(std::size_t joint, double ticks) const {
    const JointCalibration& c = calibration_[joint];
    return (c.drive_mode ? -1 : 1) * (ticks - (c.range_min + c.range_max) / 2.0) * kTickAngle;
  }

  const std::vector<JointCalibration> calibration_{
      {1, 0, 0, 743, 3441}, {2, 1, -85, 743, 3441}, {7, 0, 0, 744, 3441}};
  std::shared_ptr<StsBus> wire_;
  LockStepBus<StsBus>* bus_ = nullptr;  // owned by the robot
  std::unique_ptr<FeetechRobot> robot_;
};

std::unique_ptr<ArmUnderTest> make_arm() { return std::make_unique<FeetechArm>(); }

ROBOT_CONTRACT(feetech, make_arm)

}  // namespace
}  // namespace wallx::test
