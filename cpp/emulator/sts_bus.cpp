// Bus: instruction parsing, answers in order and in time, and the faults.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/sts_bus.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr std::uint8_t kPing = 0x01, kRead = 0x02, kWrite = 0x03, kRegWrite = 0x04, kAction = 0x05,
                       kSyncRead = 0x82, kSyncWrite = 0x83;
constexpr Duration kIdleReset = std::chrono::milliseconds(10);  // silence that ends an unfinished packet
constexpr std::size_t kLongestAnswer = kNumRegisters + 6;

// the complement of the low byte of the sum over everything between header and checksum
std::uint8_t packet_sum(const std::uint8_t* first, const std::uint8_t* last) {
  unsigned sum = 0;
  while (first != last) sum += *first++;
  return static_cast<std::uint8_t>(0xFF - (sum & 0xFF));
}

bool fits(std::size_t address, std::size_t size) { return size > 0 && address + size <= kNumRegisters; }

}  // namespace

StsBus::StsBus(std::span<const ServoSetup> servos, const BusOptions& options, EventRing* events)
    : events_(events),
      supply_(options.supply),
      supply_resistance_(options.supply_resistance),
      random_(options.seed),
      now_(options.start),
      plant_time_(options.start),
      request_end_(options.start),
      answer_end_(options.start),
      last_byte_(options.start) {
  if (servos.empty() || servos.size() > kMaxServos) {
    throw ConfigError("an emulated bus needs 1 to " + std::to_string(kMaxServos) + " servos, got " +
                      std::to_string(servos.size()));
  }
  if (options.baud_rate < 9600 || options.baud_rate > 4'000'000) {
    throw ConfigError("baud rate " + std::to_string(options.baud_rate) + " must be 9600..4000000");
  }
  byte_time_ = std::chrono::nanoseconds(10'000'000'000LL / options.baud_rate);
  for (const ServoSetup& setup : servos) {
    if (find(setup.id)) {
      throw ConfigError("id " + std::to_string(setup.id) + " is given to two servos of one emulated bus");
    }
    slots_.push_back(Slot{StsServo(setup)});
  }
}

StsServo* StsBus::find(int id) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo.id() == id) return &slot.servo;
  }
  return nullptr;
}

bool StsBus::is_listening(const Slot& slot, int id) const noexcept {
  return slot.listens_to() == id && !slot.servo.faults().has(FaultKind::silent) && now_ >= slot.boots_at;
}

// two servos with one id answer at once: on an open-drain line a 0 wins
template <class Body>
bool StsBus::for_listeners(int id, Body&& body) noexcept {
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

void StsBus::receive(std::span<const std::uint8_t> bytes, TimePoint now) noexcept {
  if (bytes.empty()) return;
  now = std::max(now, now_);
  request_end_ = std::max(request_end_, now);
  for (const std::uint8_t byte : bytes) {
    ++counters_.bytes_received;
    if (!incoming_.push({request_end_ + byte_time_, byte})) {
      ++counters_.input_lost;
      continue;
    }
    request_end_ += byte_time_;
  }
}

void StsBus::advance(TimePoint now) noexcept {
  while (incoming_.size && incoming_.front().at <= now) {
    const TimedByte byte = incoming_.front();
    incoming_.pop();
    integrate(byte.at);
    take_byte(byte);
  }
  integrate(now);
}

void StsBus::integrate(TimePoint until) noexcept {
  while (plant_time_ + kPlantStep <= until) step_plant();
  now_ = std::max(now_, until);
}

void StsBus::step_plant() noexcept {
  double current = 0;
  for (const Slot& slot : slots_) current += slot.servo.current();
  const double supply = std::max(0.0, supply_ - supply_resistance_ * current);

  // the servos are one serial arm: a link's pitch is the sum of the joints below it, and every joint carries
  // the weight of all links above it
  std::array<double, kMaxServos> moment{};
  double pitch = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    pitch += slots_[i].servo.pitch_change();
    moment[i] = slots_[i].servo.setup().gravity * std::cos(pitch);
  }
  double carried = 0;
  for (std::size_t i = slots_.size(); i-- > 0;) {
    carried += moment[i];
    moment[i] = -slots_[i].servo.setup().pitch_sign * carried;
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const bool is_powered = plant_time_ >= slots_[i].boots_at;
    slots_[i].servo.step(to_seconds(kPlantStep), moment[i], is_powered ? supply : 0.0);
  }
  plant_time_ += kPlantStep;
  babble();
}

