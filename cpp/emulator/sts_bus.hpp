// Bus: the half-duplex line with its servos: parses what the host sends, answers at the wire's pace, does
// what faults.hpp asks for. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/time.hpp"
#include "emulator/event_ring.hpp"
#include "emulator/sts_servo.hpp"

namespace wallx::emulator {

inline constexpr std::uint8_t kBroadcastId = 254;
inline constexpr Duration kPlantStep = std::chrono::microseconds(500);

struct BusOptions {
  int baud_rate = 1'000'000;
  std::uint64_t seed = 0;
  TimePoint start{};               // the plant's time zero
  double supply = 12.0;            // without load                    [V]
  double supply_resistance = 0.1;  // wiring shared by all servos     [Ohm]
};

// a byte of an answer and when its last bit has left the servo
struct TimedByte {
  TimePoint at;
  std::uint8_t byte = 0;
  bool ends_answer = false;
};

struct BusCounters {
  std::uint64_t bytes_received = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t instructions = 0;  // whole packets, right checksum, understood
  std::uint64_t pings = 0, reads = 0, writes = 0, reg_writes = 0, actions = 0, sync_reads = 0,
                sync_writes = 0;
  std::uint64_t answers = 0;          // put on the line, corrupted ones included
  std::uint64_t answers_spoiled = 0;  // by a fault that came true: dropped ones and damaged ones
  std::uint64_t checksum_errors = 0;
  std::uint64_t malformed = 0;
  std::uint64_t truncated = 0;
  std::uint64_t unknown_instructions = 0;
  std::uint64_t unanswered = 0;  // addressed to a servo that is absent, silent or rebooting
  std::uint64_t collisions = 0;  // requests that began while answers were due
  std::uint64_t input_lost = 0;  // bytes beyond the line's buffer
};

// visit(name, value) for each of them, in a fixed order
template <class Visit>
void for_each_counter(const BusCounters& c, Visit&& visit) {
  visit("bytes_received", c.bytes_received), visit("bytes_sent", c.bytes_sent);
  visit("instructions", c.instructions), visit("pings", c.pings), visit("reads", c.reads);
  visit("writes", c.writes), visit("reg_writes", c.reg_writes), visit("actions", c.actions);
  visit("sync_reads", c.sync_reads), visit("sync_writes", c.sync_writes);
  visit("answers", c.answers), visit("answers_spoiled", c.answers_spoiled),
      visit("checksum_errors", c.checksum_errors);
  visit("malformed", c.malformed), visit("truncated", c.truncated);
  visit("unknown_instructions", c.unknown_instructions), visit("unanswered", c.unanswered);
  visit("collisions", c.collisions), visit("input_lost", c.input_lost);
}

// Deterministic and pure: time enters through the arguments only. Two runs of one seed, fed alike, are
// bit-equal. Not thread-safe. Apart from the constructor nothing allocates or throws, except where said.
class StsBus {
 public:
  // `events` may be null and must outlive the bus. Throws ConfigError: no servo, too many, an id twice, a bad
  // rate.
  StsBus(std::span<const ServoSetup> servos, const BusOptions& options, EventRing* events = nullptr);

  // Bytes that the host hands to the line at `now`; they take their time on the wire, one after the other.
  void receive(std::span<const std::uint8_t> bytes, TimePoint now) noexcept;
  // Brings plant and protocol to `now`. How a span of time is cut into calls does not change the outcome.
  void advance(TimePoint now) noexcept;
  // Takes the bytes that have left the servos by `now`, oldest first; returns how many. Call advance(now)
  // first.
  std::size_t due(TimePoint now, std::span<TimedByte> out) noexcept;
  // When a request byte completes a packet that may be answered, or a whole answer is out; none: the line is
  // quiet.
  std::optional<TimePoint> next_event() const noexcept;
  TimePoint now() const noexcept { return now_; }

