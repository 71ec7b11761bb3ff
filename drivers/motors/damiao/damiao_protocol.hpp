// Damiao protocol: the CAN frames of Damiao DM motors; pure functions, no I/O, no allocation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/result.hpp"
#include "drivers/motors/damiao/register_table.hpp"
#include "hardware/can_bus.hpp"

namespace wallx::damiao {

// A motor listens to its own id (plus a base per mode) and to kParameterId, and answers with its feedback id.
// Frames have 11-bit ids and 8 bytes; encoders make classic ones.
inline constexpr std::uint32_t kParameterId = 0x7FF;
inline constexpr double kMaxKp = 500;             // [N m/rad]
inline constexpr double kMaxKd = 5;               // [N m s/rad]
inline constexpr double kMaxForceVelocity = 100;  // of pos_force [rad/s]

enum class Mode : std::uint8_t { mit = 1, pos_vel = 2, vel = 3, pos_force = 4 };  // register ctrl_mode

// added to the motor's id for the frames of a mode
constexpr std::uint32_t mode_base(Mode mode) noexcept { return (static_cast<std::uint32_t>(mode) - 1) << 8; }

// what a motor says about itself in every feedback
enum Status : std::uint8_t {
  kDisabled = 0x0,
  kEnabled = 0x1,
  kOverVoltage = 0x8,
  kUnderVoltage = 0x9,
  kOverCurrent = 0xA,
  kMosTooHot = 0xB,
  kRotorTooHot = 0xC,
  kLostCommunication = 0xD,
  kOverload = 0xE,
};
const char* to_string(Status status) noexcept;

// One step of what frames carry. Both ends round toward -range, so a value is half a step below what was
// meant.
constexpr double position_step(const Ranges& ranges) noexcept { return 2 * ranges.position / 65535; }
constexpr double velocity_step(const Ranges& ranges) noexcept { return 2 * ranges.velocity / 4095; }
constexpr double torque_step(const Ranges& ranges) noexcept { return 2 * ranges.torque / 4095; }

enum class Special : std::uint8_t { clear_error = 0xFB, enable = 0xFC, disable = 0xFD, set_zero = 0xFE };

// torque = kp (position - measured) + kd (velocity - measured) + torque
struct MitCommand {
  double position = 0;  // [rad]
  double velocity = 0;  // [rad/s]
  double kp = 0;        // 0..500 [N m/rad]
  double kd = 0;        // 0..5 [N m s/rad]
  double torque = 0;    // [N m]
};

struct Feedback {
  std::uint8_t status = 0;    // Status, or a code that is not documented
  double position = 0;        // [rad]
  double velocity = 0;        // [rad/s]
  double torque = 0;          // [N m]
  int mos_temperature = 0;    // [degC]
  int rotor_temperature = 0;  // [degC]
};

struct Parameter {
  Register row;
  bool is_written = false;  // answers a write, with the value now in force
  double value = 0;         // in the row's unit
};

// Encoders. `id` 1..0xFF is the motor's own. Results: not_finite; out_of_range when a value has no encoding.

// Position, velocity and torque beyond the ranges are clipped, as the motor's own library does; so is the
// rounding: toward zero. out_of_range: gains beyond their bounds, or a kd that encodes to 0 with kp > 0,
// which lets the motor oscillate. Never looks like a special frame: the torque yields by up to 5 steps of
// 4095.
Result encode_mit(std::uint32_t id, const MitCommand& command, const Ranges& ranges,
                  CanFrame& frame) noexcept;
Result encode_pos_vel(std::uint32_t id, double position, double max_velocity, CanFrame& frame) noexcept;
Result encode_vel(std::uint32_t id, double velocity, CanFrame& frame) noexcept;
// max_velocity 0..100 [rad/s]; max_current 0..1, share of the drive's largest current
Result encode_pos_force(std::uint32_t id, double position, double max_velocity, double max_current,
                        CanFrame& frame) noexcept;
CanFrame encode_special(std::uint32_t id, Mode mode, Special special) noexcept;

CanFrame encode_read(std::uint32_t id, const Register& row) noexcept;
// `value` in the row's unit. out_of_range also for a register that cannot be written.
Result encode_write(std::uint32_t id, const Register& row, double value, CanFrame& frame) noexcept;
CanFrame encode_store(
    std::uint32_t id) noexcept;  // writes all registers to flash; only a disabled motor does
CanFrame encode_refresh(std::uint32_t id) noexcept;  // asks for a feedback and changes nothing

// Decoders. False: not a whole answer of motor `id`. Neither ever takes a frame on kParameterId, which is a
// question. They look into the data only: that the frame came under the motor's feedback id is for the caller
// to see.
bool decode_parameter(const CanFrame& frame, std::uint32_t id, Parameter& parameter) noexcept;
// A frame that reads as an answer about a register is not taken for feedback: as one it would be a disabled
// motor within 0.5 % of the end of its range.
bool decode_feedback(const CanFrame& frame, std::uint32_t id, const Ranges& ranges,
                     Feedback& feedback) noexcept;

}  // namespace wallx::damiao
