// Servo: one emulated servo on a serial line: motor, gearbox and joint; a family puts its registers and its
// controller in front. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "base/time.hpp"
#include "emulator/faults.hpp"

namespace wallx::emulator {

inline constexpr int kTicksPerTurn = 4096;
inline constexpr double kRadiansPerTick = 2 * 3.14159265358979323846 / kTicksPerTurn;
inline constexpr std::size_t kMaxRegisters = 256;

// One servo as it leaves the bench, and the link that hangs on it. Ticks are counted as the servo reports
// them.
struct ServoSetup {
  std::string name;
  int id = 1;
  int model = 0;                 // as it reports itself; 0: the family's most common
  int firmware = 0;              // as it reports itself; 0: a recent one
  int drive_mode = 0;            // Dynamixel register 10
  int operating_mode = -1;       // Dynamixel register 11; -1: extended position
  int homing_offset = 0;         // Feetech register 31 [ticks, -2047..2047], Dynamixel 20 [ticks]
  int range_min = 0;             // Feetech registers 9-10, Dynamixel 52            [ticks]
  int range_max = 4095;          // Feetech registers 11-12, Dynamixel 48           [ticks]
  int position = 2048;           // where the joint stands at power-up            [ticks]
  int stop_min = 0;              // mechanical end stops                          [ticks]
  int stop_max = 4095;           //
  int p_gain = 16;               // Feetech register 21
  int max_torque = 1000;         // Feetech registers 16-17                       [0.1 %]
  int protection_current = 500;  // Feetech registers 28-29                       [6.5 mA]
  int overload_threshold = 80;   // Feetech register 36                           [%]
  double inertia = 0.028;        // rotor through the gearbox, and the link       [kg m^2]
  double damping = 0.15;         // viscous, torque off                           [N m s/rad]
  double friction = 0.05;        // Coulomb                                       [N m]
  double gravity = 0;            // moment of this link and all it carries, link horizontal [N m]
  int pitch_sign = 0;            // +1: a growing position raises the link, -1: lowers it, 0: does not pitch
  double pitch = 0;              // pitch added to the link before it, at position 2048 [rad]
};

// what the data sheet says
struct MotorData {
  double nominal_supply = 12;  // [V]
  double stall_torque = 1;     // at that supply                     [N m]
  double stall_current = 1;    // [A]
  double back_emf = 0.1;       // brakes while the bridge is closed  [N m s/rad]
};

// what a write did, for the log and the answer
struct WriteEffect {
  std::uint8_t error = 0;  // family-specific code; the write was refused as a whole
  bool is_goal = false;
  bool is_torque = false;
  int goal_ticks = 0;  // as written, before the position limits [ticks]
  int torque = 0;      // as written
};

class Servo {
 public:
  virtual ~Servo() = default;

  // The bus side. Addresses and lengths were checked by the caller: address + size <= num_registers().
  virtual std::size_t num_registers() const noexcept = 0;
  virtual std::uint8_t id() const noexcept = 0;
  virtual std::uint8_t error_bits() const noexcept = 0;  // of every answer
  virtual Duration return_delay() const noexcept = 0;
  virtual bool answers_writes() const noexcept = 0;
  std::uint8_t value(int address) const noexcept { return live_[static_cast<std::size_t>(address)]; }
  void read(int address, std::span<std::uint8_t> out) noexcept;
  std::span<const std::uint8_t> registers() noexcept;  // (num_registers()), feedback refreshed
  virtual WriteEffect write(int address, std::span<const std::uint8_t> data) noexcept = 0;
  virtual void prepare_write(int address,
                             std::span<const std::uint8_t> data) noexcept;  // the REG_WRITE instruction
  WriteEffect commit_write() noexcept;                                      // ACTION; no effect without one
  virtual void hear() noexcept {}  // a whole instruction was on the line, whoever it was for

  // The physical side.
  void step(double dt, double load_torque, double supply) noexcept;  // [s] [N m] [V]
  // The same in halves, for a joint that a world moves: what the motor does, then where the joint is.
  struct Drive {
    double push = 0;     // motor and hand [N m]
    double braking = 0;  // against the velocity [N m s/rad]
  };
  Drive drive(double dt, double supply) noexcept;                                               // [s] [V]
  void follow(double dt, double position_ticks, double velocity, const Drive& drive) noexcept;  // [rad/s]
  virtual void power_cycle() noexcept = 0;  // volatile registers are lost, torque is off
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
  double nominal_supply() const noexcept { return motor_.nominal_supply; }
  virtual double position_ticks() const noexcept = 0;      // as reported, before rounding [ticks]
  virtual int present_ticks() const noexcept = 0;          // as reported [ticks]
  int goal_ticks() const noexcept { return goal_ticks_; }  // in force, after the limits [ticks]
  virtual std::uint8_t torque() const noexcept = 0;        // 0 off, 1 on, family-specific beyond
  const ServoSetup& setup() const noexcept { return setup_; }

 protected:
  Servo(const ServoSetup& setup, const MotorData& motor);  // throws ConfigError

  // One period of the servo's own controller: sets effort_; true: the bridge is closed and brakes.
  virtual bool control(double dt) noexcept = 0;
  virtual void protect(double dt) noexcept = 0;  // after the joint has moved
  virtual void refresh() noexcept = 0;           // feedback into the registers
  virtual void set_mode(int mode) noexcept = 0;  // as the fault wrong_mode does
  virtual int stored_mode() const noexcept = 0;
  virtual void lose_torque() noexcept = 0;

  int word(int address) const noexcept;  // unsigned, little-endian
  void put_word(int address, int value) noexcept;
  void check(bool ok, const std::string& what) const;  // throws ConfigError

  ServoSetup setup_;
  MotorData motor_;
  std::array<std::uint8_t, kMaxRegisters> live_{};    // what the servo works with
  std::array<std::uint8_t, kMaxRegisters> stored_{};  // what survives a power cycle
  std::array<std::uint8_t, kMaxRegisters> prepared_{};
  int prepared_address_ = 0;
  std::size_t prepared_size_ = 0;

  // the joint, as its encoder sees it: no homing, no turns lost, positive as reported
  double angle_ = 0;     // [rad]
  double velocity_ = 0;  // [rad/s]
  double stop_min_ = 0;  // end stops [rad]
  double stop_max_ = 0;
  double center_ = 0;        // position 2048 [rad]
  double motor_torque_ = 0;  // [N m]
  double hand_push_ = 0;     // [N m]
  double effort_ = 0;
  double temperature_ = 25;  // [degC]
  double supply_ = 12;       // [V]
  int goal_ticks_ = 0;       // [ticks]
  FaultSet faults_;

 private:
  double hand_torque(double dt) noexcept;
  void settle(double dt, const Drive& drive) noexcept;

  double hand_ = std::numeric_limits<double>::quiet_NaN();  // share of the travel, not a number: no hand
  double hand_angle_ = 0;                                   // where the hand is [rad]
};

}  // namespace wallx::emulator
