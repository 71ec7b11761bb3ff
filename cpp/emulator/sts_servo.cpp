// StsServo: registers, protections and the second-order joint of one emulated STS3215.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/sts_servo.hpp"

#include <algorithm>
#include <cmath>

namespace wallx::emulator {
namespace {

// an STS3215 at 12 V, as its data sheet gives it
constexpr MotorData kMotor{
    .nominal_supply = 12, .stall_torque = 2.94, .stall_current = 2.7, .back_emf = 0.30};
constexpr double kMaxSpeed = 4.7;          // [rad/s]
constexpr double kMaxAcceleration = 30.0;  // [rad/s^2]
constexpr double kCurrentUnit = 0.0065;    // [A]
// gains: with P = 16 an error of 12 ticks asks for full drive; D = 32 damps a small arm without oscillation
constexpr double kPUnit = 1.0 / (16 * 12);  // per tick
constexpr double kDUnit = 0.055;            // per rad/s
constexpr double kIUnit = 0.01;             // per tick second
constexpr double kReleaseMargin = 5.0;      // hysteresis of the temperature protection [degC]

bool is_persistent(int address) { return address < reg::kTorque || (address >= 80 && address <= 86); }
bool is_writable(int address) {
  return (address >= reg::kId && address < 50) || address == reg::kLock || (address >= 80 && address <= 86);
}

}  // namespace

StsServo::StsServo(const ServoSetup& setup) : Servo(setup, kMotor) {
  const ServoSetup& s = setup;
  check(std::abs(s.homing_offset) <= 2047,
        "homing_offset " + std::to_string(s.homing_offset) + " must be -2047..2047 ticks");
  check(s.p_gain >= 0 && s.p_gain <= 254, "p_gain must be 0..254");
  check(s.max_torque >= 0 && s.max_torque <= 1000, "max_torque must be 0..1000 (0.1 %)");
  check(s.protection_current >= 0 && s.protection_current <= 511, "protection_current must be 0..511");
  check(s.overload_threshold >= 0 && s.overload_threshold <= 100, "overload_threshold must be 0..100 %");

  live_[0] = 3;
  live_[1] = 10;
  put_word(reg::kModel, s.model ? s.model : 777);
  live_[reg::kId] = static_cast<std::uint8_t>(s.id);
  live_[reg::kResponseLevel] = 1;
  put_word(reg::kMinPosition, s.range_min);
  put_word(reg::kMaxPosition, s.range_max);
  live_[reg::kMaxTemperature] = 70;
  live_[reg::kMaxVoltage] = 140;
  live_[reg::kMinVoltage] = 40;
  put_word(reg::kMaxTorque, s.max_torque);
  live_[reg::kPhase] = 12;
  live_[reg::kUnloadCondition] = kTemperatureError | kCurrentError | kOverloadError;
  live_[20] = 47;
  live_[reg::kPGain] = static_cast<std::uint8_t>(s.p_gain);
  live_[reg::kDGain] = 32;
  live_[24] = 16;
  live_[reg::kDeadZoneCw] = 1;
  live_[reg::kDeadZoneCcw] = 1;
  put_word(reg::kProtectionCurrent, s.protection_current);
  live_[30] = 1;
  put_signed_word(reg::kHomingOffset, s.homing_offset, 11);
  live_[reg::kHoldingTorque] = 20;
  live_[reg::kProtectionTime] = 200;
  live_[reg::kOverloadThreshold] = static_cast<std::uint8_t>(s.overload_threshold);
  live_[37] = 10;
  live_[reg::kOverCurrentTime] = 200;
  live_[39] = 10;
  stored_ = live_;

  angle_ = (s.position + s.homing_offset) * kRadiansPerTick;
  center_ = (2048 + s.homing_offset) * kRadiansPerTick;
  stop_min_ = (s.stop_min + s.homing_offset) * kRadiansPerTick;
  stop_max_ = (s.stop_max + s.homing_offset) * kRadiansPerTick;
  power_cycle();
}

int StsServo::signed_word(int address, int sign_bit) const noexcept {
  const int raw = word(address);
  const int magnitude = raw & ((1 << sign_bit) - 1);
  return raw & (1 << sign_bit) ? -magnitude : magnitude;
}

void StsServo::put_signed_word(int address, int value, int sign_bit) noexcept {
  const int magnitude = std::min(std::abs(value), (1 << sign_bit) - 1);
  put_word(address, value < 0 ? magnitude | 1 << sign_bit : magnitude);
}

double StsServo::position_ticks() const noexcept {
  // single turn: what is reported wraps, as the encoder does
  const double jump = faults_.value(FaultKind::sensor_jump);
  const double ticks = (angle_ + jump) / kRadiansPerTick - signed_word(reg::kHomingOffset, 11);
  const double wrapped = ticks - kTicksPerTurn * std::floor(ticks / kTicksPerTurn);
  return wrapped < kTicksPerTurn ? wrapped : 0.0;
}

int StsServo::present_ticks() const noexcept {
  return static_cast<int>(std::lround(position_ticks())) % kTicksPerTurn;
}

std::uint8_t StsServo::error_bits() const noexcept {
  auto bits = static_cast<std::uint8_t>(faults_.value(FaultKind::drive_error));
  const double volts = supply_ * 10;
  if (volts > live_[reg::kMaxVoltage] || volts < live_[reg::kMinVoltage]) bits |= kVoltageError;
  if (is_too_hot_) bits |= kTemperatureError;
  if (is_over_current_) bits |= kCurrentError;
  if (is_overloaded_) bits |= kOverloadError;
  return bits;
}

void StsServo::refresh() noexcept {
  const double speed = velocity_ / kRadiansPerTick;
  const int turns = static_cast<int>(faults_.value(FaultKind::encoder_wrap));
  put_signed_word(reg::kPresentPosition, present_ticks() + turns * kTicksPerTurn, 15);
  put_signed_word(reg::kPresentSpeed, static_cast<int>(std::lround(speed)), 15);
  put_signed_word(reg::kPresentLoad, static_cast<int>(std::lround(effort_ * 1000)), 10);
  live_[reg::kPresentVoltage] = static_cast<std::uint8_t>(std::clamp(std::lround(supply_ * 10), 0L, 255L));
  live_[reg::kPresentTemperature] =
      static_cast<std::uint8_t>(std::clamp(std::lround(temperature_), 0L, 255L));
  live_[reg::kAsyncFlag] = prepared_size_ > 0;
  live_[reg::kStatus] = error_bits();
  const bool has_arrived = std::abs(goal_ticks_ * kRadiansPerTick - setpoint_) < kRadiansPerTick;
  live_[reg::kMoving] = std::abs(speed) > 20 || (torque() == kTorqueOn && !has_arrived);
  put_signed_word(reg::kTargetPosition, goal_ticks_, 15);
  const int milliamps = static_cast<int>(std::lround(current() / kCurrentUnit));
  put_signed_word(reg::kPresentCurrent, motor_torque_ < 0 ? -milliamps : milliamps, 15);
}

WriteEffect StsServo::write(int address, std::span<const std::uint8_t> data) noexcept {
  WriteEffect effect;
  if (faults_.has(FaultKind::ignore_writes)) return effect;
  const int end = address + static_cast<int>(data.size());
  const auto covers = [&](int at, int size) { return address < at + size && end > at; };
  const std::uint8_t torque_before = torque();
  for (int at = address; at < end; ++at) {
    if (!is_writable(at)) continue;
    const auto index = static_cast<std::size_t>(at);
    const std::uint8_t byte = data[static_cast<std::size_t>(at - address)];
    if (at == reg::kMode && byte != 0) continue;  // only position mode is emulated
    live_[index] = byte;
    if (is_persistent(at) && live_[reg::kLock] == 0) stored_[index] = byte;
  }
  if (covers(reg::kTorque, 1)) {
    effect.is_torque = true;
    effect.torque = live_[reg::kTorque];
    live_[reg::kTorque] = torque_before;
    set_torque(static_cast<std::uint8_t>(effect.torque));
  }
  if (covers(reg::kGoalPosition, 2)) {
    effect.is_goal = true;
    effect.goal_ticks = signed_word(reg::kGoalPosition, 15);
    take_goal();
  }
  return effect;
}

void StsServo::take_goal() noexcept {
  if (faults_.has(FaultKind::stuck) || live_[reg::kMode] != 0) return;
  const int min = word(reg::kMinPosition), max = word(reg::kMaxPosition);
  int goal = signed_word(reg::kGoalPosition, 15);
  if (min < max) goal = std::clamp(goal, min, max);
  // a goal on the other side of the joint takes the load away: the overload is over
  const double before = goal_ticks_ - position_ticks(), after = goal - position_ticks();
  if (is_overloaded_ && before * after < 0) is_overloaded_ = false;
  goal_ticks_ = goal;
  const int time_ms = word(reg::kGoalTime);
  timed_speed_ = time_ms ? std::abs(goal_ticks_ * kRadiansPerTick - setpoint_) / (time_ms * 1e-3) : 0;
}

void StsServo::set_torque(std::uint8_t value) noexcept {
  if (value == kMakeCenter) {
    make_center();
    return;
  }
  if (value > kTorqueDamping) return;
  const bool was_on = torque() == kTorqueOn;
  live_[reg::kTorque] = value;
  is_overloaded_ = is_over_current_ = false;
  overload_time_ = over_current_time_ = 0;
  if (value == kTorqueOn && !was_on) {
    setpoint_ = position_ticks() * kRadiansPerTick;
    setpoint_speed_ = velocity_;
    integral_ = 0;
    take_goal();  // whatever the goal register holds, however old
  }
}

void StsServo::make_center() noexcept {
  const double ticks = angle_ / kRadiansPerTick;
  const int encoder =
      static_cast<int>(std::lround(ticks - kTicksPerTurn * std::floor(ticks / kTicksPerTurn)));
  put_signed_word(reg::kHomingOffset, std::clamp(encoder - 2048, -2047, 2047), 11);
  stored_[reg::kHomingOffset] = live_[reg::kHomingOffset];
  stored_[reg::kHomingOffset + 1] = live_[reg::kHomingOffset + 1];
  setpoint_ = position_ticks() * kRadiansPerTick;
}

void StsServo::power_cycle() noexcept {
  live_ = stored_;
  live_[reg::kLock] = 1;
  if (faults_.has(FaultKind::wrong_mode)) {
    live_[reg::kMode] = static_cast<std::uint8_t>(faults_.value(FaultKind::wrong_mode));
  }
  put_word(reg::kTorqueLimit, word(reg::kMaxTorque));
  put_word(reg::kGoalPosition, present_ticks());
  prepared_size_ = 0;
  motor_torque_ = effort_ = integral_ = overload_time_ = over_current_time_ = 0;
  is_overloaded_ = is_over_current_ = is_too_hot_ = false;
  setpoint_ = position_ticks() * kRadiansPerTick;
  setpoint_speed_ = 0;
  timed_speed_ = 0;
  take_goal();
}

// moves the setpoint towards the goal, bounded in speed and acceleration, braking in time
void StsServo::follow_goal(double dt) noexcept {
  const int acceleration_register = live_[reg::kAcceleration];
  double acceleration = kMaxAcceleration, speed = kMaxSpeed;
  if (acceleration_register) {
    acceleration = std::min(acceleration, acceleration_register * 100 * kRadiansPerTick);
  }
  const int speed_register = std::abs(signed_word(reg::kGoalSpeed, 15));
  const double speed_unit = live_[reg::kPhase] & 4 ? 1 : 50;  // the factory's phase 12: 1 step/s
  if (speed_register) speed = std::min(speed, speed_register * speed_unit * kRadiansPerTick);
  if (timed_speed_ > 0) speed = std::min(speed, timed_speed_);

  const double distance = goal_ticks_ * kRadiansPerTick - setpoint_;
  const double change = acceleration * dt;
  // braking speed of a sampled profile: it comes to rest on the goal, not one step behind it
  const double braking = std::sqrt(change * change / 4 + 2 * acceleration * std::abs(distance)) - change / 2;
  const double wanted = std::copysign(std::min(speed, braking), distance);
  setpoint_speed_ += std::clamp(wanted - setpoint_speed_, -change, change);
  const double move = setpoint_speed_ * dt;
  if (std::abs(distance) <= std::abs(move) && std::abs(setpoint_speed_) <= 2 * change) {
    setpoint_ += distance;
    setpoint_speed_ = 0;
  } else {
    setpoint_ += move;
  }
}

// position controller: share of full drive [-1..1]
double StsServo::drive(double dt) noexcept {
  const double error = setpoint_ / kRadiansPerTick - position_ticks();
  const double dead = error > 0 ? live_[reg::kDeadZoneCw] : live_[reg::kDeadZoneCcw];
  const double outside = error - std::clamp(error, -dead, dead);
  double integral = 0;
  if (live_[reg::kIGain]) {
    const double bound = live_[reg::kIntegralLimit] ? live_[reg::kIntegralLimit] / 100.0 : 1.0;
    const double gain = live_[reg::kIGain] * kIUnit;
    integral_ = std::clamp(integral_ + outside * dt, -bound / gain, bound / gain);
    integral = gain * integral_;
  } else {
    integral_ = 0;
  }
  const double wanted = live_[reg::kPGain] * kPUnit * outside +
                        live_[reg::kDGain] * kDUnit * (setpoint_speed_ - velocity_) + integral;
  double bound = std::min(1.0, word(reg::kTorqueLimit) / 1000.0);
  if (is_overloaded_ && live_[reg::kUnloadCondition] & kOverloadError) {
    bound = std::min(bound, live_[reg::kHoldingTorque] / 100.0);
  }
  if (is_over_current_ && live_[reg::kUnloadCondition] & kCurrentError) bound = 0;
  if (is_too_hot_ && live_[reg::kUnloadCondition] & kTemperatureError) bound = 0;
  return std::clamp(wanted, -bound, bound);
}

void StsServo::protect(double dt) noexcept {
  const bool is_overload =
      live_[reg::kOverloadThreshold] && std::abs(effort_) * 100 >= live_[reg::kOverloadThreshold];
  overload_time_ = is_overload ? overload_time_ + dt : 0;
  if (overload_time_ > live_[reg::kProtectionTime] * 0.01) is_overloaded_ = true;

  const int allowed = word(reg::kProtectionCurrent);
  over_current_time_ = allowed && current() > allowed * kCurrentUnit ? over_current_time_ + dt : 0;
  if (over_current_time_ > live_[reg::kOverCurrentTime] * 0.01) is_over_current_ = true;

  const double allowed_temperature = live_[reg::kMaxTemperature];
  if (temperature_ > allowed_temperature) is_too_hot_ = true;
  if (temperature_ < allowed_temperature - kReleaseMargin) is_too_hot_ = false;
}

bool StsServo::control(double dt) noexcept {
  if (torque() != kTorqueOn) {
    effort_ = 0;
    return torque() == kTorqueDamping;
  }
  follow_goal(dt);
  effort_ = drive(dt);
  return true;
}

}  // namespace wallx::emulator
