// SerialLine: answers in order and in time, the plant behind the servos, and the faults.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/serial_line.hpp"

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr Duration kIdleReset = std::chrono::milliseconds(10);  // silence that ends an unfinished packet
constexpr double kNominalSupply = 12;  // what BusOptions::supply is counted against [V]

}  // namespace

SerialLine::SerialLine(const BusOptions& options, EventRing* events)
    : now_(options.start),
      answer_end_(options.start),
      events_(events),
      supply_(options.supply),
      supply_resistance_(options.supply_resistance),
      world_(options.world),
      random_(options.seed),
      plant_time_(options.start),
      request_end_(options.start),
      last_byte_(options.start) {
  if (options.baud_rate < 9600 || options.baud_rate > 4'000'000) {
    throw ConfigError("baud rate " + std::to_string(options.baud_rate) + " must be 9600..4000000");
  }
  byte_time_ = std::chrono::nanoseconds(10'000'000'000LL / options.baud_rate);
}

void SerialLine::add_servos(std::vector<std::unique_ptr<Servo>> servos) {
  if (servos.empty() || servos.size() > kMaxServos) {
    throw ConfigError("an emulated bus needs 1 to " + std::to_string(kMaxServos) + " servos, got " +
                      std::to_string(servos.size()));
  }
  for (std::unique_ptr<Servo>& servo : servos) {
    if (find(servo->id())) {
      throw ConfigError("id " + std::to_string(servo->id()) + " is given to two servos of one emulated bus");
    }
    slots_.push_back(Slot{.servo = std::move(servo)});
  }
  if (!world_) return;
  if (world_->joints.size() != slots_.size())
    throw ConfigError("the world has " + std::to_string(world_->joints.size()) + " joints for " +
                      std::to_string(slots_.size()) + " servos");
  for (std::size_t i = 0; i < slots_.size(); ++i) {  // the servos wake up where the world's joints are
    const WorldPlant::Joint& joint = world_->joints[i];
    slots_[i].servo->follow(0, joint.middle_ticks + *joint.position / kRadiansPerTick, *joint.velocity, {});
  }
}

Servo* SerialLine::find(int id) noexcept {
  for (Slot& slot : slots_) {
    if (slot.servo->id() == id) return slot.servo.get();
  }
  return nullptr;
}

bool SerialLine::is_listening(const Slot& slot, int id) const noexcept {
  return slot.listens_to() == id && !slot.servo->faults().has(FaultKind::silent) && now_ >= slot.boots_at;
}

void SerialLine::receive(std::span<const std::uint8_t> bytes, TimePoint now) noexcept {
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

void SerialLine::advance(TimePoint now) noexcept {
  while (incoming_.size && incoming_.front().at <= now) {
    const TimedByte byte = incoming_.front();
    incoming_.pop();
    integrate(byte.at);
    take_byte(byte);
  }
  integrate(now);
}

void SerialLine::integrate(TimePoint until) noexcept {
  while (plant_time_ + kPlantStep <= until) step_plant();
  now_ = std::max(now_, until);
}

void SerialLine::step_plant() noexcept {
  // one share for all supplies: servos of 5 V hang on a converter behind the 12 V that sag
  double current = 0;
  for (const Slot& slot : slots_) current += slot.servo->current();
  const double share = std::max(0.0, supply_ - supply_resistance_ * current) / kNominalSupply;

  world_ ? step_world(share) : step_links(share);
  plant_time_ += kPlantStep;
  babble();
}

double SerialLine::supply_of(const Slot& slot, double share) const noexcept {
  return plant_time_ >= slot.boots_at ? share * slot.servo->nominal_supply() : 0.0;
}

void SerialLine::step_links(double supply_share) noexcept {
  // the servos are one serial arm: a link's pitch is the sum of the joints below it, and every joint carries
  // the weight of all links above it
  std::array<double, kMaxServos> moment{};
  double pitch = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    pitch += slots_[i].servo->pitch_change();
    moment[i] = slots_[i].servo->setup().gravity * std::cos(pitch);
  }
  double carried = 0;
  for (std::size_t i = slots_.size(); i-- > 0;) {
    carried += moment[i];
    moment[i] = -slots_[i].servo->setup().pitch_sign * carried;
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].servo->step(to_seconds(kPlantStep), moment[i], supply_of(slots_[i], supply_share));
  }
}

