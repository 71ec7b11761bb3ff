// FakeRobot: a robot of ideal joints on a fake clock, with faults on command.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "control/control_loop.hpp"
#include "hardware/robot.hpp"

namespace wallx::test {

inline Embodiment make_embodiment(std::size_t num_joints = 3) {
  Embodiment embodiment;
  embodiment.name = "fake";
  embodiment.motor_family = "none";
  for (std::size_t j = 0; j < num_joints; ++j) {
    JointSpec joint;
    joint.name = "joint" + std::to_string(j);
    joint.id = static_cast<int>(j) + 1;
    joint.limits = {-2, 2, 3, 20, 400};
    embodiment.joints.push_back(joint);
  }
  return embodiment;
}

class FakeRobot final : public Robot {
 public:
  explicit FakeRobot(Embodiment embodiment = make_embodiment()) : embodiment_(std::move(embodiment)) {
    for (std::size_t j = 0; j < kMaxJoints; ++j) pose[j] = goal[j] = 0.1 * static_cast<double>(j + 1);
  }

  // script
  TimePoint now{};         // set before each tick
  bool is_live = false;    // answers at the real time instead
  int silent_joint = -1;   // does not answer
  bool is_closed = false;  // the bus is gone
  int nan_joint = -1;      // answers NaN
  int blocked_joint = -1;  // does not move
  JointArray load{};       // as reported
  std::array<DriveHealth, kMaxJoints> health{};
  ErrorCode send_error = ErrorCode::ok;
  bool refuses_enable = false;
  std::function<void()> on_read;  // called while a read waits
  int num_lost_enables = 0;       // enables whose answer is lost
  int num_lost_limits = 0;        // torque limits whose read-back is lost
  double lag = 0.5;               // share of the way to the goal that a joint covers per read
  // what happened
  JointArray pose{}, goal{};
  bool is_torque_on = false;
  JointArray goal_velocity{}, torque_share{};
  TimePoint limit_deadline{};
  int num_enables = 0, num_sends = 0, num_torque_limits = 0, num_releases = 0;
  std::vector<std::vector<double>> sent;  // the poses of enable() and send()
  bool keeps_sent = true;                 // off where allocations are counted

  const Embodiment& embodiment() const noexcept override { return embodiment_; }
  void connect() override {}
  void disconnect() noexcept override {}

  Result read_state(TimePoint, JointState& state) noexcept override {
    if (is_closed) return {ErrorCode::bus_closed, -1, 5};
    if (is_live) now = Clock::now();
    if (on_read) on_read();
    state.num_joints = embodiment_.joints.size();
    Result result;
    for (std::size_t j = 0; j < state.num_joints; ++j) {
      if (is_torque_on && static_cast<int>(j) != blocked_joint) pose[j] += lag * (goal[j] - pose[j]);
      if (static_cast<int>(j) == silent_joint) {
        result = {ErrorCode::timeout, static_cast<std::int16_t>(j), 0};
        continue;
      }
      state.position[j] =
          static_cast<int>(j) == nan_joint ? std::numeric_limits<double>::quiet_NaN() : pose[j];
      state.load[j] = load[j];
      state.drive_health[j] = health[j];
      state.sampled_at[j] = now;
    }
    is_complete_ = result.ok();
    return result;
  }
  Result write_goals(std::span<const double> position, std::span<const double> velocity,
                     TimePoint) noexcept override {
    if (is_closed) return {ErrorCode::bus_closed, -1, 5};
    if (send_error != ErrorCode::ok) return {send_error, -1, 0};
    if (!is_torque_on) return {ErrorCode::wrong_state, -1, 0};
    ++num_sends;
    std::copy(velocity.begin(), velocity.end(), goal_velocity.begin());
    for (std::size_t j = 0; j < position.size(); ++j) goal[j] = position[j];
    if (keeps_sent) sent.emplace_back(position.begin(), position.end());
    return {};
  }
  Result switch_on(std::span<const double> position, TimePoint) noexcept override {
    if (is_closed) return {ErrorCode::bus_closed, -1, 5};
    if (!is_complete_) return {ErrorCode::wrong_state, 0, 0};
    if (num_lost_enables > 0) return --num_lost_enables, Result{ErrorCode::timeout, 0, 0};
    if (refuses_enable) return {ErrorCode::drive_error, 1, 32};
    ++num_enables;
    for (std::size_t j = 0; j < position.size(); ++j) {
      if (position[j] != pose[j]) return {ErrorCode::wrong_state, static_cast<std::int16_t>(j), 0};
      goal[j] = position[j];
    }
    is_torque_on = true;
    torque_share.fill(1);
    if (keeps_sent) sent.emplace_back(position.begin(), position.end());
    return {};
  }
  Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept override {
    limit_deadline = deadline;
    if (is_closed) return {ErrorCode::bus_closed, -1, 5};
    ++num_torque_limits;
    if (num_lost_limits > 0) return --num_lost_limits, Result{ErrorCode::timeout, 0, 0};
    std::copy(shares.begin(), shares.end(), torque_share.begin());
    return {};
  }
  Result switch_off(TimePoint) noexcept override {
    if (is_closed) return {ErrorCode::bus_closed, -1, 5};
    ++num_releases;
    is_torque_on = false;
    return {};
  }

