// Dynamixel faults: what every kind of fault comes to on emulated Dynamixel servos while they move: the
// documented state, within the documented number of ticks, no command beyond the braking distance.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "arm/fault_run.hpp"
#include "contract/lock_step_bus.hpp"
#include "drivers/motors/dynamixel/dynamixel_robot.hpp"
#include "emulator/dxl_bus.hpp"

namespace wallx::test {
namespace {

// pan turns, lift carries and turns itself round, grip bounds its current; limits as the Koch has them
struct DxlPlant : MovingPlant<emulator::DxlBus> {
  explicit DxlPlant(std::uint64_t seed) {
    std::vector<emulator::ServoSetup> servos;
    std::vector<JointCalibration> calibration;
    const auto add = [&](const char* name, const JointLimits& limits, int model, int mode, double inertia,
                         double gravity) {
      const int id = static_cast<int>(servos.size()) + 1;
      JointSpec joint{.name = name, .id = id, .model_numbers = {model}, .limits = limits};
      joint.gravity_loaded = gravity > 0;
      joint.static_sag = kSag;
      joint.grips = std::string(name) == "grip";
      joint.drive_timeout = 0.1;
      embodiment.joints.push_back(joint);
      const int reverse = gravity > 0;
      calibration.push_back({id, reverse, 0, 743, 3441});
      emulator::ServoSetup servo{.name = name};
      servo.id = id;
      servo.model = model;
      servo.operating_mode = mode;
      servo.drive_mode = reverse;
      servo.position = 2092;
      servo.range_min = 743;
      servo.range_max = 3441;
      servo.stop_min = 500;
      servo.stop_max = 3700;
      servo.inertia = inertia;
      servo.damping = 0.03;
      servo.friction = 0.01;
      servo.gravity = gravity;
      servo.pitch_sign = gravity > 0 ? -1 : 0;
      servos.push_back(servo);
    };
    add("pan", {-1.9, 1.9, 3.0, 30, 600}, 1060, 4, 0.012, 0);
    add("lift", {-1.7, 1.7, 2.5, 20, 400}, 1060, 4, 0.012, 0.11);
    add("grip", {-1.9, 1.9, 3.0, 30, 600}, 1200, 5, 0.0015, 0);

    wire = std::make_shared<emulator::DxlBus>(servos, emulator::BusOptions{.seed = seed, .start = kStart});
    auto line = std::make_unique<LockStepBus<emulator::DxlBus>>(wire);
    line->has_wire_time = true;
    bus = line.get();
    auto robot = std::make_shared<DynamixelRobot>(embodiment, calibration, std::move(line));
    start_loop(std::move(robot));
  }

  double position(std::size_t joint) const { return wire->servo(joint).position_ticks(); }

  Embodiment embodiment{.name = "plant", .motor_family = "dynamixel_x", .joints = {}};
  LockStepBus<emulator::DxlBus>* bus = nullptr;  // owned by the robot
};

constexpr int kStale = 21;    // 0.1 s, and the tick that sees it
constexpr int kAside = 10;    // torque, watchdog or heat of one of three servos with every state, by turns
constexpr int kFollow = 420;  // until the motion has left the joint max_following_error behind
constexpr bool kSparesGripper = true;
constexpr auto kGone = {Reason::torque_lost};
// its watchdog is lost with its torque: whichever is read first
constexpr auto kRestarted = {Reason::torque_lost, Reason::drive_fault};
constexpr auto kSilence = {Reason::stale_feedback};
constexpr auto kBlocked = {Reason::obstruction};
constexpr auto kJump = {Reason::implausible};
constexpr auto kClosed = {Reason::bus_closed};
constexpr auto kDrive = {Reason::drive_fault, Reason::torque_lost};

const FaultExpectation kRows[] = {
    {FaultKind::drop, 0.02, Outcome::runs, {}},
    {FaultKind::drop, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::corrupt, 0.02, Outcome::runs, {}},
    {FaultKind::corrupt, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::truncate, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::wrong_length, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::noise, 1, Outcome::runs, {}},
    {FaultKind::repeat, 1, Outcome::runs, {}},
    {FaultKind::late, 1, Outcome::runs, {}},
    {FaultKind::delay, 0.0005, Outcome::runs, {}},
    {FaultKind::delay, 0.02, Outcome::holds, kSilence, 5},
    {FaultKind::wrong_id, 99, Outcome::faults, kSilence, kStale},
    {FaultKind::duplicate_id, 0, Outcome::faults, kSilence, kStale},
    {FaultKind::silent, 0, Outcome::faults, kSilence, kStale},
    {FaultKind::babble, 500, Outcome::runs, {}},
    {FaultKind::unplug, 0, Outcome::faults, kClosed, 1},
    {FaultKind::ignore_writes, 0, Outcome::faults, kBlocked, kFollow, kSparesGripper},
    {FaultKind::stuck, 0, Outcome::faults, kBlocked, kFollow, kSparesGripper},
    {FaultKind::freeze, 0, Outcome::faults, kBlocked, kFollow, kSparesGripper},
    {FaultKind::wrong_mode, 1, Outcome::faults, kBlocked, kFollow, kSparesGripper},
    {FaultKind::drive_error, 32, Outcome::faults, kDrive, kAside},
    {FaultKind::torque_lost, 0, Outcome::faults, kGone, kAside},
    {FaultKind::reboot, 0, Outcome::faults, kRestarted, kAside},
    {FaultKind::brown_out,
     0.1,
     Outcome::faults,
     {Reason::torque_lost, Reason::drive_fault, Reason::stale_feedback},
     kStale + 2},
    {FaultKind::block, 0, Outcome::faults, kBlocked, kFollow, kSparesGripper},
    {FaultKind::supply, 5, Outcome::runs, {}},  // a warning: it still does what it is told
    {FaultKind::overheat, 95, Outcome::faults, kDrive, kAside},
    {FaultKind::sensor_jump, 0.5, Outcome::faults, kJump, 2},
    {FaultKind::encoder_wrap, 1, Outcome::faults, kJump, 2},
};

}  // namespace

TEST(every_dynamixel_fault_ends_in_its_documented_state_in_time) { check_faults<DxlPlant>(kRows); }

TEST(no_dynamixel_fault_is_without_a_documented_outcome) {
  check_every_kind_is_there<emulator::DxlBus>(kRows);
}

}  // namespace wallx::test
