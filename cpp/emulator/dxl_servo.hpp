// DxlServo: one emulated Dynamixel X servo: its control table, its controller and its protections.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulator/servo.hpp"

namespace wallx::emulator {

namespace dxl {  // addresses this emulator gives a meaning to
inline constexpr int kModel = 0, kFirmware = 6, kId = 7, kBaud = 8, kReturnDelay = 9, kDriveMode = 10,
                     kMode = 11, kProtocol = 13, kHomingOffset = 20, kMovingThreshold = 24,
                     kMaxTemperature = 31, kMaxVoltage = 32, kMinVoltage = 34, kPwmLimit = 36,
                     kCurrentLimit = 38, kVelocityLimit = 44, kMaxPosition = 48, kMinPosition = 52,
                     kShutdown = 63, kTorque = 64, kStatusLevel = 68, kRegistered = 69, kHardwareError = 70,
                     kPositionD = 80, kPositionI = 82, kPositionP = 84, kWatchdog = 98, kGoalPwm = 100,
                     kGoalCurrent = 102, kGoalVelocity = 104, kProfileAcceleration = 108,
                     kProfileVelocity = 112, kGoalPosition = 116, kTick = 120, kMoving = 122,
                     kPresentPwm = 124, kPresentCurrent = 126, kPresentVelocity = 128, kPresentPosition = 132,
                     kPresentVoltage = 144, kPresentTemperature = 146;
// codes in the low bits of an answer's error byte
inline constexpr std::uint8_t kResultFail = 1, kInstructionError = 2, kRangeError = 4, kLengthError = 5,
                              kLimitError = 6, kAccessError = 7, kAlert = 0x80;
// bits of kHardwareError
inline constexpr std::uint8_t kVoltageBit = 1 << 0, kHeatBit = 1 << 2, kOverloadBit = 1 << 5;
}  // namespace dxl

// Of the registers' rules: what cannot be written, or not with torque on, is refused; so is half a register,
// a value out of bounds, and every goal while the bus watchdog has tripped. A refused write changes nothing.
// Profile acceleration, indirect addresses and the back-up of the control table are not emulated.
class DxlServo final : public Servo {
 public:
  static constexpr std::size_t kNumRegisters = 256;

  explicit DxlServo(const ServoSetup& setup);  // throws ConfigError

  std::size_t num_registers() const noexcept override { return kNumRegisters; }
  std::uint8_t id() const noexcept override { return live_[dxl::kId]; }
  std::uint8_t error_bits() const noexcept override { return hardware_error() ? dxl::kAlert : 0; }
  Duration return_delay() const noexcept override {
    return std::chrono::microseconds(2 * value(dxl::kReturnDelay));
  }
  bool answers_reads() const noexcept { return value(dxl::kStatusLevel) >= 1; }
  bool answers_writes() const noexcept override { return value(dxl::kStatusLevel) >= 2; }
  WriteEffect write(int address, std::span<const std::uint8_t> data) noexcept override;
  void prepare_write(int address, std::span<const std::uint8_t> data) noexcept override;
  void power_cycle() noexcept override;
  void hear() noexcept override { silence_ = 0; }
  bool forget_turns() noexcept;  // the CLEAR instruction; false: not while the torque is on
  double position_ticks() const noexcept override;  // counts turns
  int present_ticks() const noexcept override;
  std::uint8_t torque() const noexcept override { return live_[dxl::kTorque]; }
  bool has_tripped() const noexcept { return value(dxl::kWatchdog) == 0xFF; }

 private:
  bool control(double dt) noexcept override;
  void protect(double dt) noexcept override;
  void refresh() noexcept override;
  void set_mode(int mode) noexcept override { live_[dxl::kMode] = static_cast<std::uint8_t>(mode); }
  int stored_mode() const noexcept override { return stored_[dxl::kMode]; }
  void lose_torque() noexcept override { live_[dxl::kTorque] = 0; }

  int number(int address, int size) const noexcept;  // two's complement, little-endian
  void put(int address, int size, int value) noexcept;
  std::uint8_t refusal(int address, std::span<const std::uint8_t> data) const noexcept;
  std::uint8_t judge(int address, int value) const noexcept;
  std::uint8_t own_error() const noexcept;       // what really is wrong
  std::uint8_t hardware_error() const noexcept;  // and what a fault makes it say
  bool holds_position() const noexcept;
  double direction() const noexcept { return value(dxl::kDriveMode) & 1 ? -1 : 1; }
  double position_drive(double dt) noexcept;

  bool has_current_ = true;   // else register 126 is a load
  double current_unit_ = 0;   // [A]
  int start_turns_ = 0;       // turns of the encoder that are not counted   [ticks]
  double setpoint_ = 0;       // where the profile is                        [ticks]
  double integral_ = 0;       // of the position error                       [ticks ms]
  double silence_ = 0;        // since the last instruction on the line      [s]
  double overload_time_ = 0;  // [s]
  double age_ = 0;            // since power-up                              [s]
  std::uint8_t latched_ = 0;  // hardware errors, until a reboot
};

}  // namespace wallx::emulator
