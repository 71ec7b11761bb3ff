// Damiao faults: what every kind of fault comes to on emulated Damiao motors while they move: the documented
// state, within the documented number of ticks, no command beyond the braking distance.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "contract/lock_step_can_bus.hpp"
#include "control/control_loop.hpp"
#include "drivers/motors/damiao/damiao_robot.hpp"

namespace wallx::test {
namespace {

using emulator::FaultKind;

constexpr std::size_t kNumJoints = 3;
constexpr std::size_t kGrip = 2;
constexpr double kSag = 0.05;

// pan turns, lift carries, grip closes; 200 Hz on an FD line, all on the line's own clock
struct DmPlant {
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

    const TimePoint start{std::chrono::seconds(1000)};
    wire = std::make_shared<emulator::DmBus>(
        motors, emulator::DmBusOptions{.rates = {}, .seed = seed, .start = start});
    auto line = std::make_unique<LockStepCanBus>(wire);
    line->is_simulated = true;
    bus = line.get();
    const std::vector<JointCalibration> calibration{
        {1, 0, 0, -120, 120}, {2, 0, 0, -120, 120}, {3, 0, 0, -120, 120}};
    auto robot = std::make_shared<DamiaoRobot>(embodiment, calibration, std::move(line));
    robot->connect();
    LoopConfig config;
    config.rate_hz = 200;
    config.origin = start;
    config.clock = +[]() noexcept { return TimePoint{}; };
    config.max_first_step = 4;
    loop = std::make_unique<ControlLoop>(std::move(robot), config);
    now = loop->on_grid(wire->now());
  }

  // one endless, smooth motion of every joint, handed over a quarter of a second at a time
  const LoopRecord& tick() {
    now = loop->on_grid(std::max(now + loop->period(), wire->now()));
    if (is_moving && num_ticks++ % 50 == 0) {
      std::vector<double> rows;
      for (int i = 0; i <= 50; ++i)
        for (std::size_t j = 0; j < kNumJoints; ++j)
          rows.push_back(0.7 * std::sin(1.8 * (to_seconds(now - began) + i * 0.04)) * (j % 2 ? 1 : -1));
      loop->submit(rows, now, Seconds(0.04), loop->generation());
    }
    wire->advance(now);
    return loop->tick(now);
  }
  void start_moving() {
    for (int i = 0; i < 3; ++i) tick();
    loop->request(kRequestEnable);
    for (int i = 0; i < 20 && loop->state() != LoopState::armed; ++i) tick();
    REQUIRE(loop->state() == LoopState::armed);
    is_moving = true;
    began = now;
    for (int i = 0; i < 1000; ++i)
      if (tick().state == LoopState::run && i > 100) return;
    REQUIRE(!"the plant does not come to run");
  }