  static constexpr FaultSupport kFaults =
      FaultSupport::all_but({FaultKind::non_fd, FaultKind::bus_off});  // there is no CAN
  // Check first with check_fault(). The whole line and every drive: kEveryDrive. False: no such servo.
  // What happens to the port itself (unplug) is only recorded here; its host does it.
  bool set_fault(FaultKind kind, int id, double value) noexcept;
  bool clear_fault(FaultKind kind, int id) noexcept;

  std::size_t num_servos() const noexcept { return slots_.size(); }
  StsServo& servo(std::size_t index) noexcept { return slots_[index].servo; }
  const StsServo& servo(std::size_t index) const noexcept { return slots_[index].servo; }
  StsServo* find(int id) noexcept;
  const BusCounters& counters() const noexcept { return counters_; }
  void record_state() noexcept;  // pushes one state event

 private:
  static constexpr std::size_t kNoOverlap = SIZE_MAX;
  struct Slot {
    StsServo servo;
    TimePoint boots_at{};
    TimePoint babbles_at{};
    std::array<std::uint8_t, kNumRegisters + 6> late{};  // the answer that is kept back
    std::size_t late_size = 0;
    // the id it listens to; another's with the fault duplicate_id
    int listens_to() const noexcept {
      const FaultSet& faults = servo.faults();
      return faults.has(FaultKind::duplicate_id) ? static_cast<int>(faults.value(FaultKind::duplicate_id))
                                                 : servo.id();
    }
  };
  template <class T, std::size_t kCapacity>
  struct Queue {
    std::array<T, kCapacity> items;
    std::size_t first = 0, size = 0;
    const T& front() const { return items[first]; }
    const T& at(std::size_t i) const { return items[(first + i) % kCapacity]; }
    T& at(std::size_t i) { return items[(first + i) % kCapacity]; }
    bool push(const T& item) {
      if (size == kCapacity) return false;
      items[(first + size++) % kCapacity] = item;
      return true;
    }
    void pop() { first = (first + 1) % kCapacity, --size; }
  };

  void integrate(TimePoint until) noexcept;
  void step_plant() noexcept;
  void take_byte(const TimedByte& byte) noexcept;
  void execute(TimePoint at) noexcept;
  bool execute_one(Event& event, std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept;
  bool sync_read(std::span<const std::uint8_t> parameters) noexcept;
  bool sync_write(Event& event, std::span<const std::uint8_t> parameters) noexcept;
  bool is_listening(const Slot& slot, int id) const noexcept;
  template <class Body>
  bool for_listeners(int id, Body&& body) noexcept;
  void apply(Event& event, const Slot& slot, const WriteEffect& effect) noexcept;
  void answer(Slot& slot, std::span<const std::uint8_t> parameters) noexcept;
  void answer_write(Slot& slot, bool is_broadcast) noexcept;
  std::size_t spoil(Slot& slot, std::span<std::uint8_t> bytes, std::size_t size) noexcept;
  void put_on_line(TimePoint begin, std::span<const std::uint8_t> bytes) noexcept;
  void babble() noexcept;
  double draw() noexcept;  // [0..1)
  std::uint64_t draw_bits() noexcept;
  void record(EventKind kind, TimePoint at) noexcept;
  void record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept;

  std::vector<Slot> slots_;
  EventRing* events_;
  Duration byte_time_;
  double supply_, supply_resistance_;
  std::uint64_t random_;
  TimePoint now_;          // advanced to here
  TimePoint plant_time_;   // integrated to here, less than one step behind
  TimePoint request_end_;  // the wire has carried all requests by then
  TimePoint answer_end_;   // and all answers by then
  TimePoint last_byte_;
  Queue<TimedByte, 4096> incoming_;
  Queue<TimedByte, 16384> outgoing_;
  std::array<std::uint8_t, 512> packet_{};
  std::size_t packet_size_ = 0;
  bool is_colliding_ = false;         // the packet being received began while answers were due
  std::size_t overlap_ = kNoOverlap;  // index in outgoing_ where a second answer falls on the first
  BusCounters counters_;
  Event scratch_;  // too large for a real-time thread's stack to be proud of
};

}  // namespace wallx::emulator
