// EventRing: what the bus saw and did, from its thread to the log's, without lock or allocation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/time.hpp"
#include "emulator/faults.hpp"

namespace wallx::emulator {

inline constexpr std::size_t kMaxServos = 32;
inline constexpr std::size_t kMaxParameters = 253;  // LEN is one byte and counts two more

enum class EventKind : std::uint8_t {
  instruction,     // a whole packet with a right checksum; goals and torque hold what the servos took from it
  checksum_error,  // a whole packet with a wrong one: ignored
  malformed,       // right checksum, impossible length or address: ignored
  truncated,       // the line fell silent inside a packet: dropped
  collision,       // the host spoke while answers were still due
  fault,           // set or cleared by command, or a chance that came true
  state,
  frame,  // CAN: a frame that the line has carried; instruction is 1 for an answer, `parameters` are its data
};

struct Event {
  TimePoint at;
  EventKind kind = EventKind::instruction;
  FaultKind fault = FaultKind::drop;  // of a fault
  FaultAction action = FaultAction::set;
  std::int16_t fault_id = kEveryDrive;  // the drive it happens to
  std::uint8_t instruction = 0;
  std::uint32_t can_id = 0;    // of a frame
  std::uint8_t id = 0;         // addressed servo; 254: all
  double value = 0;            // of a fault, in its unit
  std::uint16_t size = 0;      // of `parameters`
  std::uint8_t num_goals = 0;  // goals written (instruction), or servos (state)
  std::uint8_t num_torques = 0;
  std::array<std::uint8_t, kMaxParameters> parameters;
  // of one servo per entry; in a state: all servos, goal in force
  std::array<std::uint8_t, kMaxServos> goal_ids;
  std::array<std::int32_t, kMaxServos> goals;  // [ticks]
  std::array<std::uint8_t, kMaxServos> torque_ids;
  std::array<std::uint8_t, kMaxServos> torques;    // register 40
  std::array<std::int32_t, kMaxServos> positions;  // state only [ticks]
};

// one producer, one consumer
class EventRing {
 public:
  // A full ring refuses and counts; the producer never waits.
  bool push(const Event& event) noexcept {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head - tail_.load(std::memory_order_acquire) == kSize) {
      num_lost_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    (*events_)[head % kSize] = event;
    head_.store(head + 1, std::memory_order_release);
    return true;
  }
  bool pop(Event& event) noexcept {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail == head_.load(std::memory_order_acquire)) return false;
    event = (*events_)[tail % kSize];
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  std::uint64_t num_lost() const noexcept { return num_lost_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kSize = 4096;  // several seconds of a 200 Hz loop
  std::unique_ptr<std::array<Event, kSize>> events_ = std::make_unique<std::array<Event, kSize>>();
  alignas(64) std::atomic<std::uint64_t> head_{0};
  alignas(64) std::atomic<std::uint64_t> tail_{0};
  alignas(64) std::atomic<std::uint64_t> num_lost_{0};
};

}  // namespace wallx::emulator