void StsBus::take_byte(const TimedByte& byte) noexcept {
  if (packet_size_ > 0 && byte.at - byte_time_ - last_byte_ > kIdleReset) {
    ++counters_.truncated;
    record(EventKind::truncated, byte.at);
    packet_size_ = 0;
  }
  if (packet_size_ == 0 && byte.at - byte_time_ < answer_end_ && !is_colliding_) {
    is_colliding_ = true;  // counted, not garbled: a host that never collides is what a test asks for
    ++counters_.collisions;
    record(EventKind::collision, byte.at);
  }
  last_byte_ = byte.at;
  packet_[packet_size_++] = byte.byte;
  // after a failure the search goes on behind the first byte: a good packet inside a broken one is found
  const auto skip = [this](std::size_t count) {
    std::copy(packet_.begin() + static_cast<std::ptrdiff_t>(count),
              packet_.begin() + static_cast<std::ptrdiff_t>(packet_size_), packet_.begin());
    packet_size_ -= count;
  };
  while (packet_size_ > 0) {
    if (packet_[0] != 0xFF || (packet_size_ > 1 && packet_[1] != 0xFF) ||
        (packet_size_ > 2 && packet_[2] == 0xFF) || (packet_size_ > 3 && packet_[3] < 2)) {
      skip(1);
      continue;
    }
    if (packet_size_ < 4) return;
    const std::size_t total = packet_[3] + 4u;
    if (packet_size_ < total) return;
    if (packet_sum(&packet_[2], &packet_[total - 1]) != packet_[total - 1]) {
      ++counters_.checksum_errors;
      record(EventKind::checksum_error, byte.at);
      skip(1);
      continue;
    }
    execute(byte.at);
    skip(total);
  }
}

void StsBus::execute(TimePoint at) noexcept {
  is_colliding_ = false;
  const std::uint8_t instruction = packet_[4];
  const std::span<const std::uint8_t> parameters(&packet_[5], packet_[3] - 2u);
  Event& event = scratch_;
  event.at = at;
  event.kind = EventKind::instruction;
  event.instruction = instruction;
  event.id = packet_[2];
  event.num_goals = event.num_torques = 0;
  event.size = static_cast<std::uint16_t>(parameters.size());
  std::copy(parameters.begin(), parameters.end(), event.parameters.begin());
  answer_end_ = std::max(answer_end_, at);

  const std::uint64_t unknown_before = counters_.unknown_instructions;
  const bool is_whole = execute_one(event, instruction, parameters);
  if (!is_whole) {
    ++counters_.malformed;
    event.kind = EventKind::malformed;
  } else if (counters_.unknown_instructions == unknown_before) {
    ++counters_.instructions;
  }
  if (events_) events_->push(event);
}

