// Outcomes: what every kind of fault comes to on an emulated SO-101 while it moves; the documented outcome,
// within the documented number of ticks, no goal beyond the braking distance, nothing lost from the records.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>

#include "faults/arm_bench.hpp"

namespace wallx::test {
namespace {

enum class Outcome { runs, holds, faults };
constexpr const char* kOutcomeNames[] = {"runs on", "holds", "faults"};

struct Row {
  FaultKind kind;
  std::optional<double> value;  // none: the fault's preset
  Outcome outcome;
  Reason reason;  // of the fault
  int max_ticks;  // from the fault to that state; of 5 ms
};

// stale feedback: a hold after 3 periods, a fault after 0.1 s; and the tick that sees it
constexpr int kStale = 22;
// an arm that does not follow: until its plan has left it behind, in this motion
constexpr int kFollow = 260;

const Row kRows[] = {
    {FaultKind::drop, 0.02, Outcome::runs, Reason::none, 0},
    {FaultKind::drop, 1.0, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::corrupt, 0.02, Outcome::runs, Reason::none, 0},
    {FaultKind::corrupt, 1.0, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::truncate, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::wrong_length, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::noise, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::repeat, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::late, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::delay, 0.0005, Outcome::runs, Reason::none, 0},
    {FaultKind::delay, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::wrong_id, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::duplicate_id, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::silent, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::babble, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::unplug, {}, Outcome::faults, Reason::bus_closed, 1},
    {FaultKind::ignore_writes, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::stuck, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::freeze, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::wrong_mode, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::drive_error, {}, Outcome::runs, Reason::none, 2},
    {FaultKind::torque_lost, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::reboot, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::brown_out, {}, Outcome::faults, Reason::torque_lost, 30},
    {FaultKind::block, {}, Outcome::runs, Reason::none, kFollow},
    {FaultKind::supply, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::supply, 3.5, Outcome::runs, Reason::none, 2},
    {FaultKind::overheat, {}, Outcome::runs, Reason::none, 2},
    {FaultKind::sensor_jump, {}, Outcome::runs, Reason::none, 2},
    {FaultKind::encoder_wrap, {}, Outcome::runs, Reason::none, 2},
};

struct Found {
  Outcome outcome = Outcome::runs;
  Reason reason = Reason::none;
  int ticks = 0;      // until that outcome
  double beyond = 0;  // of any command, past where braking may end [rad]
};

// distance in which a joint at speed v comes to rest: at full deceleration, and while that builds up
double braking_distance(double v, const JointLimits& limits) {
  return v * v / (2 * limits.max_acceleration) + v * limits.max_acceleration / limits.max_jerk;
}

Found run_one(const Row& row, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  ArmBench bench(seed);
  bench.start();
  const int before = static_cast<int>(random() % 200);
  int at = 0;
  const auto tick = [&]() -> const LoopRecord& {
    if (at++ % 50 == 0) bench.plan();
    return bench.tick();
  };
  for (int i = 0; i < before; ++i) tick();

  const std::size_t joint = random() % kLinks.size();
  const int id = static_cast<int>(joint) + 1;
  const emulator::FaultRow& fault = emulator::fault_row(row.kind);
  double value = row.value.value_or(fault.preset);
  if (row.kind == FaultKind::duplicate_id) value = 1 + id % 6;
  const bool is_line = fault.scope == emulator::FaultScope::line;
  emulator::check_fault("feetech_sts", emulator::StsBus::kFaults, row.kind,
                        is_line ? emulator::kEveryDrive : id, value);
  REQUIRE(bench.wire->set_fault(row.kind, is_line ? emulator::kEveryDrive : id, value));
  if (row.kind == FaultKind::unplug) bench.bus->is_gone = true;

  Found found;
  std::array<double, kLinks.size()> last{}, speed{}, low{}, high{};
  bool is_stopping = false;
  LoopRecord previous;
  for (int i = 1; i <= 300; ++i) {
    const LoopRecord record = tick();
    const bool stops = record.state == LoopState::hold || record.state == LoopState::fault;
    if (stops && !is_stopping) {
      for (std::size_t j = 0; j < kLinks.size(); ++j) {
        const double command = i > 1 ? previous.command[j] : record.command[j];
        const double margin =
            braking_distance(i > 2 ? speed[j] : 0.0, bench.robot->embodiment().joints[j].limits);
        // a command may also be pulled back to where the joint stands
        low[j] = std::min(command, record.measured[j]) - margin;
        high[j] = std::max(command, record.measured[j]) + margin;
      }
    }
    is_stopping = stops;
    if (stops && i > 2) {
      for (std::size_t j = 0; j < kLinks.size(); ++j)
        found.beyond = std::max({found.beyond, low[j] - record.command[j], record.command[j] - high[j]});
    }
    for (std::size_t j = 0; j < kLinks.size(); ++j) {
      speed[j] = i > 1 ? std::abs(record.command[j] - last[j]) / to_seconds(ArmBench::kPeriod) : 0.0;
      last[j] = record.command[j];
    }
    if (record.state == LoopState::hold && found.outcome == Outcome::runs) {
      found = {Outcome::holds, record.cause.reason, i, found.beyond};
    } else if (record.state == LoopState::fault && found.outcome != Outcome::faults) {
      found = {Outcome::faults, record.cause.reason, i, found.beyond};
    }
    previous = record;
  }
  CHECK_EQ(bench.num_recorded, bench.num_ticks);
  CHECK_EQ(bench.events.num_lost(), 0u);
  CHECK(bench.num_faults_logged > 0);

  // a fault stays one when its cause is gone; what only held goes on by itself
  bench.wire->clear_fault(row.kind, emulator::kEveryDrive);
  bench.bus->is_gone = false;
  for (int i = 0; i < 60; ++i) tick();
  const LoopState end = bench.loop->state();
  CHECK_EQ(end == LoopState::fault, found.outcome == Outcome::faults);
  return found;
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

// WALLX_FAULT_RUNS: of each kind; WALLX_SEED: of places and times
TEST(every_fault_ends_in_its_documented_state_in_time) {
  const std::uint64_t runs = from_environment("WALLX_FAULT_RUNS", 3),
                      seed = from_environment("WALLX_SEED", 1);
  std::printf("%llu runs of each kind, seed %llu\n%-14s %6s  %-9s %-14s %6s %6s\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed), "fault", "value",
              "outcome", "reason", "ticks", "most");
  for (const Row& row : kRows) {
    const emulator::FaultRow& fault = emulator::fault_row(row.kind);
    int slowest = 0;
    double beyond = 0;
    for (std::uint64_t i = 0; i < runs; ++i) {
      const std::uint64_t run_seed = seed * 1'000'003 + i * 1009 + static_cast<std::uint64_t>(row.kind);
      const Found found = run_one(row, run_seed);
      slowest = std::max(slowest, found.ticks);
      beyond = std::max(beyond, found.beyond);
      if (found.outcome != row.outcome || (row.outcome == Outcome::faults && found.reason != row.reason) ||
          (row.outcome != Outcome::runs && found.ticks > row.max_ticks) || found.beyond > 1e-9) {
        fail(__FILE__, __LINE__,
             std::string(fault.name) + " run " + std::to_string(i) + " (seed " + std::to_string(run_seed) +
                 "): " + kOutcomeNames[static_cast<int>(found.outcome)] + " (" + to_string(found.reason) +
                 ") after " + std::to_string(found.ticks) + " ticks, " + std::to_string(found.beyond) +
                 " rad beyond; documented: " + kOutcomeNames[static_cast<int>(row.outcome)] + " (" +
                 to_string(row.reason) + ") within " + std::to_string(row.max_ticks));
      }
    }
    std::printf("%-14s %6g  %-9s %-14s %6d %6d\n", fault.name, row.value.value_or(fault.preset),
                kOutcomeNames[static_cast<int>(row.outcome)], to_string(row.reason), slowest, row.max_ticks);
  }
}

TEST(no_kind_of_fault_is_without_a_documented_outcome) {
  for (const emulator::FaultRow& fault : emulator::kFaultRows) {
    bool is_there = !emulator::StsBus::kFaults.has(fault.kind);
    for (const Row& row : kRows) is_there = is_there || row.kind == fault.kind;
    CHECK(is_there);
  }
}

}  // namespace wallx::test
