// Faults: everything an emulated drive or its line can be made to do wrong, the same words for every motor
// family. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace wallx::emulator {

enum class FaultKind : std::uint8_t {
  // answers, each with its own chance
  drop,
  corrupt,
  truncate,
  wrong_length,
  noise,
  repeat,
  late,
  // the line and who speaks on it
  delay,
  wrong_id,
  duplicate_id,
  silent,
  babble,
  non_fd,
  bus_off,
  unplug,
  // the drive's mind
  ignore_writes,
  stuck,
  freeze,
  wrong_mode,
  drive_error,
  torque_lost,
  reboot,
  brown_out,
  // the drive's body
  block,
  supply,
  overheat,
  sensor_jump,
  encoder_wrap,
};
inline constexpr std::size_t kNumFaults = static_cast<std::size_t>(FaultKind::encoder_wrap) + 1;
inline constexpr int kEveryDrive = -1;  // in place of an id

enum class FaultAction : std::uint8_t {
  set,
  cleared,
  hit,  // a chance came true: this answer was spoiled
};

enum class FaultScope : std::uint8_t {
  drive,      // one or every drive
  one_drive,  // an id must be given
  line,       // the whole line: no id
};

struct FaultRow {
  FaultKind kind;
  const char* name;  // command, log and Python
  FaultScope scope;
  bool is_moment;      // happens once and is over: there is nothing to clear
  double min, max;     // of the value
  double preset;       // when no value is given
  const char* unit;    // of the value; empty: it has none
  const char* effect;  // one sentence
};

// in the order of FaultKind
inline constexpr std::array<FaultRow, kNumFaults> kFaultRows{{
    {FaultKind::drop, "drop", FaultScope::drive, false, 0, 1, 1, "chance",
     "an answer never leaves, its slot on the wire stays empty"},
    {FaultKind::corrupt, "corrupt", FaultScope::drive, false, 0, 1, 1, "chance",
     "one byte of an answer is changed"},
    {FaultKind::truncate, "truncate", FaultScope::drive, false, 0, 1, 1, "chance", "an answer ends half way"},
    {FaultKind::wrong_length, "wrong_length", FaultScope::drive, false, 0, 1, 1, "chance",
     "a valid answer with one data byte less than asked for, or one more where there is none"},
    {FaultKind::noise, "noise", FaultScope::drive, false, 0, 1, 1, "chance",
     "random bytes, or a frame of nobody's, in front of an answer"},
    {FaultKind::repeat, "repeat", FaultScope::drive, false, 0, 1, 1, "chance", "an answer is sent twice"},
    {FaultKind::late, "late", FaultScope::drive, false, 0, 1, 1, "chance",
     "an answer is kept back and leaves in place of the drive's next one"},
    {FaultKind::delay, "delay", FaultScope::drive, false, 0, 1, 0.02, "s",
     "every answer begins later by this much"},
    {FaultKind::wrong_id, "wrong_id", FaultScope::one_drive, false, 0, 2047, 99, "id",
     "answers under another id"},
    {FaultKind::duplicate_id, "duplicate_id", FaultScope::one_drive, false, 0, 2047, 1, "id",
     "has another drive's id: both hear, both answer, on top of each other"},
    {FaultKind::silent, "silent", FaultScope::drive, false, 0, 0, 0, "",
     "data wire cut: neither hears nor answers, keeps its goal"},
    {FaultKind::babble, "babble", FaultScope::drive, false, 1, 1000, 500, "1/s",
     "speaks unasked whenever the line is free"},
    {FaultKind::non_fd, "non_fd", FaultScope::drive, false, 0, 0, 0, "",
     "answers with classic frames on a CAN-FD bus"},
    {FaultKind::bus_off, "bus_off", FaultScope::line, false, 0, 0, 0, "",
     "the host's CAN controller has gone bus-off: error frame, then nothing passes"},
    {FaultKind::unplug, "unplug", FaultScope::line, false, 0, 0, 0, "",
     "the adapter is pulled: the port is gone; cleared, it is back under the same link"},
    {FaultKind::ignore_writes, "ignore_writes", FaultScope::drive, false, 0, 0, 0, "",
     "acknowledges writes and forgets them"},
    {FaultKind::stuck, "stuck", FaultScope::drive, false, 0, 0, 0, "",
     "takes goals and does not follow them: keeps the last one it followed"},
    {FaultKind::freeze, "freeze", FaultScope::drive, false, 0, 0, 0, "",
     "repeats the feedback it had, fresh and valid, whatever the joint does"},
    {FaultKind::wrong_mode, "wrong_mode", FaultScope::drive, false, 0, 255, 1, "mode",
     "is in another operating mode, says so when asked and follows no position goal"},
    {FaultKind::drive_error, "drive_error", FaultScope::drive, false, 1, 255, 32, "bits",
     "reports these error bits or this code with every answer and goes on"},
    {FaultKind::torque_lost, "torque_lost", FaultScope::drive, true, 0, 0, 0, "",
     "switches its torque off and keeps every other register"},
    {FaultKind::reboot, "reboot", FaultScope::drive, true, 0, 0, 0, "",
     "restarts between two requests: volatile registers and torque are lost, no answer is missed"},
    {FaultKind::brown_out, "brown_out", FaultScope::drive, true, 0.01, 10, 0.1, "s",
     "has no power for this long: no torque, no answer; volatile registers are lost"},
    {FaultKind::block, "block", FaultScope::drive, false, 0, 0, 0, "",
     "an obstacle on both sides of the joint"},
    {FaultKind::supply, "supply", FaultScope::drive, false, 0, 60, 5, "V",
     "the supply at the drive is at this voltage"},
    {FaultKind::overheat, "overheat", FaultScope::drive, false, -20, 200, 95, "degC",
     "the winding is at this temperature; cleared, it has cooled down"},
    {FaultKind::sensor_jump, "sensor_jump", FaultScope::drive, false, -3, 3, 0.5, "rad",
     "the encoder's magnet slips by this much; the drive's own controller believes it"},
    {FaultKind::encoder_wrap, "encoder_wrap", FaultScope::drive, false, -4, 4, 1, "turns",
     "reports positions that are off by whole turns"},
}};

