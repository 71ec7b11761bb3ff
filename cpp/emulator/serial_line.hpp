// SerialLine: a half-duplex line with its servos: the wire's pace, the plant, and the faults of faults.hpp; a
// family adds what its packets look like. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/time.hpp"
#include "emulator/event_ring.hpp"
#include "emulator/servo.hpp"
#include "emulator/world_plant.hpp"

namespace wallx::emulator {

inline constexpr std::uint8_t kBroadcastId = 254;
inline constexpr Duration kPlantStep = std::chrono::microseconds(500);

struct BusOptions {
  int baud_rate = 1'000'000;
  std::uint64_t seed = 0;
  TimePoint start{};               // the plant's time zero
  double supply = 12.0;            // without load, of servos made for 12 V; others get their share [V]
  double supply_resistance = 0.1;  // wiring shared by all servos     [Ohm]
  std::shared_ptr<WorldPlant> world =
      nullptr;  // moves the joints; none: every servo carries a link of its own
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
  std::uint64_t bulk_reads = 0, bulk_writes = 0, reboots = 0;  // Dynamixel only
  std::uint64_t answers = 0;                                   // put on the line, corrupted ones included
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
  visit("bulk_reads", c.bulk_reads), visit("bulk_writes", c.bulk_writes), visit("reboots", c.reboots);
  visit("answers", c.answers), visit("answers_spoiled", c.answers_spoiled),
      visit("checksum_errors", c.checksum_errors);
  visit("malformed", c.malformed), visit("truncated", c.truncated);
  visit("unknown_instructions", c.unknown_instructions), visit("unanswered", c.unanswered);
  visit("collisions", c.collisions), visit("input_lost", c.input_lost);
}

// Deterministic and pure: time enters through the arguments only. Two runs of one seed, fed alike, are
// bit-equal. Not thread-safe. Apart from the constructor nothing allocates or throws, except where said.
class SerialLine {
 public:
  virtual ~SerialLine() = default;
  SerialLine(const SerialLine&) = delete;
  SerialLine& operator=(const SerialLine&) = delete;

  virtual const char* family() const noexcept = 0;

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
  // Whether the line falls silent then: somebody waits for that byte.
  bool is_last(TimePoint event) const noexcept;
  TimePoint now() const noexcept { return now_; }

  static constexpr FaultSupport kFaults =
      FaultSupport::all_but({FaultKind::non_fd, FaultKind::bus_off});  // there is no CAN
  // Check first with check_fault(). The whole line and every drive: kEveryDrive. False: no such servo.
  // What happens to the port itself (unplug) is only recorded here; its host does it.
  bool set_fault(FaultKind kind, int id, double value) noexcept;
  bool clear_fault(FaultKind kind, int id) noexcept;

  std::size_t num_servos() const noexcept { return slots_.size(); }
  Servo& servo(std::size_t index) noexcept { return *slots_[index].servo; }
  const Servo& servo(std::size_t index) const noexcept { return *slots_[index].servo; }
  Servo* find(int id) noexcept;
  const BusCounters& counters() const noexcept { return counters_; }
  void record_state() noexcept;  // pushes one state event
  const WorldPlant* world() const noexcept { return world_.get(); }

 protected:
  static constexpr std::size_t kLongestAnswer =
      kMaxRegisters + 64;  // bytes of one packet, whatever its family
  struct Slot {
    std::unique_ptr<Servo> servo;
    TimePoint boots_at{};
    TimePoint babbles_at{};
    std::array<std::uint8_t, kLongestAnswer> late{};  // the answer that is kept back
    std::size_t late_size = 0;
    // the id it listens to; another's with the fault duplicate_id
    int listens_to() const noexcept {
      const FaultSet& faults = servo->faults();
      return faults.has(FaultKind::duplicate_id) ? static_cast<int>(faults.value(FaultKind::duplicate_id))
                                                 : servo->id();
    }
  };

  // `events` may be null and must outlive the line. Throws ConfigError: a bad rate.
  SerialLine(const BusOptions& options, EventRing* events);
  // Throws ConfigError: none, too many, an id twice.
  void add_servos(std::vector<std::unique_ptr<Servo>> servos);