  Embodiment embodiment{.name = "plant", .motor_family = "damiao", .joints = {}};
  std::shared_ptr<emulator::DmBus> wire;
  LockStepCanBus* bus = nullptr;  // owned by the robot
  std::unique_ptr<ControlLoop> loop;
  TimePoint now, began;
  bool is_moving = false;
  int num_ticks = 0;
};

enum class Outcome { runs, holds, faults };
constexpr const char* kOutcomeNames[] = {"runs on", "holds", "faults"};

struct Row {
  FaultKind kind;
  double value;
  Outcome outcome;                        // at least
  std::initializer_list<Reason> reasons;  // any of them
  int max_ticks = 0;                      // from the fault to that state; of 5 ms
  bool spares_gripper = false;            // not following is a gripper's work
};

constexpr int kStale = 22;    // 0.1 s, and the ticks in which the last answer came and is missed
constexpr int kSeen = 3;      // an answer is read a period after its command
constexpr int kFollow = 420;  // until the motion has left the joint max_following_error behind
constexpr auto kGone = {Reason::torque_lost};
constexpr auto kSilence = {Reason::stale_feedback};
constexpr auto kBlocked = {Reason::obstruction};
constexpr auto kJump = {Reason::implausible};
constexpr auto kClosed = {Reason::bus_closed};

const Row kRows[] = {
    {FaultKind::drop, 0.02, Outcome::runs, {}},
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

// a bound of the distance in which a joint at speed v comes to rest that was still speeding up
double braking_distance(double v, const JointLimits& limits) {
  const double turning = limits.max_acceleration / limits.max_jerk;  // from full push to none [s]
  const double fastest = v + limits.max_acceleration * turning / 2;
  return fastest * fastest / (2 * limits.max_acceleration) + 2 * fastest * turning;
}

struct Found {
  Outcome outcome = Outcome::runs;
  Reason reason = Reason::none;
  int ticks = 0;
  double beyond = 0;  // of any command, past where braking may end [rad]
  bool is_gripper = false;
};

Found run_one(const Row& row, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  DmPlant plant(seed);
  plant.start_moving();
  LoopRecord previous = plant.tick();
  std::array<double, kNumJoints> speed{}, low{}, high{};
  const auto measure = [&](const LoopRecord& record) {
    for (std::size_t j = 0; j < kNumJoints; ++j)
      speed[j] = std::abs(record.command[j] - previous.command[j]) / to_seconds(plant.loop->period());
    previous = record;
  };
  for (std::uint64_t i = 0, count = 1 + random() % 700; i < count; ++i) measure(plant.tick());

  const int id = 1 + static_cast<int>(random() % kNumJoints);
  const bool is_line = emulator::fault_row(row.kind).scope == emulator::FaultScope::line;
  const double value =
      row.kind == FaultKind::duplicate_id ? 1 + id % static_cast<int>(kNumJoints) : row.value;
  REQUIRE(plant.wire->set_fault(row.kind, is_line ? emulator::kEveryDrive : id, value));
  if (row.kind == FaultKind::unplug) plant.bus->is_gone = true;

  Found found;
  found.is_gripper = id == static_cast<int>(kGrip) + 1;
  for (int i = 1; i <= 800; ++i) {
    const LoopRecord record = plant.tick();
    const bool stops = record.state == LoopState::hold || record.state == LoopState::fault;
    for (std::size_t j = 0; stops && j < kNumJoints; ++j) {
      if (found.outcome == Outcome::runs) {
        const double margin = braking_distance(speed[j], plant.embodiment.joints[j].limits);
        low[j] = previous.command[j] - margin;
        high[j] = previous.command[j] + margin;
      }
      // a command may be pulled back to where the joint stands, or sinks to: but never where it cannot be
      if (record.cause.reason != Reason::implausible) {
        low[j] = std::min(low[j], record.measured[j] - kSag);
        high[j] = std::max(high[j], record.measured[j] + kSag);
      }
      found.beyond = std::max({found.beyond, low[j] - record.command[j], record.command[j] - high[j]});
    }
    measure(record);
    const Outcome now = record.state == LoopState::fault  ? Outcome::faults
                        : record.state == LoopState::hold ? Outcome::holds
                                                          : Outcome::runs;
    if (now > found.outcome) {
      found.outcome = now;
      found.reason = record.cause.reason;
      if (now <= row.outcome) found.ticks = i;
    }
    if (now == Outcome::runs && found.outcome == Outcome::holds) break;  // it went on by itself
  }
  for (std::size_t j = 0; j < kNumJoints; ++j) CHECK(std::isfinite(plant.wire->motor(j).position()));
  return found;
}

}  // namespace

TEST(every_damiao_fault_ends_in_its_documented_state_in_time) {
  constexpr int kRuns = 3;
  for (const Row& row : kRows) {
    const char* name = emulator::fault_row(row.kind).name;
    int slowest = 0;
    for (std::uint64_t i = 0; i < kRuns; ++i) {
      const std::uint64_t seed = 1'000'003 + i * 1009 + static_cast<std::uint64_t>(row.kind);
      const Found found = run_one(row, seed);
      slowest = std::max(slowest, found.ticks);
      const bool is_spared = found.is_gripper && row.spares_gripper;
      bool is_reason = false;
      for (const Reason reason : row.reasons) is_reason = is_reason || reason == found.reason;
      const bool is_right = row.outcome == Outcome::runs || is_spared
                                ? found.outcome == Outcome::runs
                                : found.outcome >= row.outcome && is_reason && found.ticks <= row.max_ticks;
      if (!is_right || found.beyond > 1e-9)
        fail(__FILE__, __LINE__,
             std::string(name) + " run " + std::to_string(i) + ": " +
                 kOutcomeNames[static_cast<int>(found.outcome)] + " (" + to_string(found.reason) +
                 ") after " + std::to_string(found.ticks) + " ticks, " + std::to_string(found.beyond) +
                 " rad beyond" + (found.is_gripper ? ", gripper" : ""));
    }
    std::printf("%-14s %6g  %-8s %4d of %4d ticks\n", name, row.value,
                kOutcomeNames[static_cast<int>(row.outcome)], slowest, row.max_ticks);
  }
}

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

TEST(no_damiao_fault_is_without_a_documented_outcome) {
  for (const emulator::FaultRow& fault : emulator::kFaultRows) {
    bool is_there = !emulator::DmBus::kFaults.has(fault.kind);
    for (const Row& row : kRows) is_there = is_there || row.kind == fault.kind;
    CHECK(is_there);
  }
}

}  // namespace wallx::test
