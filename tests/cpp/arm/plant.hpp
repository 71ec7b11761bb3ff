// Plant: a loop that drives an emulated arm through real bytes, all on one simulated clock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <numbers>
#include <vector>

#include "check.hpp"
#include "contract/lock_step_bus.hpp"
#include "control/control_loop.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"
#include "emulator/sts_bus.hpp"

namespace wallx::test {

// pan turns, lift carries the arm, grip closes; limits as the so101 has them, the fastest for pan
struct Plant {
  static constexpr double kTickAngle = 2 * std::numbers::pi / 4096;  // [rad]
  enum Joint : std::size_t { pan, lift, grip, kNumJoints };

  explicit Plant(double rate_hz = 200, std::uint64_t seed = 0) {
    std::vector<emulator::ServoSetup> servos;
    const auto add = [&](const char* name, const JointLimits& limits, double inertia, double gravity) {
      const int id = static_cast<int>(servos.size()) + 1;
      JointSpec joint{.name = name, .id = id, .model_numbers = {777}, .limits = limits};
      joint.gravity_loaded = gravity > 0;
      joint.static_sag = gravity > 0 ? 0.05 : 0.02;
      embodiment.joints.push_back(joint);
      calibration.push_back({id, 0, 0, 743, 3441});
      emulator::ServoSetup servo{.name = name};
      servo.id = id;
      servo.position = 2092;
      servo.range_min = 743;
      servo.range_max = 3441;
      servo.stop_min = 500;
      servo.stop_max = 3700;
      servo.inertia = inertia;
      servo.gravity = gravity;
      servo.pitch_sign = gravity > 0 ? -1 : 0;
      servos.push_back(servo);
    };
    add("pan", {-1.9, 1.9, 4.0, 40, 1000}, 0.038, 0);
    add("lift", {-1.7, 1.7, 3.0, 20, 400}, 0.040, 0.387);
    add("grip", {-1.9, 1.9, 4.0, 40, 1000}, 0.028, 0);
    embodiment.joints[grip].grips = true;
    servos[grip].max_torque = 500;
    servos[grip].protection_current = 250;
    servos[grip].overload_threshold = 25;

    const TimePoint start{std::chrono::seconds(1000)};
    wire = std::make_shared<emulator::StsBus>(servos, emulator::BusOptions{.seed = seed, .start = start});
    auto line = std::make_unique<LockStepBus<emulator::StsBus>>(wire);
    line->has_wire_time = true;
    bus = line.get();
    robot = std::make_shared<FeetechRobot>(embodiment, calibration, std::move(line));
    robot->connect();
    LoopConfig config;
    config.rate_hz = rate_hz;
    config.origin = start;
    config.clock = +[]() noexcept { return TimePoint{}; };
    config.max_first_step = 4;
    loop = std::make_unique<ControlLoop>(robot, config);
    now = loop->on_grid(wire->now());
  }

  const LoopRecord& tick(int count = 1) {
    const LoopRecord* record = nullptr;
    for (int i = 0; i < count; ++i) {
      now = loop->on_grid(std::max(now + loop->period(), wire->now()));
      wire->advance(now);
      record = &loop->tick(now);
      records.push_back(*record);
      if (on_tick) on_tick();
    }
    return *record;
  }
  int tick_until(LoopState state, int most) {
    for (int i = 1; i <= most; ++i)
      if (tick().state == state) return i;
    return -1;
  }
  void enable() {
    tick(3);
    loop->request(kRequestEnable);
    REQUIRE(tick_until(LoopState::armed, 5) > 0);
  }
  // all joints to `position`, as fast as the limits let them
  void go_to(double position, double seconds = 60) {
    const std::vector<double> row(kNumJoints, position);
    REQUIRE(loop->submit(row, now, Seconds(seconds), loop->generation()) > 0);
  }
  void run_at(double position) {
    go_to(position);
    REQUIRE(tick_until(LoopState::run, 1000) > 0);
  }
  // where a joint really stands [rad]
  double angle(std::size_t joint) const { return (wire->servo(joint).position_ticks() - 2092) * kTickAngle; }
  double goal(std::size_t joint) const { return (wire->servo(joint).goal_ticks() - 2092) * kTickAngle; }
  double effort(std::size_t joint) const { return std::abs(wire->servo(joint).effort()); }
  int torque_limit(std::size_t joint) const {
    return wire->servo(joint).value(48) + 256 * wire->servo(joint).value(49);
  }

  Embodiment embodiment{.name = "plant", .motor_family = "feetech_sts", .joints = {}};
  std::vector<JointCalibration> calibration;
  std::shared_ptr<emulator::StsBus> wire;
  LockStepBus<emulator::StsBus>* bus = nullptr;  // owned by the robot
  std::shared_ptr<FeetechRobot> robot;
  std::unique_ptr<ControlLoop> loop;
  TimePoint now;
  std::vector<LoopRecord> records;
  std::function<void()> on_tick;
};

}  // namespace wallx::test