bool StsBus::execute_one(Event& event, std::uint8_t instruction,
                         std::span<const std::uint8_t> parameters) noexcept {
  const bool is_broadcast = event.id == kBroadcastId;
  const auto for_addressed = [&](auto&& body) {
    if (is_broadcast) {
      for (Slot& slot : slots_) {
        if (is_listening(slot, slot.listens_to())) body(slot);
      }
    } else if (!for_listeners(event.id, body)) {
      ++counters_.unanswered;
    }
  };

  switch (instruction) {
    case kPing:
      if (!parameters.empty()) return false;
      ++counters_.pings;
      for_addressed([&](Slot& slot) { answer(slot, {}); });
      return true;
    case kRead: {
      if (parameters.size() != 2 || !fits(parameters[0], parameters[1]) || is_broadcast) return false;
      ++counters_.reads;
      for_addressed([&](Slot& slot) {
        std::array<std::uint8_t, kNumRegisters> data;
        const std::span<std::uint8_t> out(data.data(), parameters[1]);
        slot.servo.read(parameters[0], out);
        answer(slot, out);
      });
      return true;
    }
    case kWrite:
    case kRegWrite:
      if (parameters.size() < 2 || !fits(parameters[0], parameters.size() - 1)) return false;
      ++(instruction == kWrite ? counters_.writes : counters_.reg_writes);
      for_addressed([&](Slot& slot) {
        if (instruction == kRegWrite) {
          slot.servo.prepare_write(parameters[0], parameters.subspan(1));
        } else {
          apply(event, slot, slot.servo.write(parameters[0], parameters.subspan(1)));
        }
        answer_write(slot, is_broadcast);
      });
      return true;
    case kAction:
      if (!parameters.empty()) return false;
      ++counters_.actions;
      for_addressed([&](Slot& slot) {
        apply(event, slot, slot.servo.commit_write());
        answer_write(slot, is_broadcast);
      });
      return true;
    case kSyncRead:
      return is_broadcast && sync_read(parameters);
    case kSyncWrite:
      return is_broadcast && sync_write(event, parameters);
    default:
      ++counters_.unknown_instructions;
      return true;
  }
}

bool StsBus::sync_read(std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() < 3 || !fits(parameters[0], parameters[1])) return false;
  ++counters_.sync_reads;
  std::array<std::uint8_t, kNumRegisters> data;
  const std::span<std::uint8_t> out(data.data(), parameters[1]);
  for (const std::uint8_t id : parameters.subspan(2)) {
    const bool is_heard = for_listeners(id, [&](Slot& slot) {
      slot.servo.read(parameters[0], out);
      answer(slot, out);
    });
    if (!is_heard) {
      // the others wait for the missing one's slot to pass
      ++counters_.unanswered;
      answer_end_ += byte_time_ * static_cast<int>(out.size() + 6);
    }
  }
  return true;
}

bool StsBus::sync_write(Event& event, std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() < 4 || !fits(parameters[0], parameters[1])) return false;
  const std::size_t group = parameters[1] + 1u;
  if ((parameters.size() - 2) % group != 0) return false;
  ++counters_.sync_writes;
  for (std::size_t at = 2; at < parameters.size(); at += group) {
    const bool is_heard = for_listeners(parameters[at], [&](Slot& slot) {
      apply(event, slot, slot.servo.write(parameters[0], parameters.subspan(at + 1, group - 1)));
    });
    if (!is_heard) ++counters_.unanswered;
  }
  return true;
}

void StsBus::apply(Event& event, const Slot& slot, const WriteEffect& effect) noexcept {
  // a sync write may name a servo many times: what does not fit the event is still done, and still in `data`
  if (effect.is_goal && event.num_goals < kMaxServos) {
    event.goal_ids[event.num_goals] = slot.servo.id();
    event.goals[event.num_goals++] = effect.goal_ticks;
  }
  if (effect.is_torque && event.num_torques < kMaxServos) {
    event.torque_ids[event.num_torques] = slot.servo.id();
    event.torques[event.num_torques++] = static_cast<std::uint8_t>(effect.torque);
  }
}

void StsBus::answer_write(Slot& slot, bool is_broadcast) noexcept {
  if (!is_broadcast && slot.servo.value(reg::kResponseLevel) != 0) answer(slot, {});
}

