// DM bus: who gets the line next, what a motor makes of a frame, and the faults.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/dm_bus.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr std::uint32_t kQuestions = 0x7FF;
constexpr std::uint8_t kReadCode = 0x33, kWriteCode = 0x55, kStoreCode = 0xAA, kRefreshCode = 0xCC;
constexpr Duration kAnswerDelay = std::chrono::microseconds(40);  // a motor's thinking time
constexpr std::uint32_t kBusOffFlag = 0x40;                       // error class of Linux's can/error.h
constexpr std::uint32_t kNobodysId = 0x6A5;

}  // namespace

DmBus::DmBus(std::span<const DmSetup> motors, const DmBusOptions& options, EventRing* events)
    : events_(events),
      rates_(options.rates),
      supply_(options.supply),
      supply_resistance_(options.supply_resistance),
      random_(options.seed),
      now_(options.start),
      plant_time_(options.start),
      line_free_(options.start) {
  if (motors.empty() || motors.size() > kMaxMotors)
    throw ConfigError("an emulated CAN bus needs 1 to " + std::to_string(kMaxMotors) + " motors, got " +
                      std::to_string(motors.size()));
  if (rates_.bit_rate < 10'000 || rates_.bit_rate > 1'000'000)
    throw ConfigError("bit rate " + std::to_string(rates_.bit_rate) + " must be 10000..1000000");
  if (rates_.is_fd() && (rates_.data_bit_rate < rates_.bit_rate || rates_.data_bit_rate > 8'000'000))
    throw ConfigError("data bit rate " + std::to_string(rates_.data_bit_rate) + " must be " +
                      std::to_string(rates_.bit_rate) + "..8000000, or 0 for classic CAN");
  for (const DmSetup& setup : motors) {
    if (find(setup.id))
      throw ConfigError("id " + std::to_string(setup.id) + " is given to two motors of one emulated bus");
    slots_.push_back(Slot{DmMotor(setup)});
  }
}

DmMotor* DmBus::find(int id) noexcept {
  for (Slot& slot : slots_)
    if (slot.motor.id() == id) return &slot.motor;
  return nullptr;
}

void DmBus::receive(const WireFrame& frame, TimePoint now) noexcept {
  if (is_off_ || !from_host_.push({std::max(now, now_), frame, true})) ++counters_.lost;
}

std::optional<TimePoint> DmBus::next_start() const noexcept {
  std::optional<TimePoint> earliest;
  if (from_host_.size) earliest = from_host_.front().ready;
  for (std::size_t i = 0; i < num_from_motors_; ++i)
    if (!earliest || from_motors_[i].ready < *earliest) earliest = from_motors_[i].ready;
  if (earliest) earliest = std::max(*earliest, line_free_);
  return earliest;
}

// the lowest id that is ready when the line falls free wins; the host's frames keep their order
void DmBus::start_next() noexcept {
  const std::optional<TimePoint> start = next_start();
  if (!start) return;
  std::size_t winner = num_from_motors_;
  for (std::size_t i = 0; i < num_from_motors_; ++i)
    if (from_motors_[i].ready <= *start &&
        (winner == num_from_motors_ || from_motors_[i].frame.id < from_motors_[winner].frame.id))
      winner = i;
  const bool has_hosts = from_host_.size && from_host_.front().ready <= *start;
  if (has_hosts &&
      (winner == num_from_motors_ || from_host_.front().frame.id <= from_motors_[winner].frame.id)) {
    on_line_ = from_host_.front();
    from_host_.pop();
  } else {
    on_line_ = from_motors_[winner];
    std::copy(from_motors_.begin() + static_cast<std::ptrdiff_t>(winner) + 1,
              from_motors_.begin() + static_cast<std::ptrdiff_t>(num_from_motors_),
              from_motors_.begin() + static_cast<std::ptrdiff_t>(winner));
    --num_from_motors_;
  }
  const Duration time = wire_time(on_line_->frame, rates_);
  counters_.busy_ns += static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
  line_free_ = *start + time;
}

void DmBus::advance(TimePoint now) noexcept {
  for (;;) {
    if (!on_line_) {
      const std::optional<TimePoint> start = next_start();
      if (!start || *start > now) {
        if (plant_time_ + kDmPlantStep > now) break;
        integrate(plant_time_ + kDmPlantStep);  // step by step: a motor may begin to babble
        continue;
      }
      integrate(*start);
      start_next();
    }
    if (line_free_ > now) break;
    const Waiting done = *on_line_;
    on_line_.reset();
    integrate(line_free_);
    record(done.frame, !done.is_hosts, line_free_);
    if (done.is_hosts) {
      take_from_host(done.frame, line_free_);
    } else {
      ++counters_.answers;
      if (is_off_ || !outgoing_.push({line_free_, done.frame})) ++counters_.lost;
    }
  }
  integrate(now);
}

void DmBus::integrate(TimePoint until) noexcept {
  while (plant_time_ + kDmPlantStep <= until) step_plant();
  now_ = std::max(now_, until);
}

void DmBus::step_plant() noexcept {
  double current = 0;
  for (const Slot& slot : slots_) current += slot.motor.current();
  const double supply = std::max(0.0, supply_ - supply_resistance_ * current);

  // one serial arm: a link's pitch is the sum of the joints below it, and every joint carries the weight of
  // all links above it
  std::array<double, kMaxMotors> moment{};
  double pitch = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    pitch += slots_[i].motor.pitch_change();
    moment[i] = slots_[i].motor.setup().gravity * std::cos(pitch);
  }
  double carried = 0;
  for (std::size_t i = slots_.size(); i-- > 0;) {
    carried += moment[i];
    moment[i] = -slots_[i].motor.setup().pitch_sign * carried;
  }
  plant_time_ += kDmPlantStep;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    DmMotor& motor = slots_[i].motor;
    double volts = motor.faults().has(FaultKind::supply) ? motor.faults().value(FaultKind::supply) : supply;
    if (plant_time_ < slots_[i].boots_at) volts = 0;
    motor.step(plant_time_, to_seconds(kDmPlantStep), moment[i], volts);
  }
  babble();
}

