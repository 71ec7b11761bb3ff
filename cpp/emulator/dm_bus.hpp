// DM bus: a CAN line with Damiao motors on it: arbitration and bit times, what each motor makes of a frame,
// and what faults.hpp asks for. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/time.hpp"
#include "emulator/can_wire.hpp"
#include "emulator/dm_motor.hpp"
#include "emulator/event_ring.hpp"
#include "emulator/faults.hpp"

namespace wallx::emulator {

inline constexpr std::size_t kMaxMotors = kMaxServos;
inline constexpr Duration kDmPlantStep = std::chrono::microseconds(500);

struct DmBusOptions {
  WireRates rates;
  std::uint64_t seed = 0;
  TimePoint start{};                // the plant's time zero
  double supply = 24;               // without load                    [V]
  double supply_resistance = 0.02;  // wiring shared by all motors     [Ohm]
};

struct TimedFrame {
  TimePoint at;  // when its last bit was on the line
  WireFrame frame;
};

struct DmBusCounters {
  std::uint64_t frames_received = 0;  // from the host, once the line has carried them
  std::uint64_t controls = 0, enables = 0, disables = 0, reads = 0, writes = 0, stores = 0, refreshes = 0;
  std::uint64_t answers = 0;          // that the line carried
  std::uint64_t answers_spoiled = 0;  // by a fault that came true: dropped ones and damaged ones
  std::uint64_t unanswered = 0;       // addressed to a motor that is absent, silent or restarting
  std::uint64_t wrong_format = 0;     // FD on a classic line, or a rate the line does not have: lost
  std::uint64_t lost = 0;             // beyond the queues, or while the host was bus-off
  std::uint64_t busy_ns = 0;          // time the line was occupied
};

// visit(name, value) for each of them, in a fixed order
template <class Visit>
void for_each_counter(const DmBusCounters& c, Visit&& visit) {
  visit("frames_received", c.frames_received), visit("controls", c.controls), visit("enables", c.enables);
  visit("disables", c.disables), visit("reads", c.reads), visit("writes", c.writes);
  visit("stores", c.stores), visit("refreshes", c.refreshes), visit("answers", c.answers);
  visit("answers_spoiled", c.answers_spoiled), visit("unanswered", c.unanswered);
  visit("wrong_format", c.wrong_format), visit("lost", c.lost), visit("busy_ns", c.busy_ns);
}

// Deterministic and pure: time enters through the arguments only. Two runs of one seed, fed alike, are
// bit-equal. Not thread-safe. Apart from the constructor nothing allocates or throws.
class DmBus {
 public:
  // `events` may be null and must outlive the bus. Throws ConfigError: no motor, too many, an id twice, a bad
  // rate.
  DmBus(std::span<const DmSetup> motors, const DmBusOptions& options, EventRing* events = nullptr);

  // A frame that the host hands to its controller at `now`; it waits for the line like everybody's.
  void receive(const WireFrame& frame, TimePoint now) noexcept;
  // Brings plant and line to `now`.
  void advance(TimePoint now) noexcept;
  // Takes the motors' frames that have reached the host by `now`, oldest first; call advance(now) first.
  std::size_t due(TimePoint now, std::span<TimedFrame> out) noexcept;
  // When something changes on the line; none: it is quiet.
  std::optional<TimePoint> next_event() const noexcept;
  TimePoint now() const noexcept { return now_; }

  static constexpr FaultSupport kFaults = FaultSupport::all_but({});
  // Check first with check_fault(). The whole line and every motor: kEveryDrive. False: no such motor.
  // What happens to the port itself (unplug) is done by its host.
  bool set_fault(FaultKind kind, int id, double value) noexcept;
  bool clear_fault(FaultKind kind, int id) noexcept;

  std::size_t num_motors() const noexcept { return slots_.size(); }
  DmMotor& motor(std::size_t index) noexcept { return slots_[index].motor; }
  const DmMotor& motor(std::size_t index) const noexcept { return slots_[index].motor; }
  DmMotor* find(int id) noexcept;
  const DmBusCounters& counters() const noexcept { return counters_; }
  void record_state() noexcept;  // pushes one state event: positions and goals [urad]

 private:
  struct Slot {
    DmMotor motor;
    TimePoint boots_at{};
    TimePoint babbles_at{};
    WireFrame late{};  // the answer that is kept back
    bool has_late = false;
    // the id it listens to; another's with the fault duplicate_id
    int listens_to() const noexcept {
      const FaultSet& faults = motor.faults();
      return faults.has(FaultKind::duplicate_id) ? static_cast<int>(faults.value(FaultKind::duplicate_id))
                                                 : motor.id();
    }
  };
  struct Waiting {
    TimePoint ready;
    WireFrame frame;
    bool is_hosts = false;
  };
  template <class T, std::size_t kCapacity>
  struct Queue {
    std::array<T, kCapacity> items;
    std::size_t first = 0, size = 0;
    const T& front() const { return items[first]; }
    bool push(const T& item) {
      if (size == kCapacity) return false;
      items[(first + size++) % kCapacity] = item;
      return true;
    }
    void pop() { first = (first + 1) % kCapacity, --size; }
  };

  void integrate(TimePoint until) noexcept;
  void step_plant() noexcept;
  void start_next() noexcept;
  std::optional<TimePoint> next_start() const noexcept;
  void take_from_host(const WireFrame& frame, TimePoint at) noexcept;
  void ask(const WireFrame& frame, TimePoint at) noexcept;
  bool is_listening(const Slot& slot, int id) const noexcept;
  void answer(Slot& slot, const WireFrame& request, const std::array<std::uint8_t, 8>& data,
              TimePoint at) noexcept;
  void enqueue(const WireFrame& frame, TimePoint ready) noexcept;
  void babble() noexcept;
  double draw() noexcept;  // [0..1)
  std::uint64_t draw_bits() noexcept;
  void record(const WireFrame& frame, bool is_answer, TimePoint at) noexcept;
  void record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept;

  std::vector<Slot> slots_;
  EventRing* events_;
  WireRates rates_;
  double supply_, supply_resistance_;
  std::uint64_t random_;
  TimePoint now_;         // advanced to here
  TimePoint plant_time_;  // integrated to here, less than one step behind
  TimePoint line_free_;   // the line is free from here on
  std::optional<Waiting> on_line_;
  bool is_off_ = false;
  Queue<Waiting, 512> from_host_;
  std::array<Waiting, 128> from_motors_;
  std::size_t num_from_motors_ = 0;
  Queue<TimedFrame, 1024> outgoing_;
  DmBusCounters counters_;
  Event scratch_;  // too large for a real-time thread's stack to be proud of
};

}  // namespace wallx::emulator
