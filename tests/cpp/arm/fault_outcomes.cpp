// Fault outcomes: what every kind of fault comes to on an emulated arm while it moves: the documented state,
// within the documented number of ticks, no command beyond the braking distance, no record lost.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <optional>
#include <random>
#include <string>

#include "arm/fault_run.hpp"
#include "arm/plant.hpp"

namespace wallx::test {
namespace {

struct Row {
  FaultKind kind;
  std::optional<double> value;  // none: the fault's preset
  Outcome outcome;
  Reason reason;                // of the fault
  int max_ticks;                // from the fault to that state; of 5 ms
  bool spares_gripper = false;  // a gripper runs on: not following is its work, and the rest is not seen
  Reason also = Reason::none;   // another reason that is as good
};

// stale feedback: a hold after 3 periods, a fault after 0.1 s; and the tick that sees it
constexpr int kStale = 21;
constexpr int kHold = 4;
// a joint that does not follow: until this motion has left it max_following_error behind
constexpr int kFollow = 420;
// the torque register is read with every eighth state
constexpr int kWide = 9;
constexpr bool kSparesGripper = true;

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
    // an answer that comes 4 periods late cannot be told from one that is on time: it may end a hold again
    {FaultKind::delay, {}, Outcome::holds, Reason::stale_feedback, kHold, false, Reason::obstruction},
    {FaultKind::wrong_id, {}, Outcome::faults, Reason::stale_feedback, kStale},
    // mixed answers have wrong checksums, but for a few that show a pose that is nowhere near
    {FaultKind::duplicate_id,
     {},
     Outcome::faults,
     Reason::stale_feedback,
     kStale,
     false,
     Reason::implausible},
    {FaultKind::silent, {}, Outcome::faults, Reason::stale_feedback, kStale},
    {FaultKind::babble, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::unplug, {}, Outcome::faults, Reason::bus_closed, 1},
    {FaultKind::ignore_writes, {}, Outcome::faults, Reason::obstruction, kFollow, kSparesGripper},
    {FaultKind::stuck, {}, Outcome::faults, Reason::obstruction, kFollow, kSparesGripper},
    {FaultKind::freeze, {}, Outcome::faults, Reason::obstruction, kFollow, kSparesGripper},
    {FaultKind::wrong_mode, {}, Outcome::faults, Reason::obstruction, kFollow, kSparesGripper},
    {FaultKind::drive_error, {}, Outcome::faults, Reason::drive_fault, 1, kSparesGripper},
    {FaultKind::torque_lost, {}, Outcome::faults, Reason::torque_lost, kWide},
    {FaultKind::reboot, {}, Outcome::faults, Reason::torque_lost, kWide},
    {FaultKind::brown_out, {}, Outcome::faults, Reason::torque_lost, kStale},
    {FaultKind::block, {}, Outcome::faults, Reason::obstruction, kFollow, kSparesGripper},
    {FaultKind::supply, {}, Outcome::runs, Reason::none, 0},
    {FaultKind::supply, 3.5, Outcome::runs, Reason::none, 0},  // a warning: it still does what it is told
    {FaultKind::overheat, {}, Outcome::faults, Reason::drive_fault, 1},
    {FaultKind::sensor_jump, {}, Outcome::faults, Reason::implausible, 1},
    {FaultKind::encoder_wrap, {}, Outcome::faults, Reason::implausible, 1},
};

constexpr double kSag = 0.05;  // static_sag of the plant's joints, at most [rad]

struct Found {
  Outcome outcome = Outcome::runs;
  Reason reason = Reason::none;
  int ticks = 0;       // until that outcome
  int hold_ticks = 0;  // until the first hold or fault, 0: none
  double beyond = 0;   // of any command, past where braking may end [rad]
  bool is_gripper = false;
};

// One endless, smooth motion of every joint, handed over two seconds at a time.
class Motion {
 public:
  explicit Motion(Plant& plant) : plant_(plant), started_(plant.now) {
    plant.enable();
    for (int i = 0; i < 1000; ++i)
      if (tick().state == LoopState::run && i > 100) return;
    REQUIRE(!"the plant does not come to run");
  }
  const LoopRecord& tick() {
    if (count_++ % 50 == 0) plan();
    return plant_.tick();
  }

 private:
  static constexpr double kReach = 0.7;  // to both sides of the middle [rad]
  static constexpr double kTurn = 1.8;   // [rad/s]
  void plan() {
    std::vector<double> rows;
    for (int i = 0; i <= 50; ++i) {
      const double t = to_seconds(plant_.now - started_) + i * 0.04;
      for (std::size_t j = 0; j < Plant::kNumJoints; ++j)
        rows.push_back(kReach * std::sin(kTurn * t) * (j % 2 ? 1 : -1));
    }
    plant_.loop->submit(rows, plant_.now, Seconds(0.04), plant_.loop->generation());
  }

