// DM motor: one emulated Damiao motor, a register file and a controller in front of a simulated joint.
// SPDX-License-Identifier: Apache-2.0
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

namespace dm {  // register numbers this emulator gives a meaning to
inline constexpr std::size_t kUnderVoltage = 0, kTorqueConstant = 1, kOverTemperature = 2, kMstId = 7,
                             kEscId = 8, kTimeout = 9, kControlMode = 10, kHardware = 13, kSoftware = 14,
                             kSerial = 15, kPolePairs = 16, kGearRatio = 20, kPMax = 21, kVMax = 22,
                             kTMax = 23, kOverVoltage = 29, kCanRate = 35, kSubVersion = 36,
                             kMotorPosition = 80, kOutputPosition = 81, kNumRegisters = 82;
// the code in the high half of a feedback's first byte
inline constexpr int kOff = 0, kOn = 1, kTooHigh = 8, kTooLow = 9, kMosHot = 11, kRotorHot = 12,
                     kSilence = 13, kOverload = 14;
}  // namespace dm

// One motor as it leaves the bench, and the link that hangs on it. Positions are the output shaft's, from the
// motor's own zero.
struct DmSetup {
  std::string name;
  int id = 1;              // register 8, it listens to
  int feedback_id = 0x11;  // register 7, it answers with
  int mode = 1;            // register 10: 1 MIT, 2 position and velocity, 3 velocity, 4 position and force
  int timeout = 0;         // register 9                                    [50 us], 0: off
  double pmax = 12.5;      // register 21                                   [rad]
  double vmax = 30;        // register 22                                   [rad/s]
  double tmax = 10;        // register 23                                   [N m]
  double peak_torque = 7;  // what it can really do                         [N m]
  int software = 5013;     // register 14
  int serial = 1;          // register 15
  double position = 0;     // where the joint stands at power-up            [rad]
  double stop_min = -3;    // mechanical end stops                          [rad]
  double stop_max = 3;     //
  double inertia = 0.03;   // rotor through the gearbox, and the link       [kg m^2]
  double damping = 0.1;    // viscous, torque off                           [N m s/rad]
  double friction = 0.05;  // Coulomb                                       [N m]
  double gravity = 0;      // moment of this link, link horizontal          [N m]
  int pitch_sign = 0;      // +1: a growing position raises the link, -1: lowers it, 0: does not pitch
  double pitch = 0;        // pitch added to the link before it, at position 0 [rad]
};

class DmMotor {
 public:
  explicit DmMotor(const DmSetup& setup);  // throws ConfigError

  // The bus side.
  int id() const noexcept { return static_cast<int>(live_[dm::kEscId]); }
  int feedback_id() const noexcept { return static_cast<int>(live_[dm::kMstId]); }
  // A frame on the motor's own id, `base` 0..3 for 0x000, 0x100, 0x200, 0x300. One of a mode it is not in, or
  // of a wrong length, changes nothing but the time of the last word it heard.
  void control(int base, std::span<const std::uint8_t> data, TimePoint at) noexcept;
  static bool has_register(int rid) noexcept;
  bool write_register(int rid,
                      std::uint32_t raw) noexcept;  // false: no such register, or it cannot be written
  std::uint32_t raw_register(int rid) const noexcept;
  void store() noexcept;  // all registers to flash, only without torque
  void feedback(std::array<std::uint8_t, 8>& out) const noexcept;

  // The physical side.
  void step(TimePoint now, double dt, double load_torque, double supply) noexcept;  // [s] [N m] [V]
  void power_cycle() noexcept;  // what was not stored is lost, torque is off
  double pitch_change() const noexcept { return setup_.pitch + setup_.pitch_sign * angle_; }
  double current() const noexcept;  // drawn from the supply, magnitude [A]

  // What can be wrong with it. What happens on the line, and when the power comes back, is the bus's.
  void set_fault(FaultKind kind, double value) noexcept;
  void clear_fault(FaultKind kind) noexcept;
  const FaultSet& faults() const noexcept { return faults_; }
  // A hand that drags the joint to a share of its travel between the end stops, slowly, and gives way to more
  // than it can push. Not a number: lets go.
  void set_hand(double share) noexcept;

  bool is_on() const noexcept { return is_on_; }
  int code() const noexcept;                                   // as reported, 0..15
  int mode() const noexcept;                                   // in force, 1..4
  double position() const noexcept { return angle_ - zero_; }  // from the motor's zero [rad]
  double goal() const noexcept { return goal_; }               // last one taken [rad]
  double stiffness() const noexcept { return kp_; }
  double force_share() const noexcept { return force_; }
  double velocity() const noexcept { return velocity_; }
  double torque() const noexcept { return torque_; }  // [N m]
  double temperature() const noexcept { return rotor_temperature_; }
  const DmSetup& setup() const noexcept { return setup_; }

 private:
  float number(std::size_t rid) const noexcept;
  double reported_position() const noexcept;
  double wanted_torque(double dt) noexcept;
  void protect(TimePoint now, double supply) noexcept;
  void trip(int code) noexcept;
  double hand_torque(double dt) noexcept;

  DmSetup setup_;
  std::array<std::uint32_t, dm::kNumRegisters> live_{};    // raw, floats by their bits
  std::array<std::uint32_t, dm::kNumRegisters> stored_{};  // flash
  bool is_on_ = false;
  int error_ = 0;  // latched until cleared or restarted
  double angle_ = 0, velocity_ = 0, torque_ = 0;
  double zero_ = 0;  // angle of the motor's zero [rad]
  double goal_ = 0, goal_velocity_ = 0, kp_ = 0, kd_ = 0, extra_torque_ = 0;
  double max_velocity_ = 0, force_ = 1;  // of the position modes
  double integral_ = 0;                  // of the speed controller [N m]
  double mos_temperature_ = 30, rotor_temperature_ = 30;
  double hand_ = std::numeric_limits<double>::quiet_NaN();  // share of the travel, not a number: no hand
  double hand_angle_ = 0;                                   // where the hand is [rad]
  TimePoint heard_at_{};
  FaultSet faults_;
  std::array<std::uint8_t, 8> frozen_{};  // the feedback it repeats with the fault freeze
};

}  // namespace wallx::emulator
