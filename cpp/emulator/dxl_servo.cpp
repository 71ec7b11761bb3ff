// DxlServo: registers with their rules, controller and protections of one emulated Dynamixel X.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/dxl_servo.hpp"

#include <algorithm>
#include <cmath>

namespace wallx::emulator {
namespace {

using namespace dxl;

// nominal supply, torque, current at stall and speed without load: the models' data sheets
struct ModelData {
  int number;
  MotorData motor;
  double current_unit;  // [A]; 0: reports a load instead
  int current_limit;
  int p_gain;
};
constexpr MotorData motor(double supply, double torque, double current, double rev_per_min) {
  return {.nominal_supply = supply,
          .stall_torque = torque,
          .stall_current = current,
          .back_emf = torque / (rev_per_min * 2 * 3.14159265358979323846 / 60)};
}
constexpr ModelData kModels[] = {
    {1200, motor(5, 0.52, 1.47, 103), 1e-3, 1750, 400},    // XL330-M288
    {1190, motor(5, 0.22, 1.47, 383), 1e-3, 1750, 400},    // XL330-M077
    {1060, motor(12, 1.5, 1.4, 61), 0, 0, 800},            // XL430-W250
    {1070, motor(12, 1.9, 1.4, 70), 0, 0, 700},            // XC430-W150
    {1020, motor(12, 4.1, 2.3, 46), 2.69e-3, 1193, 800},   // XM430-W350
    {1120, motor(12, 10.6, 4.4, 30), 2.69e-3, 2047, 800},  // XM540-W270
};
const ModelData& find_model(int number) {
  for (const ModelData& model : kModels)
    if (model.number == number) return model;
  return kModels[0];
}

constexpr double kVelocityUnit = 0.229 * 2 * 3.14159265358979323846 / 60;  // [rad/s]
constexpr int kFullPwm = 885;
constexpr double kWatchdogUnit = 0.02;   // [s]
constexpr double kOverloadShare = 0.95;  // of full drive ...
constexpr double kOverloadTime = 4.0;    // ... for this long [s]
constexpr double kVelocityGain = 0.3;    // share of full drive per rad/s
constexpr int kMaxTurns = 256;           // of the extended position mode

// address, bytes, writable; the rest of the table answers 0 and refuses writes
struct Row {
  int address, size;
  bool is_writable, is_signed;
};
constexpr Row kRows[] = {
    {0, 2, false, false},  {2, 4, false, false},   {6, 1, false, false},   {7, 1, true, false},
    {8, 1, true, false},   {9, 1, true, false},    {10, 1, true, false},   {11, 1, true, false},
    {12, 1, true, false},  {13, 1, true, false},   {20, 4, true, true},    {24, 4, true, false},
    {31, 1, true, false},  {32, 2, true, false},   {34, 2, true, false},   {36, 2, true, false},
    {38, 2, true, false},  {44, 4, true, false},   {48, 4, true, false},   {52, 4, true, false},
    {60, 1, true, false},  {63, 1, true, false},   {64, 1, true, false},   {65, 1, true, false},
    {68, 1, true, false},  {69, 1, false, false},  {70, 1, false, false},  {76, 2, true, false},
    {78, 2, true, false},  {80, 2, true, false},   {82, 2, true, false},   {84, 2, true, false},
    {88, 2, true, false},  {90, 2, true, false},   {98, 1, true, true},    {100, 2, true, true},
    {102, 2, true, true},  {104, 4, true, true},   {108, 4, true, false},  {112, 4, true, false},
    {116, 4, true, true},  {120, 2, false, false}, {122, 1, false, false}, {123, 1, false, false},
    {124, 2, false, true}, {126, 2, false, true},  {128, 4, false, true},  {132, 4, false, true},
    {136, 4, false, true}, {140, 4, false, true},  {144, 2, false, false}, {146, 1, false, false},
};
const Row* row_at(int address) {
  for (const Row& row : kRows)
    if (row.address == address) return &row;
  return nullptr;
}
bool is_persistent(int address) { return address < kTorque; }
bool is_goal(int address) {
  return address == kGoalPwm || address == kGoalCurrent || address == kGoalVelocity ||
         address == kGoalPosition;
}

}  // namespace

DxlServo::DxlServo(const ServoSetup& setup)
    : Servo(setup, find_model(setup.model ? setup.model : 1200).motor) {
  const ServoSetup& s = setup;
  const ModelData& model = find_model(s.model ? s.model : 1200);
  check(s.model == 0 || model.number == s.model, "model " + std::to_string(s.model) + " is not emulated");
  check(std::abs(s.homing_offset) <= 1'044'479,
        "homing_offset " + std::to_string(s.homing_offset) + " must be -1044479..1044479 ticks");
  check(s.firmware >= 0 && s.firmware <= 255, "firmware must be 0..255");
  check(s.drive_mode >= 0 && s.drive_mode <= 15, "drive_mode must be 0..15");
  has_current_ = model.current_unit > 0;
  current_unit_ = model.current_unit;

  put(kModel, 2, model.number);
  put(kFirmware, 1, s.firmware ? s.firmware : 52);
  put(kId, 1, s.id);
  put(kBaud, 1, 3);
  put(kReturnDelay, 1, 0);
  put(kDriveMode, 1, s.drive_mode);
  put(kMode, 1, s.operating_mode < 0 ? 4 : s.operating_mode);
  put(kProtocol, 1, 2);
  put(kHomingOffset, 4, s.homing_offset);
  put(kMovingThreshold, 4, 10);
  put(kMaxTemperature, 1, 72);
  put(kMaxVoltage, 2, static_cast<int>(std::lround(motor_.nominal_supply * 13)));
  put(kMinVoltage, 2, static_cast<int>(std::lround(motor_.nominal_supply * 6)));
  put(kPwmLimit, 2, kFullPwm);
  put(kCurrentLimit, 2, model.current_limit);
  put(kVelocityLimit, 4, 445);
  put(kMaxPosition, 4, s.range_max);
  put(kMinPosition, 4, s.range_min);
  put(kShutdown, 1, kHeatBit | kOverloadBit | 1 << 4);
  stored_ = live_;

  setup_.pitch_sign *= direction();  // told for the reported position; the plant counts the encoder's
  // present = direction * encoder + homing offset
  const auto encoder = [&](int ticks) { return direction() * (ticks - s.homing_offset) * kRadiansPerTick; };
  angle_ = encoder(s.position);
  center_ = encoder(2048);
  stop_min_ = std::min(encoder(s.stop_min), encoder(s.stop_max));
  stop_max_ = std::max(encoder(s.stop_min), encoder(s.stop_max));
  power_cycle();
  start_turns_ = 0;  // as it left the bench: what it reports is the setup's position
  put(kGoalPosition, 4, present_ticks());
  goal_ticks_ = present_ticks();
  setpoint_ = goal_ticks_;
}

int DxlServo::number(int address, int size) const noexcept {
  std::uint32_t raw = 0;
  for (int i = size; i-- > 0;) raw = raw << 8 | value(address + i);
  const int unused = 32 - 8 * size;
  return static_cast<std::int32_t>(raw << unused) >> unused;
}

void DxlServo::put(int address, int size, int value) noexcept {
  const auto raw = static_cast<std::uint32_t>(value);
  for (int i = 0; i < size; ++i)
    live_[static_cast<std::size_t>(address + i)] = static_cast<std::uint8_t>(raw >> 8 * i);
}

double DxlServo::position_ticks() const noexcept {
  const double jump = faults_.value(FaultKind::sensor_jump);
  const double actual = direction() * (angle_ + jump) / kRadiansPerTick - start_turns_;
  return actual + number(kHomingOffset, 4);
}

int DxlServo::present_ticks() const noexcept { return static_cast<int>(std::lround(position_ticks())); }

bool DxlServo::holds_position() const noexcept {
  const int mode = value(kMode);
  return mode == 3 || mode == 4 || mode == 5;
}

std::uint8_t DxlServo::own_error() const noexcept {
  const double volts = supply_ * 10;
  const bool is_outside = volts > word(kMaxVoltage) || volts < word(kMinVoltage);
  return static_cast<std::uint8_t>(latched_ | (is_outside ? kVoltageBit : 0));
}

std::uint8_t DxlServo::hardware_error() const noexcept {
  return static_cast<std::uint8_t>(own_error() |
                                   static_cast<std::uint8_t>(faults_.value(FaultKind::drive_error)));
}

void DxlServo::refresh() noexcept {
  const double speed = direction() * velocity_ / kVelocityUnit;
  const int turns = static_cast<int>(faults_.value(FaultKind::encoder_wrap));
  put(kHardwareError, 1, hardware_error());
  put(kRegistered, 1, prepared_size_ > 0);
  put(kTick, 2, static_cast<int>(std::fmod(age_ * 1000, 32768)));
  put(kMoving, 1, std::abs(speed) > number(kMovingThreshold, 4));
  put(kPresentPwm, 2, static_cast<int>(std::lround(effort_ * kFullPwm)));
  const double share = direction() * motor_torque_ / motor_.stall_torque;
  const double measured = has_current_ ? share * motor_.stall_current / current_unit_ : share * 1000;
  put(kPresentCurrent, 2, static_cast<int>(std::lround(std::clamp(measured, -32767.0, 32767.0))));
  put(kPresentVelocity, 4, static_cast<int>(std::lround(speed)));
  put(kPresentPosition, 4, present_ticks() + turns * kTicksPerTurn);
  put(kPresentVoltage, 2, static_cast<int>(std::lround(supply_ * 10)));
  put(kPresentTemperature, 1, static_cast<int>(std::clamp(std::lround(temperature_), 0L, 127L)));
}

// what the value of a whole register may be
std::uint8_t DxlServo::judge(int address, int value) const noexcept {
  const auto within = [&](int min, int max, std::uint8_t error) -> std::uint8_t {
    return value < min || value > max ? error : 0;
  };
  switch (address) {
    case kId:
      return within(0, 252, kRangeError);
    case kBaud:
      return within(0, 7, kRangeError);
    case kReturnDelay:
      return within(0, 254, kRangeError);
    case kMode:
      return value == 1 || value == 3 || value == 4 || value == 16 ||
                     (has_current_ && (value == 0 || value == 5))
                 ? 0
                 : kRangeError;
    case kHomingOffset:
      return within(-1'044'479, 1'044'479, kRangeError);
    case kPwmLimit:
      return within(0, kFullPwm, kRangeError);
    case kMaxPosition:
    case kMinPosition:
      return within(0, kTicksPerTurn - 1, kRangeError);
    case kTorque:
      if (value == 1 && latched_) return kResultFail;  // until it is rebooted
      return within(0, 1, kRangeError);
    case kStatusLevel:
      return within(0, 2, kRangeError);
    case kWatchdog:
      return has_tripped() && value != 0 ? kRangeError : within(0, 127, kRangeError);
    case kGoalPwm:
      return within(-word(kPwmLimit), word(kPwmLimit), kLimitError);
    case kGoalCurrent:
      return within(-word(kCurrentLimit), word(kCurrentLimit), kLimitError);
    case kGoalPosition:
      if (this->value(kMode) == 3)
        return within(number(kMinPosition, 4), number(kMaxPosition, 4), kLimitError);
      return within(-kMaxTurns * kTicksPerTurn, kMaxTurns * kTicksPerTurn, kLimitError);
    default:
      return 0;
  }
}

std::uint8_t DxlServo::refusal(int address, std::span<const std::uint8_t> data) const noexcept {
  const int end = address + static_cast<int>(data.size());
  for (int at = address; at < end;) {
    const Row* row = row_at(at);
    if (!row) {
      // inside a register, or where there is none
      const bool is_half = std::any_of(std::begin(kRows), std::end(kRows), [&](const Row& one) {
        return at > one.address && at < one.address + one.size;
      });
      return is_half ? kLengthError : kAccessError;
    }
    if (at + row->size > end) return kLengthError;
    const bool is_absent = !has_current_ && (at == kCurrentLimit || at == kGoalCurrent);
    if (!row->is_writable || is_absent || (is_persistent(at) && torque())) return kAccessError;
    if (is_goal(at) && has_tripped()) return kRangeError;
    std::uint32_t raw = 0;
    for (int i = row->size; i-- > 0;) raw = raw << 8 | data[static_cast<std::size_t>(at - address + i)];
    const int unused = 32 - 8 * row->size;
    const int value =
        row->is_signed ? static_cast<std::int32_t>(raw << unused) >> unused : static_cast<int>(raw);
    if (const std::uint8_t error = judge(at, value)) return error;
    at += row->size;
  }
  return 0;
}

WriteEffect DxlServo::write(int address, std::span<const std::uint8_t> data) noexcept {
  WriteEffect effect;
  if (faults_.has(FaultKind::ignore_writes)) return effect;
  effect.error = refusal(address, data);
  if (effect.error) return effect;
  const int end = address + static_cast<int>(data.size());
  const auto covers = [&](int at) { return address <= at && at < end; };
  const bool had_torque = torque();
  for (int at = address; at < end; ++at) {
    const auto index = static_cast<std::size_t>(at);
    live_[index] = data[static_cast<std::size_t>(at - address)];
    if (is_persistent(at)) stored_[index] = live_[index];
  }
  if (covers(kMode)) {
    put(kGoalPwm, 2, word(kPwmLimit));
    put(kGoalCurrent, 2, word(kCurrentLimit));
    put(kGoalVelocity, 4, 0);
  }
  if (covers(kHomingOffset) || covers(kDriveMode)) setpoint_ = position_ticks();
  if (covers(kTorque)) {
    effect.is_torque = true;
    effect.torque = torque();
    if (torque() && !had_torque) {
      setpoint_ = position_ticks();
      integral_ = overload_time_ = silence_ = 0;
      goal_ticks_ = number(kGoalPosition, 4);  // whatever the goal register holds, however old
    }
  }
  if (covers(kGoalPosition)) {
    effect.is_goal = true;
    effect.goal_ticks = number(kGoalPosition, 4);
    if (!faults_.has(FaultKind::stuck)) goal_ticks_ = effect.goal_ticks;
  }
  return effect;
}

void DxlServo::prepare_write(int address, std::span<const std::uint8_t> data) noexcept {
  if (refusal(address, data) == 0) Servo::prepare_write(address, data);
}

bool DxlServo::forget_turns() noexcept {
  if (torque()) return false;
  // an absolute encoder of one turn: whatever was before, it starts in 0..4095
  const double actual = direction() * angle_ / kRadiansPerTick;
  start_turns_ = static_cast<int>(std::floor(actual / kTicksPerTurn)) * kTicksPerTurn;
  return true;
}

void DxlServo::power_cycle() noexcept {
  live_ = stored_;
  if (faults_.has(FaultKind::wrong_mode)) set_mode(static_cast<int>(faults_.value(FaultKind::wrong_mode)));
  put(kStatusLevel, 1, 2);
  put(kPositionP, 2, find_model(word(kModel)).p_gain);
  put(kGoalPwm, 2, word(kPwmLimit));
  put(kGoalCurrent, 2, word(kCurrentLimit));
  latched_ = 0;
  forget_turns();
  put(kGoalPosition, 4, present_ticks());
  goal_ticks_ = present_ticks();
  setpoint_ = position_ticks();
  prepared_size_ = 0;
  motor_torque_ = effort_ = integral_ = overload_time_ = silence_ = age_ = 0;
}

// share of full drive [-1..1], in the reported direction
double DxlServo::position_drive(double dt) noexcept {
  const double goal = goal_ticks_;
  const int profile = number(kProfileVelocity, 4);
  const double step =
      profile > 0 ? profile * kVelocityUnit / kRadiansPerTick * dt : std::abs(goal - setpoint_);
  setpoint_ += std::clamp(goal - setpoint_, -step, step);

  const double error = setpoint_ - position_ticks();
  integral_ = word(kPositionI) ? integral_ + error * dt * 1000 : 0;
  const double speed = direction() * velocity_ / kRadiansPerTick / 1000;  // [ticks/ms]
  const double wanted = word(kPositionP) / 128.0 * error + word(kPositionI) / 65536.0 * integral_ -
                        word(kPositionD) / 16.0 * speed;
  double bound = std::abs(number(kGoalPwm, 2)) / double(kFullPwm);
  if (value(kMode) == 5)
    bound = std::min(bound, std::abs(number(kGoalCurrent, 2)) * current_unit_ / motor_.stall_current);
  return std::clamp(wanted / kFullPwm, -bound, bound);
}

bool DxlServo::control(double dt) noexcept {
  age_ += dt;
  silence_ += dt;
  if (!torque()) {
    effort_ = 0;
    return false;
  }
  const int watchdog = number(kWatchdog, 1);
  if (watchdog > 0 && silence_ > watchdog * kWatchdogUnit) {
    put(kWatchdog, 1, -1);
    // it stops: where it is becomes what it holds, until the watchdog is cleared and a new goal comes
    goal_ticks_ = present_ticks();
    setpoint_ = goal_ticks_;
    put(kGoalVelocity, 4, 0);
    put(kProfileVelocity, 4, 0);
  }
  const double unit = has_current_ ? current_unit_ / motor_.stall_current : 0;
  double share = 0;
  if (holds_position()) share = position_drive(dt);
  if (value(kMode) == 0) share = number(kGoalCurrent, 2) * unit;
  if (value(kMode) == 1)
    share = kVelocityGain * (number(kGoalVelocity, 4) * kVelocityUnit - direction() * velocity_);
  if (value(kMode) == 16) share = number(kGoalPwm, 2) / double(kFullPwm);
  effort_ = direction() * std::clamp(share, -1.0, 1.0);
  return true;
}

void DxlServo::protect(double dt) noexcept {
  overload_time_ = std::abs(effort_) >= kOverloadShare ? overload_time_ + dt : 0;
  if (overload_time_ > kOverloadTime) latched_ |= kOverloadBit;
  if (temperature_ > value(kMaxTemperature)) latched_ |= kHeatBit;
  if (own_error() & value(kShutdown)) live_[kTorque] = 0;
}

}  // namespace wallx::emulator