bool DmBus::is_listening(const Slot& slot, int id) const noexcept {
  return slot.listens_to() == id && !slot.motor.faults().has(FaultKind::silent) && now_ >= slot.boots_at;
}

void DmBus::take_from_host(const WireFrame& frame, TimePoint at) noexcept {
  ++counters_.frames_received;
  if (frame.is_fd && !rates_.is_fd()) {
    ++counters_.wrong_format;
    return;
  }
  if (frame.is_extended) {
    ++counters_.unanswered;
    return;
  }
  if (frame.id == kQuestions) return ask(frame, at);
  const int base = static_cast<int>(frame.id >> 8), id = static_cast<int>(frame.id & 0xFF);
  bool is_heard = false;
  for (Slot& slot : slots_) {
    if (base > 3 || !is_listening(slot, id)) continue;
    is_heard = true;
    const bool was_on = slot.motor.is_on();
    slot.motor.control(base, {frame.data.data(), frame.size}, at);
    counters_.enables += !was_on && slot.motor.is_on();
    counters_.disables += was_on && !slot.motor.is_on();
    std::array<std::uint8_t, 8> data;
    slot.motor.feedback(data);
    answer(slot, frame, data, at);
  }
  ++(is_heard ? counters_.controls : counters_.unanswered);
}

