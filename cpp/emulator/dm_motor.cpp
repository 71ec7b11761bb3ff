// DM motor: frames and registers in, motion out.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/dm_motor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr double kStiffnessRange = 500, kDampingRange = 5;
constexpr double kTurn = 2 * 3.14159265358979323846;
constexpr double kTimeoutUnit = 50e-6;                   // [s]
constexpr double kPositionLoop = 25;                     // of the position modes [1/s]
constexpr double kSpeedLoop = 40;                        // [1/s], times the inertia
constexpr double kSpeedIntegral = 400;                   // [1/s^2], times the inertia
constexpr double kAmbient = 30;                          // [degC]
constexpr double kMosLimit = 120;                        // [degC]
constexpr double kRotorHeating = 160, kMosHeating = 40;  // at peak torque, in the end [K]
constexpr double kThermalTime = 60;                      // [s]
// a person who moves a limp arm of this size
constexpr double kHandSpeed = 1.5;       // [rad/s]
constexpr double kHandStiffness = 2000;  // [N m/rad]
constexpr double kHandDamping = 20;      // [N m s/rad]
constexpr double kHandTorque = 30;       // the most it pushes [N m]
constexpr double kBackEmf = 0.02;        // braking torque per speed at any drive [N m s/rad]

std::uint32_t bits_of(float value) {
  std::uint32_t raw;
  std::memcpy(&raw, &value, sizeof raw);
  return raw;
}

float float_at(std::span<const std::uint8_t> data, std::size_t at) {
  std::uint32_t raw = 0;
  for (std::size_t i = 4; i-- > 0;) raw = raw << 8 | data[at + i];
  float value;
  std::memcpy(&value, &raw, sizeof value);
  return value;
}

// an n-bit count over -range..range; `first` is the position of its highest bit in the frame
double spread(std::span<const std::uint8_t> data, unsigned first, unsigned num_bits, double low,
              double high) {
  std::uint64_t all = 0;
  for (const std::uint8_t byte : data) all = all << 8 | byte;
  const std::uint64_t mask = (std::uint64_t{1} << num_bits) - 1;
  const std::uint64_t count = all >> (64 - first - num_bits) & mask;
  return low + (high - low) * double(count) / double(mask);
}

std::uint64_t squeeze(double value, unsigned num_bits, double range) {
  const double top = double((std::uint64_t{1} << num_bits) - 1);
  const double share = (value + range) / (2 * range);
  return static_cast<std::uint64_t>(std::clamp(share, 0.0, 1.0) * top);
}

void check(bool ok, const DmSetup& setup, const std::string& what) {
  if (!ok)
    throw ConfigError("emulated motor '" + setup.name + "' (id " + std::to_string(setup.id) + "): " + what);
}

}  // namespace

