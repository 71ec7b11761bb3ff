// Damiao faults: what every kind of fault comes to on emulated Damiao motors while they move: the documented
// state, within the documented number of ticks, no command beyond the braking distance.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "arm/fault_run.hpp"
#include "contract/lock_step_can_bus.hpp"
#include "control/control_loop.hpp"
#include "drivers/motors/damiao/damiao_robot.hpp"

namespace wallx::test {
namespace {

// pan turns, lift carries, grip closes; 200 Hz on an FD line, all on the line's own clock
struct DmPlant : MovingPlant<emulator::DmBus> {
  explicit DmPlant(std::uint64_t seed) {
    std::vector<emulator::DmSetup> motors;
    const auto add = [&](const char* name, const JointLimits& limits, double inertia, double gravity) {
      const int id = static_cast<int>(motors.size()) + 1;
      JointSpec joint{.name = name, .id = id, .model_numbers = {4310}, .limits = limits};
      joint.gravity_loaded = gravity > 0;
      joint.static_sag = kSag;
      joint.grips = std::string(name) == "grip";
      joint.drive = {{"control_mode", 1}, {"kp", 60}, {"kd", 1.5}, {"max_torque", 7}};
      embodiment.joints.push_back(joint);
      emulator::DmSetup motor;
      motor.name = name;
      motor.id = id;
      motor.feedback_id = id + 0x10;
      motor.inertia = inertia;
      motor.gravity = gravity;
      motor.pitch_sign = gravity > 0 ? -1 : 0;
      motors.push_back(motor);
    };
    add("pan", {-1.9, 1.9, 4.0, 40, 1000}, 0.04, 0);
    add("lift", {-1.7, 1.7, 3.0, 20, 400}, 0.05, 1.5);
    add("grip", {-1.9, 1.9, 4.0, 40, 1000}, 0.03, 0);

    wire = std::make_shared<emulator::DmBus>(
        motors, emulator::DmBusOptions{.rates = {}, .seed = seed, .start = kStart});
    auto line = std::make_unique<LockStepCanBus>(wire);
    line->is_simulated = true;
    bus = line.get();
    const std::vector<JointCalibration> calibration{
        {1, 0, 0, -120, 120}, {2, 0, 0, -120, 120}, {3, 0, 0, -120, 120}};
    auto robot = std::make_shared<DamiaoRobot>(embodiment, calibration, std::move(line));
    start_loop(std::move(robot));
  }

  double position(std::size_t joint) const { return wire->motor(joint).position(); }

  Embodiment embodiment{.name = "plant", .motor_family = "damiao", .joints = {}};
  LockStepCanBus* bus = nullptr;  // owned by the robot
};

constexpr int kStale = 22;    // 0.1 s, and the ticks in which the last answer came and is missed
constexpr int kSeen = 3;      // an answer is read a period after its command
constexpr int kFollow = 420;  // until the motion has left the joint max_following_error behind
constexpr auto kGone = {Reason::torque_lost};
constexpr auto kSilence = {Reason::stale_feedback};
constexpr auto kBlocked = {Reason::obstruction};
constexpr auto kJump = {Reason::implausible};
constexpr auto kClosed = {Reason::bus_closed};

const FaultExpectation kRows[] = {
    // two in a row are a hold, for the sample is a period old already; it ends by itself
    {FaultKind::drop, 0.02, Outcome::runs, kSilence},
    {FaultKind::drop, 1, Outcome::faults, kSilence, kStale},
    // a byte changed under a right checksum: nothing but its meaning can give it away
    {FaultKind::corrupt,
     1,
     Outcome::faults,
     {Reason::torque_lost, Reason::implausible, Reason::stale_feedback},
     kStale},
    {FaultKind::truncate, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::wrong_length, 1, Outcome::faults, kSilence, kStale},
    {FaultKind::noise, 1, Outcome::runs, {}},
    {FaultKind::repeat, 1, Outcome::runs, {}},
    {FaultKind::late, 1, Outcome::runs, {}},
    {FaultKind::delay, 0.0005, Outcome::runs, {}},
    {FaultKind::delay, 0.02, Outcome::holds, kSilence, 5},
    {FaultKind::wrong_id, 99, Outcome::faults, kSilence, kStale},
    {FaultKind::duplicate_id,
     0,
     Outcome::faults,
     {Reason::stale_feedback, Reason::implausible, Reason::obstruction},
     kStale},
    {FaultKind::silent, 0, Outcome::faults, kSilence, kStale},
    {FaultKind::babble, 500, Outcome::runs, {}},
    {FaultKind::non_fd, 0, Outcome::faults, kSilence, kStale},
    {FaultKind::bus_off, 0, Outcome::faults, kClosed, kSeen},
    {FaultKind::unplug, 0, Outcome::faults, kClosed, 1},
    {FaultKind::ignore_writes, 0, Outcome::runs, {}},  // goals are no registers here
    {FaultKind::stuck, 0, Outcome::faults, kBlocked, kFollow, true},
    {FaultKind::freeze, 0, Outcome::faults, kBlocked, kFollow, true},
    {FaultKind::wrong_mode, 2, Outcome::faults, kBlocked, kFollow, true},
    {FaultKind::drive_error, 10, Outcome::faults, kGone, kSeen},
    {FaultKind::torque_lost, 0, Outcome::faults, kGone, kSeen},
    {FaultKind::reboot, 0, Outcome::faults, kGone, kSeen},
    {FaultKind::brown_out, 0.1, Outcome::faults, {Reason::torque_lost, Reason::stale_feedback}, kStale + 2},
    {FaultKind::block, 0, Outcome::faults, kBlocked, kFollow, true},
    {FaultKind::supply, 20, Outcome::runs, {}},
    {FaultKind::supply, 10, Outcome::faults, kGone, kSeen},
    {FaultKind::overheat, 130, Outcome::faults, kGone, kSeen},
    {FaultKind::sensor_jump, 0.5, Outcome::faults, kJump, kSeen},
    {FaultKind::encoder_wrap, 1, Outcome::faults, kJump, kSeen},
};

}  // namespace

TEST(every_damiao_fault_ends_in_its_documented_state_in_time) { check_faults<DmPlant>(kRows); }

TEST(a_damiao_motor_that_let_go_is_enabled_again_after_a_reset) {
  for (const FaultKind kind : {FaultKind::supply, FaultKind::reboot}) {
    DmPlant plant(5);
    plant.start_moving();
    REQUIRE(plant.wire->set_fault(kind, 1, 10));
    for (int i = 0; i < 10; ++i) plant.tick();
    REQUIRE(plant.loop->state() == LoopState::fault);
    plant.wire->clear_fault(kind, 1);
    plant.is_moving = false;
    for (int i = 0; i < 400; ++i) plant.tick();
    CHECK(plant.loop->state() == LoopState::fault);  // latched
    CHECK(!plant.wire->motor(0).is_on());
    plant.loop->request(kRequestReset);
    for (int i = 0; i < 10; ++i) plant.tick();
    plant.loop->request(kRequestEnable);
    for (int i = 0; i < 20 && plant.loop->state() != LoopState::armed; ++i) plant.tick();
    CHECK(plant.loop->state() == LoopState::armed);
    CHECK(plant.wire->motor(0).is_on());
    for (int i = 0; i < 100; ++i) plant.tick();
    CHECK(plant.loop->state() == LoopState::armed || plant.loop->state() == LoopState::hold);
  }
}

TEST(no_damiao_fault_is_without_a_documented_outcome) { check_every_kind_is_there<emulator::DmBus>(kRows); }

}  // namespace wallx::test