void DmBus::ask(const WireFrame& frame, TimePoint at) noexcept {
  bool is_heard = false;
  const int id = frame.data[0] | frame.data[1] << 8;
  for (Slot& slot : slots_) {
    if (frame.size != 8 || !is_listening(slot, id)) continue;
    is_heard = true;
    std::array<std::uint8_t, 8> data{};
    std::copy_n(frame.data.begin(), 4, data.begin());
    const int rid = frame.data[3];
    switch (frame.data[2]) {
      case kRefreshCode:
        ++counters_.refreshes;
        slot.motor.feedback(data);
        break;
      case kStoreCode:
        ++counters_.stores;
        slot.motor.store();
        break;
      case kWriteCode: {
        std::uint32_t raw = 0;
        for (std::size_t i = 8; i-- > 4;) raw = raw << 8 | frame.data[i];
        if (!slot.motor.write_register(rid, raw)) continue;
        ++counters_.writes;
        [[fallthrough]];
      }
      case kReadCode: {
        if (!DmMotor::has_register(rid)) continue;
        counters_.reads += frame.data[2] == kReadCode;
        const std::uint32_t raw = slot.motor.raw_register(rid);
        for (std::size_t i = 0; i < 4; ++i) data[4 + i] = static_cast<std::uint8_t>(raw >> 8 * i & 0xFF);
        break;
      }
      default:
        continue;
    }
    answer(slot, frame, data, at);
  }
  if (!is_heard) ++counters_.unanswered;
}

void DmBus::answer(Slot& slot, const WireFrame& request, const std::array<std::uint8_t, 8>& data,
                   TimePoint at) noexcept {
  const FaultSet& faults = slot.motor.faults();
  WireFrame frame;
  frame.id = static_cast<std::uint32_t>(slot.motor.feedback_id());
  // with another's id it has its answers' id too
  if (faults.has(FaultKind::duplicate_id))
    if (const DmMotor* other = find(slot.listens_to()))
      frame.id = static_cast<std::uint32_t>(other->feedback_id());
  if (faults.has(FaultKind::wrong_id))
    frame.id = static_cast<std::uint32_t>(faults.value(FaultKind::wrong_id));
  frame.is_fd = request.is_fd && !faults.has(FaultKind::non_fd);
  frame.is_fast = frame.is_fd && request.is_fast;
  frame.size = 8;
  std::copy(data.begin(), data.end(), frame.data.begin());

  // always the same number of draws per answer: a changed chance does not shift the rest of the run
  std::array<double, 7> draws;
  for (double& value : draws) value = draw();
  const std::uint64_t place = draw_bits();
  bool is_spoiled = false;
  const auto hits = [&](FaultKind kind) {
    if (!(draws[static_cast<std::size_t>(kind)] < faults.value(kind))) return false;
    is_spoiled = true;
    record_fault(kind, FaultAction::hit, slot.motor.id(), faults.value(kind));
    return true;
  };
  static_assert(static_cast<std::size_t>(FaultKind::late) == 6, "the kinds with a chance come first");

  bool is_there = true;
  if (hits(FaultKind::late)) {
    is_there = std::exchange(slot.has_late, true);
    frame = std::exchange(slot.late, frame);
  }
  if (is_there && hits(FaultKind::wrong_length)) frame.size = 7;
  if (is_there && hits(FaultKind::corrupt))
    frame.data[(place >> 8) % frame.size] ^= static_cast<std::uint8_t>(1 + (place & 0xFF) % 255);
  if (is_there && hits(FaultKind::truncate)) frame.size = 4;
  if (hits(FaultKind::drop)) is_there = false;
  const TimePoint ready = at + kAnswerDelay + to_duration(Seconds(faults.value(FaultKind::delay)));
  if (is_there) {
    if (hits(FaultKind::repeat)) enqueue(frame, ready);
    if (hits(FaultKind::noise)) {
      WireFrame noise = frame;
      noise.id = kNobodysId;
      for (std::size_t i = 0; i < 8; ++i) noise.data[i] = static_cast<std::uint8_t>(place >> 8 * i & 0xFF);
      enqueue(noise, ready);
    }
    enqueue(frame, ready);
  }
  counters_.answers_spoiled += is_spoiled;
}

void DmBus::enqueue(const WireFrame& frame, TimePoint ready) noexcept {
  if (num_from_motors_ == from_motors_.size()) {
    ++counters_.lost;
    return;
  }
  from_motors_[num_from_motors_++] = {ready, frame, false};
}