DmMotor::DmMotor(const DmSetup& setup) : setup_(setup) {
  const DmSetup& s = setup;
  check(s.id >= 1 && s.id <= 0xFF, s, "id must be 1..255");
  check(s.feedback_id >= 0 && s.feedback_id <= 0x7FE, s,
        "feedback_id " + std::to_string(s.feedback_id) + " must be 0..2046");
  check(s.mode >= 1 && s.mode <= 4, s, "mode " + std::to_string(s.mode) + " must be 1..4");
  check(s.timeout >= 0, s, "timeout must not be negative");
  check(s.pmax > 0 && s.vmax > 0 && s.tmax > 0 && s.peak_torque > 0, s,
        "pmax, vmax, tmax and peak_torque must be above 0");
  check(s.stop_min < s.stop_max, s, "end stops must grow");
  check(s.position >= s.stop_min && s.position <= s.stop_max, s, "position must lie between the end stops");
  check(std::isfinite(s.inertia) && s.inertia >= 1e-3, s, "inertia must be at least 0.001 kg m^2");
  check(std::isfinite(s.damping) && s.damping >= 0, s, "damping must not be negative");
  check(std::isfinite(s.friction) && s.friction >= 0, s, "friction must not be negative");
  check(std::isfinite(s.gravity) && std::isfinite(s.pitch), s, "gravity and pitch must be finite");
  check(s.pitch_sign >= -1 && s.pitch_sign <= 1, s, "pitch_sign must be -1, 0 or 1");

  live_[dm::kUnderVoltage] = bits_of(15);
  live_[dm::kTorqueConstant] = bits_of(0.95F);
  live_[dm::kOverTemperature] = bits_of(100);
  live_[dm::kMstId] = static_cast<std::uint32_t>(s.feedback_id);
  live_[dm::kEscId] = static_cast<std::uint32_t>(s.id);
  live_[dm::kTimeout] = static_cast<std::uint32_t>(s.timeout);
  live_[dm::kControlMode] = static_cast<std::uint32_t>(s.mode);
  live_[dm::kHardware] = 3;
  live_[dm::kSoftware] = static_cast<std::uint32_t>(s.software);
  live_[dm::kSerial] = static_cast<std::uint32_t>(s.serial);
  live_[dm::kPolePairs] = 14;
  live_[dm::kGearRatio] = bits_of(10);
  live_[dm::kPMax] = bits_of(static_cast<float>(s.pmax));
  live_[dm::kVMax] = bits_of(static_cast<float>(s.vmax));
  live_[dm::kTMax] = bits_of(static_cast<float>(s.tmax));
  live_[dm::kOverVoltage] = bits_of(32);
  live_[dm::kCanRate] = 4;
  stored_ = live_;
  angle_ = s.position;
}

float DmMotor::number(std::size_t rid) const noexcept {
  float value;
  std::memcpy(&value, &live_[rid], sizeof value);
  return value;
}

int DmMotor::code() const noexcept {
  if (faults_.has(FaultKind::drive_error)) {
    const int forced = static_cast<int>(faults_.value(FaultKind::drive_error));
    return forced <= 15 ? forced : dm::kOverload;
  }
  return error_ ? error_ : is_on_ ? dm::kOn : dm::kOff;
}

int DmMotor::mode() const noexcept {
  if (faults_.has(FaultKind::wrong_mode)) return static_cast<int>(faults_.value(FaultKind::wrong_mode));
  return static_cast<int>(live_[dm::kControlMode]);
}

void DmMotor::trip(int code) noexcept {
  error_ = code;
  is_on_ = false;
}

void DmMotor::control(int base, std::span<const std::uint8_t> data, TimePoint at) noexcept {
  heard_at_ = at;
  if (base != mode() - 1) return;  // another mode's frame
  if (data.size() == 8 &&
      std::all_of(data.begin(), data.begin() + 7, [](std::uint8_t byte) { return byte == 0xFF; })) {
    switch (data[7]) {
      case 0xFB:
        error_ = 0;
        return;
      case 0xFC:
        if (error_ || is_on_) return;  // an error must be cleared first
        is_on_ = true;
        integral_ = 0;
        return;
      case 0xFD:
        is_on_ = false;
        return;
      case 0xFE:
        if (!is_on_) zero_ = angle_, goal_ = 0;
        return;
    }
  }
  if (faults_.has(FaultKind::stuck)) return;
  switch (base) {
    case 0:
      if (data.size() != 8) return;
      goal_ = spread(data, 0, 16, -number(dm::kPMax), number(dm::kPMax));
      goal_velocity_ = spread(data, 16, 12, -number(dm::kVMax), number(dm::kVMax));
      kp_ = spread(data, 28, 12, 0, kStiffnessRange);
      kd_ = spread(data, 40, 12, 0, kDampingRange);
      extra_torque_ = spread(data, 52, 12, -number(dm::kTMax), number(dm::kTMax));
      break;
    case 1:
    case 3:
      if (data.size() != 8 || !std::isfinite(float_at(data, 0))) return;
      if (base == 1) {
        if (!std::isfinite(float_at(data, 4))) return;
        max_velocity_ = std::abs(float_at(data, 4));
        force_ = 1;
      } else {
        max_velocity_ = std::min(10000, data[4] | data[5] << 8) / 100.0;
        force_ = std::min(10000, data[6] | data[7] << 8) / 10000.0;
      }
      goal_ = float_at(data, 0);
      break;
    case 2:
      if (data.size() != 4 || !std::isfinite(float_at(data, 0))) return;
      goal_velocity_ = float_at(data, 0);
      break;
  }
}