  // What a family implements. `packet` is what has arrived and was not consumed, never empty; the answer is
  // how many of its first bytes are done with, 0: more must come. A whole request ends in execute().
  virtual std::size_t consume(std::span<const std::uint8_t> packet, TimePoint at) noexcept = 0;
  // false: impossible length or address
  virtual bool execute_one(Event& event, std::uint8_t instruction,
                           std::span<const std::uint8_t> parameters) noexcept = 0;
  // Writes one answer of a servo; returns its size, at most kLongestAnswer.
  virtual std::size_t seal(std::uint8_t id, std::uint8_t error, std::span<const std::uint8_t> parameters,
                           std::span<std::uint8_t> out) const noexcept = 0;

  void execute(TimePoint at, std::uint8_t id, std::uint8_t instruction,
               std::span<const std::uint8_t> parameters) noexcept;
  bool is_listening(const Slot& slot, int id) const noexcept;
  // Two servos with one id answer at once. False: nobody listens.
  template <class Body>
  bool for_listeners(int id, Body&& body) noexcept;
  // Puts an answer on the line behind what is there, after the servo's own delay.
  void answer(Slot& slot, std::uint8_t error, std::span<const std::uint8_t> parameters) noexcept;
  // The same for bytes that are no whole answer; `wrong_length`: what leaves when the fault of that name
  // strikes. False: something else left, or nothing.
  bool send(Slot& slot, std::span<const std::uint8_t> answer,
            std::span<const std::uint8_t> wrong_length) noexcept;
  void apply(Event& event, const Slot& slot, const WriteEffect& effect) noexcept;
  void put_on_line(TimePoint begin, std::span<const std::uint8_t> bytes) noexcept;
  void wait_for_missing(std::size_t num_bytes) noexcept;  // the slot of an answer that does not come
  void record(EventKind kind, TimePoint at) noexcept;

  std::vector<Slot> slots_;
  BusCounters counters_;
  Duration byte_time_;
  TimePoint now_;         // advanced to here
  TimePoint answer_end_;  // the wire has carried all answers by then

 private:
  static constexpr std::size_t kNoOverlap = SIZE_MAX;
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
  void step_links(double supply_share) noexcept;
  void step_world(double supply_share) noexcept;
  double supply_of(const Slot& slot, double share) const noexcept;
  void take_byte(const TimedByte& byte) noexcept;
  std::size_t spoil(Slot& slot, std::span<const std::uint8_t> wrong_length, std::span<std::uint8_t> bytes,
                    std::size_t size) noexcept;
  void babble() noexcept;
  double draw() noexcept;  // [0..1)
  std::uint64_t draw_bits() noexcept;
  void record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept;

  EventRing* events_;
  double supply_, supply_resistance_;
  std::shared_ptr<WorldPlant> world_;
  int world_phase_ = 0;  // plant steps since the world's last one
  std::uint64_t random_;
  TimePoint plant_time_;   // integrated to here, less than one step behind
  TimePoint request_end_;  // the wire has carried all requests by then
  TimePoint last_byte_;
  Queue<TimedByte, 4096> incoming_;
  Queue<TimedByte, 16384> outgoing_;
  std::array<std::uint8_t, 2048> packet_{};
  std::size_t packet_size_ = 0;
  bool is_colliding_ = false;         // the packet being received began while answers were due
  std::size_t overlap_ = kNoOverlap;  // index in outgoing_ where a second answer falls on the first
  Event scratch_;                     // too large for a real-time thread's stack to be proud of
};

// two servos with one id answer at once: on an open-drain line a 0 wins
template <class Body>
bool SerialLine::for_listeners(int id, Body&& body) noexcept {
  const TimePoint begin = answer_end_;
  const std::size_t first = outgoing_.size;
  TimePoint end = begin;
  bool is_heard = false;
  for (Slot& slot : slots_) {
    if (!is_listening(slot, id)) continue;
    overlap_ = is_heard ? first : kNoOverlap;
    answer_end_ = begin;
    body(slot);
    end = std::max(end, answer_end_);
    is_heard = true;
  }
  overlap_ = kNoOverlap;
  answer_end_ = end;
  return is_heard;
}

}  // namespace wallx::emulator