  Plant& plant_;
  TimePoint started_;
  int count_ = 0;
};

Found run_one(const Row& row, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Plant plant(200, seed);
  Motion motion(plant);
  LoopRecord previous = motion.tick();
  std::array<double, Plant::kNumJoints> speed{}, low{}, high{};
  for (std::uint64_t i = 0, count = 1 + random() % 700; i < count; ++i) {
    const LoopRecord record = motion.tick();
    for (std::size_t j = 0; j < Plant::kNumJoints; ++j)
      speed[j] = std::abs(record.command[j] - previous.command[j]) / to_seconds(plant.loop->period());
    previous = record;
  }

  const int id = static_cast<int>(random() % Plant::kNumJoints) + 1;
  const emulator::FaultRow& fault = emulator::fault_row(row.kind);
  double value = row.value.value_or(fault.preset);
  if (row.kind == FaultKind::duplicate_id) value = 1 + id % static_cast<int>(Plant::kNumJoints);
  const int drive = fault.scope == emulator::FaultScope::line ? emulator::kEveryDrive : id;
  emulator::check_fault("feetech_sts", emulator::StsBus::kFaults, row.kind, drive, value);
  REQUIRE(plant.wire->set_fault(row.kind, drive, value));
  if (row.kind == FaultKind::unplug) plant.bus->is_gone = true;

  Found found;
  found.is_gripper = id == static_cast<int>(Plant::grip) + 1;
  bool is_stopping = false;
  for (int i = 1; i <= 800; ++i) {
    const LoopRecord record = motion.tick();
    const bool stops = record.state == LoopState::hold || record.state == LoopState::fault;
    for (std::size_t j = 0; j < Plant::kNumJoints; ++j) {
      if (stops && !is_stopping) {
        const double margin = braking_distance(speed[j], plant.embodiment.joints[j].limits);
        low[j] = previous.command[j] - margin;
        high[j] = previous.command[j] + margin;
      }
      // a command may be pulled back to where the joint stands, or sinks to: but never where it cannot be
      if (stops && record.cause.reason != Reason::implausible) {
        low[j] = std::min(low[j], record.measured[j] - kSag);
        high[j] = std::max(high[j], record.measured[j] + kSag);
      }
      if (stops)
        found.beyond = std::max({found.beyond, low[j] - record.command[j], record.command[j] - high[j]});
      speed[j] = std::abs(record.command[j] - previous.command[j]) / to_seconds(plant.loop->period());
    }
    is_stopping = stops;
    if (stops && found.outcome == Outcome::runs) {
      found.outcome = Outcome::holds;
      found.reason = record.cause.reason;
      found.ticks = found.hold_ticks = i;
    }
    if (record.state == LoopState::fault && found.outcome != Outcome::faults) {
      found.outcome = Outcome::faults;
      found.reason = record.cause.reason;
      found.ticks = i;
    }
    previous = record;
  }

  // a fault stays one when its cause is gone; what only held goes on by itself
  plant.wire->clear_fault(row.kind, emulator::kEveryDrive);
  plant.bus->is_gone = false;
  for (int i = 0; i < 60; ++i) motion.tick();
  const bool is_fault = plant.loop->state() == LoopState::fault;
  // feedback that thaws has jumped
  if (row.kind != FaultKind::freeze) CHECK_EQ(is_fault, found.outcome == Outcome::faults);
  CHECK(is_fault || found.outcome != Outcome::faults);
  CHECK_EQ(plant.loop->num_records(), plant.records.size());
  CHECK_EQ(plant.loop->counters().num_dropped_records, 0u);
  return found;
}

bool is_fault(const Found& found) { return found.outcome == Outcome::faults; }

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
      slowest = std::max(slowest, row.outcome == Outcome::holds ? found.hold_ticks : found.ticks);
      beyond = std::max(beyond, found.beyond);
      const bool is_spared = found.is_gripper && row.spares_gripper;
      const Outcome documented = is_spared ? Outcome::runs : row.outcome;
      const bool is_reason = found.reason == row.reason || (found.reason == row.also && is_fault(found));
      const bool is_right =
          documented == Outcome::runs ? found.outcome == Outcome::runs
          : documented == Outcome::holds
              ? is_reason && found.hold_ticks <= row.max_ticks && found.outcome != Outcome::runs
              : is_fault(found) && is_reason && found.ticks <= row.max_ticks;
      if (!is_right || found.beyond > 1e-9) {
        fail(__FILE__, __LINE__,
             std::string(fault.name) + " run " + std::to_string(i) + " (seed " + std::to_string(run_seed) +
                 "): " + kOutcomeNames[static_cast<int>(found.outcome)] + " (" + to_string(found.reason) +
                 ") after " + std::to_string(found.ticks) + " ticks, " + std::to_string(found.beyond) +
                 " rad beyond; documented: " + kOutcomeNames[static_cast<int>(documented)] + " (" +
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