void StsBus::answer(Slot& slot, std::span<const std::uint8_t> parameters) noexcept {
  const FaultSet& faults = slot.servo.faults();
  std::array<std::uint8_t, 2 * kLongestAnswer + 2> bytes;  // one byte too many, sent twice
  std::size_t size = parameters.size() + 6;
  const int id = faults.has(FaultKind::wrong_id) ? static_cast<int>(faults.value(FaultKind::wrong_id))
                                                 : slot.listens_to();
  bytes[0] = bytes[1] = 0xFF;
  bytes[2] = static_cast<std::uint8_t>(id);
  bytes[3] = static_cast<std::uint8_t>(parameters.size() + 2);
  bytes[4] = slot.servo.error_bits();
  std::copy(parameters.begin(), parameters.end(), bytes.begin() + 5);
  bytes[size - 1] = packet_sum(&bytes[2], &bytes[size - 1]);

  const TimePoint begin = answer_end_ + std::chrono::microseconds(2 * slot.servo.value(reg::kReturnDelay)) +
                          to_duration(Seconds(faults.value(FaultKind::delay)));
  // a spoiled answer keeps its time on the wire, a longer one takes more
  answer_end_ = begin + byte_time_ * static_cast<int>(size);
  size = spoil(slot, bytes, size);
  answer_end_ = std::max(answer_end_, begin + byte_time_ * static_cast<int>(size));
  put_on_line(begin, {bytes.data(), size});
}

// Lets the slot's faults loose on an answer; returns how many bytes leave.
std::size_t StsBus::spoil(Slot& slot, std::span<std::uint8_t> bytes, std::size_t size) noexcept {
  const FaultSet& faults = slot.servo.faults();
  // always the same number of draws per answer: a changed chance does not shift the rest of the run
  std::array<double, 7> draws;
  for (double& value : draws) value = draw();
  const std::uint64_t place = draw_bits();
  bool is_spoiled = false;
  const auto hits = [&](FaultKind kind) {
    if (!(draws[static_cast<std::size_t>(kind)] < faults.value(kind))) return false;
    is_spoiled = true;
    record_fault(kind, FaultAction::hit, slot.servo.id(), faults.value(kind));
    return true;
  };
  static_assert(static_cast<std::size_t>(FaultKind::late) == 6, "the kinds with a chance come first");

  if (hits(FaultKind::late)) {
    std::array<std::uint8_t, kLongestAnswer> now_due = slot.late;
    const std::size_t now_size = std::exchange(slot.late_size, size);
    std::copy_n(bytes.begin(), size, slot.late.begin());
    std::copy_n(now_due.begin(), now_size, bytes.begin());
    size = now_size;
  }
  if (size > 0 && hits(FaultKind::wrong_length)) {
    size += size > 6 ? -1 : 1;
    bytes[3] = static_cast<std::uint8_t>(size - 4);
    if (size == 7) bytes[5] = 0;
    bytes[size - 1] = packet_sum(&bytes[2], &bytes[size - 1]);
  }
  if (size > 0 && hits(FaultKind::corrupt)) {
    bytes[(place >> 8) % size] ^= static_cast<std::uint8_t>(1 + (place & 0xFF) % 255);
  }
  if (size > 0 && hits(FaultKind::repeat)) {
    std::copy_n(bytes.begin(), size, bytes.begin() + static_cast<std::ptrdiff_t>(size));
    size *= 2;
  } else if (size > 0 && hits(FaultKind::noise)) {
    const std::size_t count = 1 + (place >> 16) % 8;
    std::copy_backward(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size),
                       bytes.begin() + static_cast<std::ptrdiff_t>(size + count));
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(place >> (i * 7));
    size += count;
  }
  if (size > 0 && hits(FaultKind::truncate)) size /= 2;
  if (hits(FaultKind::drop)) size = 0;
  counters_.answers_spoiled += is_spoiled;
  return size;
}

void StsBus::put_on_line(TimePoint begin, std::span<const std::uint8_t> bytes) noexcept {
  if (bytes.empty()) return;
  if (outgoing_.size + bytes.size() > outgoing_.items.size()) {
    ++counters_.input_lost;
    return;
  }
  ++counters_.answers;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (overlap_ + i < outgoing_.size && overlap_ != kNoOverlap) {
      outgoing_.at(overlap_ + i).byte &= bytes[i];
    } else {
      outgoing_.push({begin + byte_time_ * static_cast<int>(i + 1), bytes[i], i + 1 == bytes.size()});
    }
  }
}

