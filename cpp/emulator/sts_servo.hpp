// Servo: one emulated Feetech STS3215, a register file in front of a simulated motor, gearbox and joint.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "emulator/faults.hpp"

namespace wallx::emulator {

inline constexpr int kTicksPerTurn = 4096;
inline constexpr std::size_t kNumRegisters = 128;
inline constexpr double kRadiansPerTick = 2 * 3.14159265358979323846 / kTicksPerTurn;

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

// One servo as it leaves the bench, and the link that hangs on it. Ticks are counted as the servo reports
// them.
struct ServoSetup {
  std::string name;
  int id = 1;
  int homing_offset = 0;         // register 31                                   [ticks, -2047..2047]
  int range_min = 0;             // registers 9-10                                [ticks]
  int range_max = 4095;          // registers 11-12                               [ticks]
  int position = 2048;           // where the joint stands at power-up            [ticks]
  int stop_min = 0;              // mechanical end stops                          [ticks]
  int stop_max = 4095;           //
  int p_gain = 16;               // register 21
  int max_torque = 1000;         // registers 16-17                               [0.1 %]
  int protection_current = 500;  // registers 28-29                               [6.5 mA]
  int overload_threshold = 80;   // register 36                                   [%]
  double inertia = 0.028;        // rotor through the gearbox, and the link       [kg m^2]
  double damping = 0.15;         // viscous, torque off                           [N m s/rad]
  double friction = 0.05;        // Coulomb                                       [N m]
  double gravity = 0;            // moment of this link and all it carries, link horizontal [N m]
  int pitch_sign = 0;            // +1: a growing position raises the link, -1: lowers it, 0: does not pitch
  double pitch = 0;              // pitch added to the link before it, at position 2048 [rad]
};

// what a write did, for the log
struct WriteEffect {
  bool is_goal = false;
  bool is_torque = false;
  int goal_ticks = 0;  // as written, before the position limits [ticks]
  int torque = 0;      // as written to register 40
};

class StsServo {
 public:
  explicit StsServo(const ServoSetup& setup);  // throws ConfigError

  // The bus side. Addresses and lengths were checked by the caller: address + size <= kNumRegisters.
  std::uint8_t id() const noexcept { return live_[reg::kId]; }
  std::uint8_t error_bits() const noexcept;
  std::uint8_t value(int address) const noexcept { return live_[static_cast<std::size_t>(address)]; }
  void read(int address, std::span<std::uint8_t> out) noexcept;
  WriteEffect write(int address, std::span<const std::uint8_t> data) noexcept;
  void prepare_write(int address, std::span<const std::uint8_t> data) noexcept;  // REG_WRITE
  WriteEffect commit_write() noexcept;  // ACTION; no effect without one

  // The physical side.
  void step(double dt, double load_torque, double supply) noexcept;  // [s] [N m] [V]
  void power_cycle() noexcept;  // volatile registers are lost, torque is off
  // A hand that drags the joint to a share of its travel between the end stops, slowly, and gives way to more
  // than it can push. Not a number: lets go.
  void set_hand(double share) noexcept;
  const FaultSet& faults() const noexcept { return faults_; }
  void set_fault(FaultKind kind, double value) noexcept;
  void clear_fault(FaultKind kind) noexcept;
  double pitch_change() const noexcept;                   // pitch of this link against the one before [rad]
  double current() const noexcept;                        // [A], magnitude
  double velocity() const noexcept { return velocity_; }  // [rad/s]
  double effort() const noexcept { return effort_; }      // share of full drive, signed [-1..1]
  double temperature() const noexcept { return temperature_; }  // [degC]
  double position_ticks() const noexcept;                  // as reported, before rounding [ticks, 0..4096)
  int present_ticks() const noexcept;                      // [ticks, 0..4095]
  int goal_ticks() const noexcept { return goal_ticks_; }  // in force, after the limits [ticks]
  std::uint8_t torque() const noexcept { return live_[reg::kTorque]; }
  std::span<const std::uint8_t> registers() noexcept;  // (kNumRegisters), feedback refreshed
  const ServoSetup& setup() const noexcept { return setup_; }

 private:
  int word(int address) const noexcept;                       // unsigned, little-endian
  int signed_word(int address, int sign_bit) const noexcept;  // sign-magnitude
  void put_word(int address, int value) noexcept;
  void put_signed_word(int address, int value, int sign_bit) noexcept;
  void refresh() noexcept;
  void take_goal() noexcept;
  void set_torque(std::uint8_t value) noexcept;
  void make_center() noexcept;
  void follow_goal(double dt) noexcept;
  double drive(double dt) noexcept;
  void protect(double dt) noexcept;
  double hand_torque(double dt) noexcept;

  ServoSetup setup_;
  std::array<std::uint8_t, kNumRegisters> live_{};    // what the servo works with
  std::array<std::uint8_t, kNumRegisters> stored_{};  // what survives a power cycle
  std::array<std::uint8_t, kNumRegisters> prepared_{};
  int prepared_address_ = 0;
  std::size_t prepared_size_ = 0;

  double angle_ = 0;     // encoder angle, unwrapped            [rad]
  double velocity_ = 0;  // [rad/s]
  double stop_min_ = 0;  // end stops as encoder angles         [rad]
  double stop_max_ = 0;
  double motor_torque_ = 0;  // [N m]
  double effort_ = 0;
  double temperature_ = 25;    // [degC]
  double supply_ = 12;         // [V]
  int goal_ticks_ = 0;         // clamped by registers 9-12           [ticks]
  double timed_speed_ = 0;     // speed that meets the goal time, 0: no goal time [rad/s]
  double setpoint_ = 0;        // profile on the way to the goal      [rad, reported frame]
  double setpoint_speed_ = 0;  // [rad/s]
  double integral_ = 0;        // of the position error               [ticks s]
  double overload_time_ = 0;   // [s]
  double over_current_time_ = 0;
  bool is_overloaded_ = false;    // latched: drive is bound to the holding torque
  bool is_over_current_ = false;  // latched: drive is off
  bool is_too_hot_ = false;       // latched: drive is off
  FaultSet faults_;
  double hand_ = std::numeric_limits<double>::quiet_NaN();  // share of the travel, not a number: no hand
  double hand_angle_ = 0;                                   // where the hand is [rad]
};

}  // namespace wallx::emulator