// feedback that nobody asked for
void DmBus::babble() noexcept {
  for (Slot& slot : slots_) {
    const double rate = slot.motor.faults().value(FaultKind::babble);
    if (rate <= 0 || plant_time_ < std::max(slot.babbles_at, slot.boots_at)) continue;
    slot.babbles_at = plant_time_ + to_duration(Seconds(1 / rate));
    WireFrame frame;
    frame.id = static_cast<std::uint32_t>(slot.motor.feedback_id());
    frame.size = 8;
    std::array<std::uint8_t, 8> data;
    slot.motor.feedback(data);
    std::copy(data.begin(), data.end(), frame.data.begin());
    enqueue(frame, plant_time_);
  }
}

std::size_t DmBus::due(TimePoint now, std::span<TimedFrame> out) noexcept {
  std::size_t count = 0;
  while (count < out.size() && outgoing_.size && outgoing_.front().at <= now) {
    out[count++] = outgoing_.front();
    outgoing_.pop();
  }
  return count;
}

std::optional<TimePoint> DmBus::next_event() const noexcept {
  if (outgoing_.size) return std::max(outgoing_.front().at, now_);
  return on_line_ ? line_free_ : next_start();
}

bool DmBus::set_fault(FaultKind kind, int id, double value) noexcept {
  if (id == kEveryDrive || find(id)) record_fault(kind, FaultAction::set, id, value);
  if (kind == FaultKind::bus_off) {
    is_off_ = true;
    from_host_.size = 0;
    WireFrame error;
    error.is_error = true;
    error.id = kBusOffFlag;
    error.size = 8;
    outgoing_.push({now_, error});
    return true;
  }
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (fault_row(kind).scope == FaultScope::line || (id != kEveryDrive && slot.motor.id() != id)) continue;
    is_found = true;
    slot.motor.set_fault(kind, value);
    if (kind == FaultKind::brown_out) slot.boots_at = now_ + to_duration(Seconds(value));
    if (kind == FaultKind::late) slot.has_late = false;
  }
  return is_found;
}

bool DmBus::clear_fault(FaultKind kind, int id) noexcept {
  if (id == kEveryDrive || find(id)) record_fault(kind, FaultAction::cleared, id, 0);
  if (kind == FaultKind::bus_off) is_off_ = false;
  bool is_found = id == kEveryDrive;
  for (Slot& slot : slots_) {
    if (id != kEveryDrive && slot.motor.id() != id) continue;
    is_found = true;
    slot.motor.clear_fault(kind);
  }
  return is_found;
}

void DmBus::record(const WireFrame& frame, bool is_answer, TimePoint at) noexcept {
  if (!events_) return;
  Event& event = scratch_;
  event.at = at;
  event.kind = EventKind::frame;
  event.instruction = is_answer;
  event.can_id = frame.id;
  event.size = frame.size;
  std::copy_n(frame.data.begin(), frame.size, event.parameters.begin());
  events_->push(event);
}

void DmBus::record_fault(FaultKind fault, FaultAction action, int id, double value) noexcept {
  if (!events_) return;
  Event& event = scratch_;
  event.at = now_;
  event.kind = EventKind::fault;
  event.fault = fault;
  event.action = action;
  event.fault_id = static_cast<std::int16_t>(id);
  event.value = value;
  events_->push(event);
}

void DmBus::record_state() noexcept {
  if (!events_) return;
  Event& event = scratch_;
  event.at = now_;
  event.kind = EventKind::state;
  event.num_goals = event.num_torques = static_cast<std::uint8_t>(slots_.size());
  event.size = 0;
  const auto urad = [](double radians) {
    return static_cast<std::int32_t>(std::lround(std::clamp(radians, -2000.0, 2000.0) * 1e6));
  };
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const DmMotor& motor = slots_[i].motor;
    event.goal_ids[i] = event.torque_ids[i] = static_cast<std::uint8_t>(motor.id());
    event.positions[i] = urad(motor.position());
    event.goals[i] = urad(motor.goal());
    event.torques[i] = motor.is_on();
  }
  events_->push(event);
}

// SplitMix64, by its published recurrence
std::uint64_t DmBus::draw_bits() noexcept {
  random_ += 0x9E3779B97F4A7C15u;
  std::uint64_t z = random_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double DmBus::draw() noexcept { return static_cast<double>(draw_bits() >> 11) * 0x1.0p-53; }

}  // namespace wallx::emulator
