// StsServo: one emulated Feetech STS3215: its registers, its controller and its protections.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "emulator/servo.hpp"

namespace wallx::emulator {

inline constexpr std::size_t kNumRegisters = 128;

namespace reg {  // addresses this emulator gives a meaning to
inline constexpr int kModel = 3, kId = 5, kBaud = 6, kReturnDelay = 7, kResponseLevel = 8, kMinPosition = 9,
                     kMaxPosition = 11, kMaxTemperature = 13, kMaxVoltage = 14, kMinVoltage = 15,
                     kMaxTorque = 16, kPhase = 18, kUnloadCondition = 19, kPGain = 21, kDGain = 22,
                     kIGain = 23, kIntegralLimit = 25, kDeadZoneCw = 26, kDeadZoneCcw = 27,
                     kProtectionCurrent = 28, kHomingOffset = 31, kMode = 33, kHoldingTorque = 34,
                     kProtectionTime = 35, kOverloadThreshold = 36, kOverCurrentTime = 38, kTorque = 40,
                     kAcceleration = 41, kGoalPosition = 42, kGoalTime = 44, kGoalSpeed = 46,
                     kTorqueLimit = 48, kLock = 55, kPresentPosition = 56, kPresentSpeed = 58,
                     kPresentLoad = 60, kPresentVoltage = 62, kPresentTemperature = 63, kAsyncFlag = 64,
                     kStatus = 65, kMoving = 66, kTargetPosition = 67, kPresentCurrent = 69;
}  // namespace reg

// the values of register 40
enum Torque : std::uint8_t { kTorqueOff = 0, kTorqueOn = 1, kTorqueDamping = 2, kMakeCenter = 128 };

// error bits of every answer, and of register 65
enum ErrorBit : std::uint8_t {
  kVoltageError = 1 << 0,
  kTemperatureError = 1 << 2,
  kCurrentError = 1 << 3,
  kOverloadError = 1 << 5,
};

class StsServo final : public Servo {
 public:
  explicit StsServo(const ServoSetup& setup);  // throws ConfigError

  std::size_t num_registers() const noexcept override { return kNumRegisters; }
  std::uint8_t id() const noexcept override { return live_[reg::kId]; }
  std::uint8_t error_bits() const noexcept override;
  Duration return_delay() const noexcept override {
    return std::chrono::microseconds(2 * value(reg::kReturnDelay));
  }
  bool answers_writes() const noexcept override { return value(reg::kResponseLevel) != 0; }
  WriteEffect write(int address, std::span<const std::uint8_t> data) noexcept override;
  void power_cycle() noexcept override;
  double position_ticks() const noexcept override;  // [0..4096)
  int present_ticks() const noexcept override;      // [0..4095]
  std::uint8_t torque() const noexcept override { return live_[reg::kTorque]; }

 private:
  bool control(double dt) noexcept override;
  void protect(double dt) noexcept override;
  void refresh() noexcept override;
  void set_mode(int mode) noexcept override { live_[reg::kMode] = static_cast<std::uint8_t>(mode); }
  int stored_mode() const noexcept override { return stored_[reg::kMode]; }
  void lose_torque() noexcept override { set_torque(kTorqueOff); }

  int signed_word(int address, int sign_bit) const noexcept;  // sign-magnitude
  void put_signed_word(int address, int value, int sign_bit) noexcept;
  void take_goal() noexcept;
  void set_torque(std::uint8_t value) noexcept;
  void make_center() noexcept;
  void follow_goal(double dt) noexcept;
  double drive(double dt) noexcept;

  double timed_speed_ = 0;     // speed that meets the goal time, 0: no goal time [rad/s]
  double setpoint_ = 0;        // profile on the way to the goal      [rad, reported frame]
  double setpoint_speed_ = 0;  // [rad/s]
  double integral_ = 0;        // of the position error               [ticks s]
  double overload_time_ = 0;   // [s]
  double over_current_time_ = 0;
  bool is_overloaded_ = false;    // latched: drive is bound to the holding torque
  bool is_over_current_ = false;  // latched: drive is off
  bool is_too_hot_ = false;       // latched: drive is off
};

}  // namespace wallx::emulator