void SerialLine::step_world(double supply_share) noexcept {
  std::array<Servo::Drive, kMaxServos> drives;
  for (std::size_t i = 0; i < slots_.size(); ++i)
    drives[i] = slots_[i].servo->drive(to_seconds(kPlantStep), supply_of(slots_[i], supply_share));
  if (++world_phase_ == world_->plant_steps) {
    world_phase_ = 0;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const WorldPlant::Joint& joint = world_->joints[i];
      *joint.force = drives[i].push - drives[i].braking * *joint.velocity;
    }
    std::array<double, kMaxServos> before;
    for (std::size_t i = 0; i < slots_.size(); ++i) before[i] = *world_->joints[i].position;
    world_->step(world_->model, world_->data);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].servo->faults().has(FaultKind::block)) continue;
      *world_->joints[i].position = before[i];
      *world_->joints[i].velocity = 0;
    }
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const WorldPlant::Joint& joint = world_->joints[i];
    slots_[i].servo->follow(to_seconds(kPlantStep), joint.middle_ticks + *joint.position / kRadiansPerTick,
                            *joint.velocity, drives[i]);
  }
}

void SerialLine::take_byte(const TimedByte& byte) noexcept {
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
  while (packet_size_ > 0) {
    const std::size_t count = consume({packet_.data(), packet_size_}, byte.at);
    if (count == 0) break;
    std::copy(packet_.begin() + static_cast<std::ptrdiff_t>(count),
              packet_.begin() + static_cast<std::ptrdiff_t>(packet_size_), packet_.begin());
    packet_size_ -= count;
  }
}