 private:
  Embodiment embodiment_;
  bool is_complete_ = false;  // every joint answered the last read
};

inline TimePoint no_clock() noexcept { return {}; }

// a loop on a fake clock
struct Bench {
  std::shared_ptr<FakeRobot> robot;
  LoopConfig config;
  TimePoint now{std::chrono::seconds(1000)};
  std::unique_ptr<ControlLoop> loop;
  std::vector<LoopRecord> records;
  bool keeps_records = true;

  explicit Bench(double rate_hz = 200, std::shared_ptr<FakeRobot> r = std::make_shared<FakeRobot>())
      : robot(std::move(r)) {
    config.rate_hz = rate_hz;
    config.max_first_step = 10;  // most tests go far at once
    config.origin = now;
    config.clock = &no_clock;
    loop = std::make_unique<ControlLoop>(robot, config);
  }

  const LoopRecord& tick(int count = 1) {
    const LoopRecord* record = nullptr;
    for (int i = 0; i < count; ++i) {
      now += loop->period();
      robot->now = now;
      record = &loop->tick(now);
      if (keeps_records) records.push_back(*record);
    }
    return *record;
  }
  // ticks until `state`; how many, or -1
  int tick_until(LoopState state, int most) {
    for (int i = 1; i <= most; ++i)
      if (tick().state == state) return i;
    return -1;
  }
  void enable() {
    loop->request(kRequestEnable);
    tick(2);
  }
  // every joint at `position` for so long
  std::uint64_t go_to(double position, double seconds = 60) {
    const std::vector<double> row(robot->embodiment().joints.size(), position);
    return loop->submit(row, now, Seconds(seconds), loop->generation());
  }
  // joints on sines from the present command, at a fixed step
  std::uint64_t wave(int num_rows, double step, double amplitude = 0.2, double lead = 0.0) {
    const std::size_t num_joints = robot->embodiment().joints.size();
    std::vector<double> rows;
    for (int i = 0; i < num_rows; ++i)
      for (std::size_t j = 0; j < num_joints; ++j)
        rows.push_back(robot->goal[j] + amplitude * (1 - std::cos(3.0 * i * step)));
    return loop->submit(rows, now + std::chrono::round<Duration>(Seconds(lead)), Seconds(step),
                        loop->generation());
  }
};

// no step of what was sent exceeds the limits of the fake robot's joints
inline void check_limits(const FakeRobot& robot, double dt, double start_velocity_share = 1) {
  const JointLimits& l = robot.embodiment().joints[0].limits;
  for (std::size_t j = 0; j < robot.embodiment().joints.size(); ++j) {
    double p = robot.sent.front()[j], v = 0, a = 0;
    for (const auto& command : robot.sent) {
      const double nv = (command[j] - p) / dt, na = (nv - v) / dt, jerk = (na - a) / dt;
      CHECK(std::abs(nv) <= l.max_velocity * start_velocity_share * (1 + 1e-9));
      CHECK(std::abs(na) <= l.max_acceleration * (1 + 1e-8));
      CHECK(std::abs(jerk) <= l.max_jerk * (1 + 1e-6));
      p = command[j], v = nv, a = na;
    }
  }
}

}  // namespace wallx::test