bool DmMotor::has_register(int rid) noexcept {
  return (rid >= 0 && rid <= 36) || (rid >= 50 && rid <= 55) || rid == 80 || rid == 81;
}

bool DmMotor::write_register(int rid, std::uint32_t raw) noexcept {
  const bool is_writable = has_register(rid) && rid <= 35 && !(rid >= 11 && rid <= 20);
  if (!is_writable) return false;
  if (faults_.has(FaultKind::ignore_writes)) return true;
  live_[static_cast<std::size_t>(rid)] = raw;
  return true;
}

std::uint32_t DmMotor::raw_register(int rid) const noexcept {
  const auto at = static_cast<std::size_t>(rid);
  if (at == dm::kControlMode) return static_cast<std::uint32_t>(mode());
  if (at == dm::kMotorPosition || at == dm::kOutputPosition)
    return bits_of(static_cast<float>(reported_position()));
  return live_[at];
}

void DmMotor::store() noexcept {
  if (!is_on_ && !faults_.has(FaultKind::ignore_writes)) stored_ = live_;
}

void DmMotor::feedback(std::array<std::uint8_t, 8>& out) const noexcept {
  if (faults_.has(FaultKind::freeze)) {
    out = frozen_;
    return;
  }
  std::uint64_t all = static_cast<std::uint64_t>(code()) << 4 | (static_cast<std::uint64_t>(id()) & 15);
  all = all << 16 | squeeze(reported_position(), 16, number(dm::kPMax));
  all = all << 12 | squeeze(velocity_, 12, number(dm::kVMax));
  all = all << 12 | squeeze(torque_, 12, number(dm::kTMax));
  all = all << 8 | static_cast<std::uint64_t>(std::clamp(mos_temperature_, 0.0, 255.0));
  all = all << 8 | static_cast<std::uint64_t>(std::clamp(rotor_temperature_, 0.0, 255.0));
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::uint8_t>(all >> (56 - 8 * i) & 0xFF);
}

double DmMotor::reported_position() const noexcept {
  return position() + faults_.value(FaultKind::encoder_wrap) * kTurn;
}

void DmMotor::set_fault(FaultKind kind, double value) noexcept {
  switch (kind) {
    case FaultKind::torque_lost:
      is_on_ = false;
      return;
    case FaultKind::reboot:
    case FaultKind::brown_out:
      power_cycle();
      return;
    case FaultKind::sensor_jump:
      zero_ -= value - faults_.value(kind);
      break;
    case FaultKind::freeze:
      if (!faults_.has(kind)) feedback(frozen_);
      break;
    default:
      break;
  }
  faults_.set(kind, value);
}

void DmMotor::clear_fault(FaultKind kind) noexcept {
  if (kind == FaultKind::sensor_jump) zero_ += faults_.value(kind);
  faults_.clear(kind);
}

void DmMotor::power_cycle() noexcept {
  live_ = stored_;
  is_on_ = false;
  error_ = 0;
  goal_ = position();
  goal_velocity_ = kp_ = kd_ = extra_torque_ = max_velocity_ = integral_ = 0;
  force_ = 1;
}

double DmMotor::current() const noexcept {
  return std::abs(torque_) / setup_.peak_torque * 20;  // 20 A at the peak
}