const FaultRow& fault_row(FaultKind kind);
const FaultRow& find_fault(std::string_view name);  // throws ConfigError: unknown; lists those known

// which kinds a family's emulator can do
class FaultSupport {
 public:
  constexpr FaultSupport(std::initializer_list<FaultKind> kinds) {
    for (const FaultKind kind : kinds) mask_ |= std::uint64_t{1} << static_cast<unsigned>(kind);
  }
  static constexpr FaultSupport all_but(std::initializer_list<FaultKind> kinds) {
    FaultSupport all(kinds);
    all.mask_ = ~all.mask_ & ((std::uint64_t{1} << kNumFaults) - 1);
    return all;
  }
  constexpr bool has(FaultKind kind) const { return mask_ >> static_cast<unsigned>(kind) & 1; }

 private:
  std::uint64_t mask_ = 0;
};

// Throws ConfigError: the family's emulator cannot do it (names those it can), value out of bounds, an id
// where none belongs or none where one must be.
void check_fault(std::string_view family, FaultSupport supported, FaultKind kind, int id, double value);

// What is set on one drive. Chances are drawn by the bus, from its own seed.
class FaultSet {
 public:
  bool has(FaultKind kind) const noexcept { return is_set_[index(kind)]; }
  double value(FaultKind kind) const noexcept { return values_[index(kind)]; }  // 0 when not set
  void set(FaultKind kind, double value) noexcept {
    is_set_[index(kind)] = true;
    values_[index(kind)] = value;
  }
  void clear(FaultKind kind) noexcept {
    is_set_[index(kind)] = false;
    values_[index(kind)] = 0;
  }

 private:
  static constexpr std::size_t index(FaultKind kind) { return static_cast<std::size_t>(kind); }
  std::bitset<kNumFaults> is_set_;
  std::array<double, kNumFaults> values_{};
};

}  // namespace wallx::emulator
