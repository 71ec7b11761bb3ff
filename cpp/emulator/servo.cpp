// Servo: the second-order joint, the hand that moves it, and what may be wrong with it.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/servo.hpp"

#include <algorithm>
#include <cmath>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr double kAmbient = 25.0;       // [degC]
constexpr double kStallHeating = 60.0;  // steady rise at stall torque [degC]
constexpr double kThermalTime = 120.0;  // [s]
// a person who moves a limp arm
constexpr double kHandSpeed = 3.0;       // [rad/s]
constexpr double kHandStiffness = 40.0;  // [N m/rad]
constexpr double kHandDamping = 2.0;     // [N m s/rad]
constexpr double kHandTorque = 2.0;      // the most it pushes [N m]

}  // namespace

Servo::Servo(const ServoSetup& setup, const MotorData& motor)
    : setup_(setup), motor_(motor), supply_(motor.nominal_supply) {
  const ServoSetup& s = setup;
  const auto is_tick = [](int ticks) { return ticks >= 0 && ticks < kTicksPerTurn; };
  check(s.id >= 0 && s.id <= 252, "id must be 0..252");
  check(is_tick(s.range_min) && is_tick(s.range_max) && s.range_min < s.range_max,
        "range " + std::to_string(s.range_min) + ".." + std::to_string(s.range_max) +
            " must grow within 0..4095 ticks");
  check(is_tick(s.stop_min) && is_tick(s.stop_max) && s.stop_min < s.stop_max,
        "end stops " + std::to_string(s.stop_min) + ".." + std::to_string(s.stop_max) +
            " must grow within 0..4095 ticks");
  check(s.position >= s.stop_min && s.position <= s.stop_max, "position must lie between the end stops");
  check(std::isfinite(s.inertia) && s.inertia >= 1e-3, "inertia must be at least 0.001 kg m^2");
  check(std::isfinite(s.damping) && s.damping >= 0, "damping must not be negative");
  check(std::isfinite(s.friction) && s.friction >= 0, "friction must not be negative");
  check(std::isfinite(s.gravity) && std::isfinite(s.pitch), "gravity and pitch must be finite");
  check(s.pitch_sign >= -1 && s.pitch_sign <= 1, "pitch_sign must be -1, 0 or 1");
}

void Servo::check(bool ok, const std::string& what) const {
  if (!ok)
    throw ConfigError("emulated servo '" + setup_.name + "' (id " + std::to_string(setup_.id) + "): " + what);
}

int Servo::word(int address) const noexcept { return value(address) | value(address + 1) << 8; }

void Servo::put_word(int address, int value) noexcept {
  const auto at = static_cast<std::size_t>(address);
  live_[at] = static_cast<std::uint8_t>(value & 0xFF);
  live_[at + 1] = static_cast<std::uint8_t>(value >> 8 & 0xFF);
}

std::span<const std::uint8_t> Servo::registers() noexcept {
  if (!faults_.has(FaultKind::freeze)) refresh();
  return {live_.data(), num_registers()};
}

void Servo::read(int address, std::span<std::uint8_t> out) noexcept {
  std::copy_n(registers().begin() + address, out.size(), out.begin());
}

void Servo::prepare_write(int address, std::span<const std::uint8_t> data) noexcept {
  prepared_address_ = address;
  prepared_size_ = std::min(data.size(), prepared_.size());
  std::copy_n(data.begin(), prepared_size_, prepared_.begin());
}

WriteEffect Servo::commit_write() noexcept {
  const std::size_t size = prepared_size_;
  prepared_size_ = 0;
  return size ? write(prepared_address_, {prepared_.data(), size}) : WriteEffect{};
}

double Servo::current() const noexcept {
  return std::abs(motor_torque_) / motor_.stall_torque * motor_.stall_current;
}

double Servo::pitch_change() const noexcept { return setup_.pitch + setup_.pitch_sign * (angle_ - center_); }

Servo::Drive Servo::drive(double dt, double supply) noexcept {
  supply_ = faults_.has(FaultKind::supply) && supply > 0 ? faults_.value(FaultKind::supply) : supply;
  hand_push_ = hand_torque(dt);
  const double braking = control(dt) ? motor_.back_emf : 0;
  return {motor_.stall_torque * supply_ / motor_.nominal_supply * effort_ + hand_push_, braking};
}

void Servo::step(double dt, double load_torque, double supply) noexcept {
  const Drive drive = this->drive(dt, supply);
  // implicit in the damping, so that no gain setting can make the step itself unstable
  const double mobility = dt / setup_.inertia;
  double velocity =
      (velocity_ + mobility * (drive.push + load_torque)) / (1 + mobility * (setup_.damping + drive.braking));
  const double stopped_by_friction = mobility * setup_.friction;
  velocity -= std::clamp(velocity, -stopped_by_friction, stopped_by_friction);
  velocity_ = faults_.has(FaultKind::block) ? 0 : velocity;
  angle_ += velocity_ * dt;
  if (angle_ <= stop_min_ || angle_ >= stop_max_) {
    angle_ = std::clamp(angle_, stop_min_, stop_max_);
    const bool is_outward = angle_ == stop_min_ ? velocity_ < 0 : velocity_ > 0;
    if (is_outward) velocity_ = 0;
  }
  settle(dt, drive);
}

void Servo::follow(double dt, double position_ticks, double velocity, const Drive& drive) noexcept {
  angle_ = center_ + (position_ticks - kTicksPerTurn / 2) * kRadiansPerTick;
  velocity_ = velocity;
  settle(dt, drive);
}

void Servo::settle(double dt, const Drive& drive) noexcept {
  motor_torque_ = drive.push - hand_push_ - drive.braking * velocity_;
  const double share = motor_torque_ / motor_.stall_torque;
  temperature_ += dt / kThermalTime * (kAmbient + kStallHeating * share * share - temperature_);
  if (faults_.has(FaultKind::overheat)) temperature_ = faults_.value(FaultKind::overheat);
  protect(dt);
}

void Servo::set_hand(double share) noexcept {
  if (std::isnan(hand_)) hand_angle_ = angle_;  // it takes hold where the joint is
  hand_ = share;
}

double Servo::hand_torque(double dt) noexcept {
  if (std::isnan(hand_)) return 0;
  const double target = stop_min_ + hand_ * (stop_max_ - stop_min_);
  const double way = target - hand_angle_;
  hand_angle_ += std::clamp(way, -kHandSpeed * dt, kHandSpeed * dt);
  const double push = kHandStiffness * (hand_angle_ - angle_) - kHandDamping * velocity_;
  return std::clamp(push, -kHandTorque, kHandTorque);
}

void Servo::set_fault(FaultKind kind, double value) noexcept {
  if (kind == FaultKind::freeze) refresh();  // what it repeats is what it saw last
  if (!fault_row(kind).is_moment) faults_.set(kind, value);
  if (kind == FaultKind::wrong_mode) set_mode(static_cast<int>(value));
  if (kind == FaultKind::torque_lost) lose_torque();
  if (kind == FaultKind::reboot || kind == FaultKind::brown_out) power_cycle();
}

void Servo::clear_fault(FaultKind kind) noexcept {
  if (kind == FaultKind::wrong_mode && faults_.has(kind)) set_mode(stored_mode());
  if (kind == FaultKind::overheat && faults_.has(kind)) temperature_ = kAmbient;
  faults_.clear(kind);
}

}  // namespace wallx::emulator
