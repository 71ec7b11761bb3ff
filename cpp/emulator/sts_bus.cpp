// Bus: instruction parsing, answers in order and in time, and the faults.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/sts_bus.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr std::uint8_t kPing = 0x01, kRead = 0x02, kWrite = 0x03, kRegWrite = 0x04, kAction = 0x05,
                       kSyncRead = 0x82, kSyncWrite = 0x83;
constexpr Duration kIdleReset = std::chrono::milliseconds(10);  // silence that ends an unfinished packet
constexpr Duration kBootTime = std::chrono::milliseconds(100);

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

StsBus::Slot* StsBus::listener(int id) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo.id() == id && !slot.is_silent && now_ >= slot.boots_at) return &slot;
  }
  return nullptr;
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
  event.fault = FaultKind::none;
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
        if (!slot.is_silent && now_ >= slot.boots_at) body(slot);
      }
    } else if (Slot* slot = listener(event.id)) {
      body(*slot);
    } else {
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
    if (Slot* slot = listener(id)) {
      slot->servo.read(parameters[0], out);
      answer(*slot, out);
    } else {
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
    if (Slot* slot = listener(parameters[at])) {
      apply(event, *slot, slot->servo.write(parameters[0], parameters.subspan(at + 1, group - 1)));
    } else {
      ++counters_.unanswered;
    }
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
  std::array<std::uint8_t, kNumRegisters + 6> bytes;
  const std::size_t size = parameters.size() + 6;
  bytes[0] = bytes[1] = 0xFF;
  bytes[2] = slot.answer_id < 0 ? slot.servo.id() : static_cast<std::uint8_t>(slot.answer_id);
  bytes[3] = static_cast<std::uint8_t>(parameters.size() + 2);
  bytes[4] = slot.servo.error_bits();
  std::copy(parameters.begin(), parameters.end(), bytes.begin() + 5);
  bytes[size - 1] = packet_sum(&bytes[2], &bytes[size - 1]);

  const TimePoint begin = answer_end_ + std::chrono::microseconds(2 * slot.servo.value(reg::kReturnDelay));
  answer_end_ = begin + byte_time_ * static_cast<int>(size);

  // always the same number of draws per answer: a changed probability does not shift the rest of the run
  const double drop_draw = draw(), corrupt_draw = draw();
  const std::uint64_t place = draw_bits();
  if (drop_draw < slot.drop) {
    ++counters_.answers_dropped;
    record_fault(FaultKind::answer_dropped, slot.servo.id(), 0);
    return;
  }
  if (corrupt_draw < slot.corrupt) {
    ++counters_.answers_corrupted;
    bytes[(place >> 8) % size] ^= static_cast<std::uint8_t>(1 + (place & 0xFF) % 255);
    record_fault(FaultKind::answer_corrupted, slot.servo.id(), 0);
  }
  if (outgoing_.size + size > outgoing_.items.size()) {
    ++counters_.input_lost;
    return;
  }
  ++counters_.answers;
  for (std::size_t i = 0; i < size; ++i) {
    outgoing_.push({begin + byte_time_ * static_cast<int>(i + 1), bytes[i], i + 1 == size});
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

bool StsBus::set_drop(double probability, int id) noexcept {
  bool is_found = false;
  for (Slot& slot : slots_) {
    if (id != kBroadcastId && slot.servo.id() != id) continue;
    slot.drop = probability;
    is_found = true;
  }
  if (is_found) record_fault(FaultKind::set_drop, id, probability);
  return is_found;
}

bool StsBus::set_corrupt(double probability, int id) noexcept {
  bool is_found = false;
  for (Slot& slot : slots_) {
    if (id != kBroadcastId && slot.servo.id() != id) continue;
    slot.corrupt = probability;
    is_found = true;
  }
  if (is_found) record_fault(FaultKind::set_corrupt, id, probability);
  return is_found;
}

bool StsBus::silence(int id, bool is_silent) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo.id() != id) continue;
    slot.is_silent = is_silent;
    record_fault(is_silent ? FaultKind::silence : FaultKind::unsilence, id, 0);
    return true;
  }
  return false;
}

bool StsBus::block(int id, bool is_blocked) noexcept {
  StsServo* servo = find(id);
  if (!servo) return false;
  servo->set_blocked(is_blocked);
  record_fault(is_blocked ? FaultKind::block : FaultKind::free, id, 0);
  return true;
}

bool StsBus::brown_out(int id) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo.id() != id) continue;
    slot.servo.power_cycle();
    slot.boots_at = now_ + kBootTime;
    record_fault(FaultKind::brownout, id, 0);
    return true;
  }
  return false;
}

bool StsBus::set_wrong_id(int id, int answer_id) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo.id() != id) continue;
    slot.answer_id = answer_id == id ? -1 : answer_id & 0xFF;
    record_fault(FaultKind::wrong_id, id, answer_id);
    return true;
  }
  return false;
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

void StsBus::record_fault(FaultKind fault, int id, double value) noexcept {
  if (!events_) return;
  Event event;
  event.at = now_;
  event.kind = EventKind::fault;
  event.fault = fault;
  event.id = static_cast<std::uint8_t>(id);
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
