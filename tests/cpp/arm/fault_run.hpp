// Fault run: one fault of one kind on an emulated arm while it moves, and what its loop makes of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "check.hpp"
#include "control/control_loop.hpp"
#include "emulator/faults.hpp"

namespace wallx::test {

using emulator::FaultKind;

enum class Outcome { runs, holds, faults };
inline constexpr const char* kOutcomeNames[] = {"runs on", "holds", "faults"};

struct FaultExpectation {
  FaultKind kind;
  double value;
  Outcome outcome;  // at least
  std::initializer_list<Reason>
      reasons;        // any of them; of a fault that it runs on with: a hold for one may come and go
  int max_ticks = 0;  // from the fault to that state; of 5 ms
  bool spares_gripper = false;  // not following is a gripper's work
};

// a bound of the distance in which a joint at speed v comes to rest that was still speeding up
inline double braking_distance(double v, const JointLimits& limits) {
  const double turning = limits.max_acceleration / limits.max_jerk;  // from full push to none [s]
  const double fastest = v + limits.max_acceleration * turning / 2;
  return fastest * fastest / (2 * limits.max_acceleration) + 2 * fastest * turning;
}

// What the plants of both families share: a loop over a robot and its emulated wire on one simulated clock,
// and a motion that never ends.
template <class Wire>
struct MovingPlant {
  static constexpr std::size_t kNumJoints = 3;
  static constexpr double kSag = 0.05;
  static constexpr TimePoint kStart{std::chrono::seconds(1000)};

  void start_loop(std::shared_ptr<Robot> robot) {
    robot->connect();
    LoopConfig config;
    config.rate_hz = 200;
    config.origin = kStart;
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

  std::shared_ptr<Wire> wire;
  std::unique_ptr<ControlLoop> loop;
  TimePoint now, began;
  bool is_moving = false;
  int num_ticks = 0;
};

struct FaultFound {
  Outcome outcome = Outcome::runs;
  Reason reason = Reason::none;
  int ticks = 0;
  double beyond = 0;  // of any command, past where braking may end [rad]
  bool is_gripper = false;
};

// `Plant`: an arm of kNumJoints joints, the last of which grips; a loop, its embodiment, a wire and a bus.
template <class Plant>
FaultFound run_fault(const FaultExpectation& row, std::uint64_t seed) {
  constexpr std::size_t kNumJoints = Plant::kNumJoints;
  std::mt19937_64 random(seed);
  Plant plant(seed);
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

  FaultFound found;
  found.is_gripper = id == static_cast<int>(kNumJoints);
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
        low[j] = std::min(low[j], record.measured[j] - Plant::kSag);
        high[j] = std::max(high[j], record.measured[j] + Plant::kSag);
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
  for (std::size_t j = 0; j < kNumJoints; ++j) CHECK(std::isfinite(plant.position(j)));
  return found;
}

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// WALLX_FAULT_RUNS: of each kind; WALLX_SEED: of places and times
template <class Plant>
void check_faults(std::span<const FaultExpectation> rows) {
  const std::uint64_t runs = from_environment("WALLX_FAULT_RUNS", 3),
                      first = from_environment("WALLX_SEED", 1);
  std::printf("%llu runs of each kind, seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(first));
  for (const FaultExpectation& row : rows) {
    const char* name = emulator::fault_row(row.kind).name;
    int slowest = 0;
    for (std::uint64_t i = 0; i < runs; ++i) {
      const std::uint64_t seed = first * 1'000'003 + i * 1009 + static_cast<std::uint64_t>(row.kind);
      const FaultFound found = run_fault<Plant>(row, seed);
      slowest = std::max(slowest, found.ticks);
      const bool is_spared = found.is_gripper && row.spares_gripper;
      bool is_reason = false;
      for (const Reason reason : row.reasons) is_reason = is_reason || reason == found.reason;
      const bool is_right =
          is_spared || row.outcome == Outcome::runs
              ? found.outcome == Outcome::runs || (!is_spared && found.outcome == Outcome::holds && is_reason)
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

// `Wire`: says which faults it can have
template <class Wire>
void check_every_kind_is_there(std::span<const FaultExpectation> rows) {
  for (const emulator::FaultRow& fault : emulator::kFaultRows) {
    bool is_there = !Wire::kFaults.has(fault.kind);
    for (const FaultExpectation& row : rows) is_there = is_there || row.kind == fault.kind;
    CHECK(is_there);
  }
}

}  // namespace wallx::test