// a status packet that nobody asked for
void StsBus::babble() noexcept {
  for (Slot& slot : slots_) {
    const double rate = slot.servo.faults().value(FaultKind::babble);
    const TimePoint from = std::max(slot.babbles_at, slot.boots_at);
    if (rate <= 0 || plant_time_ < from || answer_end_ > plant_time_) continue;
    slot.babbles_at = plant_time_ + to_duration(Seconds(1 / rate));
    std::array<std::uint8_t, 6> bytes{0xFF, 0xFF, slot.servo.id(), 2, slot.servo.error_bits(), 0};
    bytes[5] = packet_sum(&bytes[2], &bytes[5]);
    answer_end_ = plant_time_ + byte_time_ * static_cast<int>(bytes.size());
    put_on_line(plant_time_, bytes);
  }
}

std::size_t StsBus::due(TimePoint now, std::span<TimedByte> out) noexcept {
  std::size_t count = 0;
  while (count < out.size() && outgoing_.size && outgoing_.front().at <= now) {
    out[count++] = outgoing_.front();
    outgoing_.pop();
  }
  counters_.bytes_sent += count;
  return count;
}

std::optional<TimePoint> StsBus::next_event() const noexcept {
  std::optional<TimePoint> next;
  if (incoming_.size) next = incoming_.at(incoming_.size - 1).at;
  for (std::size_t i = 0; i < outgoing_.size; ++i) {
    if (!outgoing_.at(i).ends_answer) continue;
    if (!next || outgoing_.at(i).at < *next) next = outgoing_.at(i).at;
    break;
  }
  return next;
}

bool StsBus::set_fault(FaultKind kind, int id, double value) noexcept {
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (fault_row(kind).scope == FaultScope::line || (id != kEveryDrive && slot.servo.id() != id)) continue;
    is_found = true;
    slot.servo.set_fault(kind, value);
    if (kind == FaultKind::brown_out) slot.boots_at = now_ + to_duration(Seconds(value));
    if (kind == FaultKind::late) slot.late_size = 0;
  }
  if (is_found) record_fault(kind, FaultAction::set, id, value);
  return is_found;
}

bool StsBus::clear_fault(FaultKind kind, int id) noexcept {
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (id != kEveryDrive && slot.servo.id() != id) continue;
    is_found = true;
    slot.servo.clear_fault(kind);
  }
  if (is_found) record_fault(kind, FaultAction::cleared, id, 0);
  return is_found;
}

void StsBus::record_state() noexcept {
  if (!events_) return;
  Event& event = scratch_;
  event.at = now_;
  event.kind = EventKind::state;
  event.num_goals = event.num_torques = static_cast<std::uint8_t>(slots_.size());
  event.size = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const StsServo& servo = slots_[i].servo;
    event.goal_ids[i] = event.torque_ids[i] = servo.id();
    event.positions[i] = servo.present_ticks();
    event.goals[i] = servo.goal_ticks();
    event.torques[i] = servo.torque();
  }
  events_->push(event);
}

void StsBus::record(EventKind kind, TimePoint at) noexcept {
  if (!events_) return;
  Event event;
  event.at = at;
  event.kind = kind;
  events_->push(event);
}

void StsBus::record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept {
  if (!events_) return;
  Event event;
  event.at = now_;
  event.kind = EventKind::fault;
  event.fault = fault;
  event.action = action;
  event.fault_id = static_cast<std::int16_t>(id);
  event.value = value;
  events_->push(event);
}

// SplitMix64, by its published recurrence
std::uint64_t StsBus::draw_bits() noexcept {
  random_ += 0x9E3779B97F4A7C15u;
  std::uint64_t z = random_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double StsBus::draw() noexcept { return static_cast<double>(draw_bits() >> 11) * 0x1.0p-53; }

}  // namespace wallx::emulator