void SerialLine::execute(TimePoint at, std::uint8_t id, std::uint8_t instruction,
                         std::span<const std::uint8_t> parameters) noexcept {
  is_colliding_ = false;
  Event& event = scratch_;
  event.at = at;
  event.kind = EventKind::instruction;
  event.instruction = instruction;
  event.id = id;
  event.num_goals = event.num_torques = 0;
  event.size = static_cast<std::uint16_t>(std::min(parameters.size(), event.parameters.size()));
  std::copy_n(parameters.begin(), event.size, event.parameters.begin());
  answer_end_ = std::max(answer_end_, at);
  for (Slot& slot : slots_) {
    if (is_listening(slot, slot.listens_to())) slot.servo->hear();
  }

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

void SerialLine::apply(Event& event, const Slot& slot, const WriteEffect& effect) noexcept {
  // a sync write may name a servo many times: what does not fit the event is still done, and still in `data`
  if (effect.is_goal && event.num_goals < kMaxServos) {
    event.goal_ids[event.num_goals] = slot.servo->id();
    event.goals[event.num_goals++] = effect.goal_ticks;
  }
  if (effect.is_torque && event.num_torques < kMaxServos) {
    event.torque_ids[event.num_torques] = slot.servo->id();
    event.torques[event.num_torques++] = static_cast<std::uint8_t>(effect.torque);
  }
}

void SerialLine::answer(Slot& slot, std::uint8_t error, std::span<const std::uint8_t> parameters) noexcept {
  const FaultSet& faults = slot.servo->faults();
  const auto id = static_cast<std::uint8_t>(
      faults.has(FaultKind::wrong_id) ? faults.value(FaultKind::wrong_id) : slot.listens_to());
  const std::uint8_t zero[1] = {0};
  std::array<std::uint8_t, kLongestAnswer> bytes, other;
  const std::size_t size = seal(id, error, parameters, bytes);
  const std::size_t other_size =
      seal(id, error, parameters.empty() ? zero : parameters.first(parameters.size() - 1), other);
  send(slot, {bytes.data(), size}, {other.data(), other_size});
}

bool SerialLine::send(Slot& slot, std::span<const std::uint8_t> answer,
                      std::span<const std::uint8_t> wrong_length) noexcept {
  const TimePoint begin = answer_end_ + slot.servo->return_delay() +
                          to_duration(Seconds(slot.servo->faults().value(FaultKind::delay)));
  // a spoiled answer keeps its time on the wire, a longer one takes more
  answer_end_ = begin + byte_time_ * static_cast<int>(answer.size());
  std::array<std::uint8_t, 2 * kLongestAnswer> bytes;  // may be sent twice
  std::copy(answer.begin(), answer.end(), bytes.begin());
  const std::size_t size = spoil(slot, wrong_length, bytes, answer.size());
  answer_end_ = std::max(answer_end_, begin + byte_time_ * static_cast<int>(size));
  put_on_line(begin, {bytes.data(), size});
  return size == answer.size();
}

void SerialLine::wait_for_missing(std::size_t num_bytes) noexcept {
  ++counters_.unanswered;
  answer_end_ += byte_time_ * static_cast<int>(num_bytes);
}

// Lets the slot's faults loose on an answer; returns how many bytes leave.
std::size_t SerialLine::spoil(Slot& slot, std::span<const std::uint8_t> wrong_length,
                              std::span<std::uint8_t> bytes, std::size_t size) noexcept {
  const FaultSet& faults = slot.servo->faults();
  // always the same number of draws per answer: a changed chance does not shift the rest of the run
  std::array<double, 7> draws;
  for (double& value : draws) value = draw();
  const std::uint64_t place = draw_bits();
  bool is_spoiled = false;
  const auto hits = [&](FaultKind kind) {
    if (!(draws[static_cast<std::size_t>(kind)] < faults.value(kind))) return false;
    is_spoiled = true;
    record_fault(kind, FaultAction::hit, slot.servo->id(), faults.value(kind));
    return true;
  };
  static_assert(static_cast<std::size_t>(FaultKind::late) == 6, "the kinds with a chance come first");

  if (hits(FaultKind::wrong_length)) {
    std::copy(wrong_length.begin(), wrong_length.end(), bytes.begin());
    size = wrong_length.size();
  }
  if (hits(FaultKind::late)) {
    std::array<std::uint8_t, kLongestAnswer> now_due = slot.late;
    const std::size_t now_size = std::exchange(slot.late_size, size);
    std::copy_n(bytes.begin(), size, slot.late.begin());
    std::copy_n(now_due.begin(), now_size, bytes.begin());
    size = now_size;
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

void SerialLine::put_on_line(TimePoint begin, std::span<const std::uint8_t> bytes) noexcept {
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
void SerialLine::babble() noexcept {
  for (Slot& slot : slots_) {
    const double rate = slot.servo->faults().value(FaultKind::babble);
    const TimePoint from = std::max(slot.babbles_at, slot.boots_at);
    if (rate <= 0 || plant_time_ < from || answer_end_ > plant_time_) continue;
    slot.babbles_at = plant_time_ + to_duration(Seconds(1 / rate));
    std::array<std::uint8_t, kLongestAnswer> bytes;
    const std::size_t size = seal(slot.servo->id(), slot.servo->error_bits(), {}, bytes);
    answer_end_ = plant_time_ + byte_time_ * static_cast<int>(size);
    put_on_line(plant_time_, {bytes.data(), size});
  }
}

std::size_t SerialLine::due(TimePoint now, std::span<TimedByte> out) noexcept {
  std::size_t count = 0;
  while (count < out.size() && outgoing_.size && outgoing_.front().at <= now) {
    out[count++] = outgoing_.front();
    outgoing_.pop();
  }
  counters_.bytes_sent += count;
  return count;
}

std::optional<TimePoint> SerialLine::next_event() const noexcept {
  std::optional<TimePoint> next;
  if (incoming_.size) next = incoming_.at(incoming_.size - 1).at;
  for (std::size_t i = 0; i < outgoing_.size; ++i) {
    if (!outgoing_.at(i).ends_answer) continue;
    if (!next || outgoing_.at(i).at < *next) next = outgoing_.at(i).at;
    break;
  }
  return next;
}

bool SerialLine::is_last(TimePoint event) const noexcept {
  return incoming_.size == 0 && outgoing_.size > 0 && outgoing_.at(outgoing_.size - 1).at == event;
}

bool SerialLine::set_fault(FaultKind kind, int id, double value) noexcept {
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (fault_row(kind).scope == FaultScope::line || (id != kEveryDrive && slot.servo->id() != id)) continue;
    is_found = true;
    slot.servo->set_fault(kind, value);
    if (kind == FaultKind::brown_out) slot.boots_at = now_ + to_duration(Seconds(value));
    if (kind == FaultKind::late) slot.late_size = 0;
  }
  if (is_found) record_fault(kind, FaultAction::set, id, value);
  return is_found;
}

bool SerialLine::clear_fault(FaultKind kind, int id) noexcept {
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (id != kEveryDrive && slot.servo->id() != id) continue;
    is_found = true;
    slot.servo->clear_fault(kind);
  }
  if (is_found) record_fault(kind, FaultAction::cleared, id, 0);
  return is_found;
}

void SerialLine::record_state() noexcept {
  if (!events_) return;
  Event& event = scratch_;
  event.at = now_;
  event.kind = EventKind::state;
  event.num_goals = event.num_torques = static_cast<std::uint8_t>(slots_.size());
  event.size = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Servo& servo = *slots_[i].servo;
    event.goal_ids[i] = event.torque_ids[i] = servo.id();
    event.positions[i] = servo.present_ticks();
    event.goals[i] = servo.goal_ticks();
    event.torques[i] = servo.torque();
  }
  events_->push(event);
}

void SerialLine::record(EventKind kind, TimePoint at) noexcept {
  if (!events_) return;
  Event event;
  event.at = at;
  event.kind = kind;
  events_->push(event);
}

void SerialLine::record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept {
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
std::uint64_t SerialLine::draw_bits() noexcept {
  random_ += 0x9E3779B97F4A7C15u;
  std::uint64_t z = random_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double SerialLine::draw() noexcept { return static_cast<double>(draw_bits() >> 11) * 0x1.0p-53; }

}  // namespace wallx::emulator
