// ArmBench: the control loop on the real driver on an emulated SO-101, in lock-step; one tick after the
// other. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "check.hpp"
#include "control/control_loop.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"
#include "emulator/sts_bus.hpp"
#include "faults/timed_bus.hpp"

namespace wallx::test {

using emulator::FaultKind;

inline constexpr double kRadiansPerTick = 2 * std::numbers::pi / 4096;

// what hangs on each joint of an SO-101: about the printed arm, as src/wallx_edge/sim/so101.py has it
struct Link {
  const char* name;
  double inertia, gravity;  // [kg m^2] [N m]
  int pitch_sign;
  double pitch;  // in the middle of the range [rad]
  bool grips;
};
inline constexpr std::array kLinks{
    Link{"shoulder_pan", 0.038, 0.0, 0, 0.0, false},
    Link{"shoulder_lift", 0.040, 0.387, -1, std::numbers::pi / 2, false},
    Link{"elbow_flex", 0.034, 0.317, -1, -std::numbers::pi / 2, false},
    Link{"wrist_flex", 0.029, 0.124, -1, 0.0, false},
    Link{"wrist_roll", 0.028, 0.0, 0, 0.0, false},
    Link{"gripper", 0.028, 0.0, 0, 0.0, true},
};

class ArmBench {
 public:
  static constexpr Duration kPeriod = std::chrono::milliseconds(5);
  static constexpr double kReach = 0.7;   // of the plan, to both sides of the start [rad]
  static constexpr double kTurn = 1.8;    // of the plan                             [rad/s]
  static constexpr double kTravel = 1.5;  // of every joint, to both sides           [rad]

  explicit ArmBench(std::uint64_t seed) {
    Embodiment embodiment{.name = "so101", .motor_family = "feetech_sts", .joints = {}};
    std::vector<JointCalibration> calibration;
    std::vector<emulator::ServoSetup> servos;
    for (std::size_t j = 0; j < kLinks.size(); ++j) {
      const Link& link = kLinks[j];
      JointSpec joint;
      joint.name = link.name;
      joint.id = static_cast<int>(j) + 1;
      joint.model_numbers = {777};
      joint.limits = {-kTravel, kTravel, 3.0, 20.0, 400.0};
      joint.gravity_loaded = link.gravity > 0;
      joint.grips = link.grips;
      embodiment.joints.push_back(joint);
      calibration.push_back({joint.id, 0, 0, 1000, 3096});
      emulator::ServoSetup servo{.name = link.name};
      servo.id = joint.id;
      servo.range_min = 1000;
      servo.range_max = 3096;
      servo.inertia = link.inertia;
      servo.gravity = link.gravity;
      servo.pitch_sign = link.pitch_sign;
      servo.pitch = link.pitch;
      servos.push_back(servo);
    }
    wire = std::make_shared<emulator::StsBus>(
        servos, emulator::BusOptions{.seed = seed, .start = TimePoint{std::chrono::seconds(10)}}, &events);
    auto link = std::make_unique<TimedBus>(wire);
    bus = link.get();
    robot = std::make_shared<FeetechRobot>(embodiment, calibration, std::move(link));
    robot->connect();
    now = wire->now() + kPeriod;
    LoopConfig config;
    config.origin = now;
    config.ring_capacity = 64;
    loop = std::make_unique<ControlLoop>(robot, config);
  }

  // one period; periods that the line's own waiting used up are skipped, as the thread does
  const LoopRecord& tick() {
    while (now < wire->now()) now += kPeriod;
    wire->advance(now);
    const LoopRecord& record = loop->tick(now);
    now += kPeriod;
    ++num_ticks;
    LoopRecord out;
    while (loop->drain({&out, 1})) ++num_recorded;
    for (emulator::Event event; events.pop(event);)
      num_faults_logged += event.kind == emulator::EventKind::fault;
    return record;
  }

  // rows of the next two seconds of one endless, smooth motion of every joint
  void plan() {
    constexpr int kRows = 51;
    constexpr double kStep = 0.04;
    std::vector<double> rows;
    for (int i = 0; i < kRows; ++i) {
      const double t = to_seconds(now.time_since_epoch()) + i * kStep - started_;
      for (std::size_t j = 0; j < kLinks.size(); ++j)
        rows.push_back(kReach * std::sin(kTurn * t) * (j % 2 ? 1 : -1));
    }
    loop->submit(rows, now, Seconds(kStep), loop->generation());
  }

  // torque on, and moving as planned
  void start() {
    for (int i = 0; i < 3; ++i) tick();
    started_ = to_seconds(now.time_since_epoch());
    loop->request(kRequestEnable);
    for (int i = 0; i < 400; ++i) {
      if (i % 50 == 0) plan();
      const LoopRecord& record = tick();
      if (record.state == LoopState::run && i > 100) return;
    }
    REQUIRE(!"the bench does not come to run");
  }

  emulator::EventRing events;
  std::shared_ptr<emulator::StsBus> wire;
  TimedBus* bus = nullptr;  // the robot's
  std::shared_ptr<FeetechRobot> robot;
  std::unique_ptr<ControlLoop> loop;
  TimePoint now{};
  std::uint64_t num_ticks = 0, num_recorded = 0, num_faults_logged = 0;

 private:
  double started_ = 0;
};

}  // namespace wallx::test