double DmMotor::wanted_torque(double dt) noexcept {
  const double error = goal_ - position();
  const auto follow_speed = [&](double speed, double bound) {
    const double miss = speed - velocity_;
    const double gain = kSpeedLoop * setup_.inertia;
    integral_ = std::clamp(integral_ + kSpeedIntegral * setup_.inertia * miss * dt, -bound, bound);
    return gain * miss + integral_;
  };
  switch (mode()) {
    case 1:
      return kp_ * error + kd_ * (goal_velocity_ - velocity_) + extra_torque_;
    case 3:
      return follow_speed(goal_velocity_, setup_.peak_torque);
    default:
      return follow_speed(std::clamp(kPositionLoop * error, -max_velocity_, max_velocity_),
                          force_ * setup_.peak_torque);
  }
}

void DmMotor::protect(TimePoint now, double supply) noexcept {
  if (error_) return;
  if (supply < number(dm::kUnderVoltage)) return trip(dm::kTooLow);
  if (supply > number(dm::kOverVoltage)) return trip(dm::kTooHigh);
  if (mos_temperature_ > kMosLimit) return trip(dm::kMosHot);
  if (rotor_temperature_ > number(dm::kOverTemperature)) return trip(dm::kRotorHot);
  const double timeout = live_[dm::kTimeout] * kTimeoutUnit;
  if (is_on_ && timeout > 0 && to_seconds(now - heard_at_) > timeout) trip(dm::kSilence);
}

void DmMotor::set_hand(double share) noexcept {
  if (std::isnan(hand_)) hand_angle_ = angle_;  // it takes hold where the joint is
  hand_ = share;
}

double DmMotor::hand_torque(double dt) noexcept {
  if (std::isnan(hand_)) return 0;
  const double target = setup_.stop_min + hand_ * (setup_.stop_max - setup_.stop_min);
  hand_angle_ += std::clamp(target - hand_angle_, -kHandSpeed * dt, kHandSpeed * dt);
  const double push = kHandStiffness * (hand_angle_ - angle_) - kHandDamping * velocity_;
  return std::clamp(push, -kHandTorque, kHandTorque);
}

void DmMotor::step(TimePoint now, double dt, double load_torque, double supply) noexcept {
  if (supply > 0) protect(now, supply);
  load_torque += hand_torque(dt);
  const bool is_driven = is_on_ && supply > 0;
  double push = 0;
  if (is_driven) {
    const double bound = setup_.peak_torque * (mode() == 4 ? force_ : 1.0);
    push = std::clamp(wanted_torque(dt), -bound, bound);
  }
  // implicit in the damping, so that no gain setting can make the step itself unstable
  const double mobility = dt / setup_.inertia;
  const double braking = setup_.damping + (is_driven ? kBackEmf : 0);
  double velocity = (velocity_ + mobility * (push + load_torque)) / (1 + mobility * braking);
  const double stopped_by_friction = mobility * setup_.friction;
  velocity -= std::clamp(velocity, -stopped_by_friction, stopped_by_friction);
  velocity_ = faults_.has(FaultKind::block) ? 0 : velocity;
  angle_ += velocity_ * dt;
  if (angle_ <= setup_.stop_min || angle_ >= setup_.stop_max) {
    angle_ = std::clamp(angle_, setup_.stop_min, setup_.stop_max);
    const bool is_outward = angle_ == setup_.stop_min ? velocity_ < 0 : velocity_ > 0;
    if (is_outward) velocity_ = 0;
  }
  torque_ = push;
  const double share = torque_ / setup_.peak_torque, heat = share * share, pace = dt / kThermalTime;
  rotor_temperature_ += pace * (kAmbient + kRotorHeating * heat - rotor_temperature_);
  mos_temperature_ += pace * (kAmbient + kMosHeating * heat - mos_temperature_);
  if (faults_.has(FaultKind::overheat)) rotor_temperature_ = faults_.value(FaultKind::overheat);
}

}  // namespace wallx::emulator
