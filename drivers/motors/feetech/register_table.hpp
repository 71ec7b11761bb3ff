// Register table: the control table of Feetech STS servos, one row per register.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace wallx::feetech {

inline constexpr int kTicksPerTurn = 4096;
inline constexpr int kMaxTicks = kTicksPerTurn - 1;
inline constexpr double kRadPerTick = 2 * std::numbers::pi / kTicksPerTurn;

enum class Access : std::uint8_t { read, read_write };
enum class Memory : std::uint8_t {
  eprom,
  ram
};  // eprom survives power-off, and keeps a write only while lock = 0

struct Register {
  std::string_view name;
  std::uint8_t address = 0;
  std::uint8_t num_bytes = 1;  // two bytes: low byte first
  std::int8_t sign_bit = -1;   // bit that says "negative" (sign and magnitude); -1: unsigned
  double scale = 1;            // raw value * scale = value in `unit`
  std::string_view unit;       // empty: a plain number, a code or bits
  Access access = Access::read_write;
  Memory memory = Memory::ram;
};

// clang-format off
inline constexpr std::array kRegisters{
    Register{"firmware_major",      0, 1, -1, 1,            "",          Access::read,       Memory::eprom},
    Register{"firmware_minor",      1, 1, -1, 1,            "",          Access::read,       Memory::eprom},
    Register{"model_number",        3, 2, -1, 1,            "",          Access::read,       Memory::eprom},
    Register{"id",                  5, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"baud_rate_code",      6, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"return_delay",        7, 1, -1, 2e-6,         "s",         Access::read_write, Memory::eprom},
    Register{"response_level",      8, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"min_angle",           9, 2, -1, 1,            "ticks",     Access::read_write, Memory::eprom},
    Register{"max_angle",          11, 2, -1, 1,            "ticks",     Access::read_write, Memory::eprom},
    Register{"max_temperature",    13, 1, -1, 1,            "degC",      Access::read_write, Memory::eprom},
    Register{"max_voltage",        14, 1, -1, 0.1,          "V",         Access::read_write, Memory::eprom},
    Register{"min_voltage",        15, 1, -1, 0.1,          "V",         Access::read_write, Memory::eprom},
    Register{"max_torque",         16, 2, -1, 1e-3,         "share",     Access::read_write, Memory::eprom},
    Register{"phase",              18, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"unload_condition",   19, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"led_alarm",          20, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"position_p",         21, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"position_d",         22, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"position_i",         23, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"min_start_force",    24, 1, -1, 1e-3,         "share",     Access::read_write, Memory::eprom},
    Register{"integral_limit",     25, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"dead_zone_cw",       26, 1, -1, 1,            "ticks",     Access::read_write, Memory::eprom},
    Register{"dead_zone_ccw",      27, 1, -1, 1,            "ticks",     Access::read_write, Memory::eprom},
    Register{"protection_current", 28, 2, -1, 6.5e-3,       "A",         Access::read_write, Memory::eprom},
    Register{"angular_resolution", 30, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"homing_offset",      31, 2, 11, 1,            "ticks",     Access::read_write, Memory::eprom},
    Register{"operating_mode",     33, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"holding_torque",     34, 1, -1, 1e-2,         "share",     Access::read_write, Memory::eprom},
    Register{"protection_time",    35, 1, -1, 1e-2,         "s",         Access::read_write, Memory::eprom},
    Register{"overload_threshold", 36, 1, -1, 1e-2,         "share",     Access::read_write, Memory::eprom},
    Register{"speed_p",            37, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"overcurrent_time",   38, 1, -1, 1e-2,         "s",         Access::read_write, Memory::eprom},
    Register{"speed_i",            39, 1, -1, 1,            "",          Access::read_write, Memory::eprom},
    Register{"torque_enable",      40, 1, -1, 1,            "",          Access::read_write, Memory::ram},
    Register{"acceleration",       41, 1, -1, 100,          "ticks/s^2", Access::read_write, Memory::ram},
    Register{"goal_position",      42, 2, 15, 1,            "ticks",     Access::read_write, Memory::ram},
    Register{"goal_time",          44, 2, 10, 1,            "",          Access::read_write, Memory::ram},
    Register{"goal_speed",         46, 2, 15, 1,            "ticks/s",   Access::read_write, Memory::ram},
    Register{"torque_limit",       48, 2, -1, 1e-3,         "share",     Access::read_write, Memory::ram},
    Register{"lock",               55, 1, -1, 1,            "",          Access::read_write, Memory::ram},
    Register{"present_position",   56, 2, 15, kRadPerTick,  "rad",       Access::read,       Memory::ram},
    Register{"present_speed",      58, 2, 15, kRadPerTick,  "rad/s",     Access::read,       Memory::ram},
    Register{"present_load",       60, 2, 10, 1e-3,         "share",     Access::read,       Memory::ram},
    Register{"present_voltage",    62, 1, -1, 0.1,          "V",         Access::read,       Memory::ram},
    Register{"present_temperature",63, 1, -1, 1,            "degC",      Access::read,       Memory::ram},
    Register{"async_flag",         64, 1, -1, 1,            "",          Access::read,       Memory::ram},
    Register{"status",             65, 1, -1, 1,            "",          Access::read,       Memory::ram},
    Register{"moving",             66, 1, -1, 1,            "",          Access::read,       Memory::ram},
    Register{"present_current",    69, 2, 15, 6.5e-3,       "A",         Access::read,       Memory::ram},
};
// clang-format on

// A name that is not in the table does not compile.
consteval Register find_register(std::string_view name) {
  for (const Register& row : kRegisters)
    if (row.name == name) return row;
  throw "no such register";
}

// model numbers as the servos report them
inline constexpr int kModelSts3215 = 777;
inline constexpr int kModelSts3250 = 2825;

inline constexpr int kModePosition = 0;  // operating_mode
inline constexpr int kModeVelocity = 1;
inline constexpr int kAnswerAll = 1;  // response_level: every instruction is answered
// phase: bit 2 speed in single ticks/s, bit 3 goal speed 0 means as fast as possible, bit 4 multi-turn
// position
inline constexpr int kPhaseMask = 0b11100;
inline constexpr int kPhaseExpected = 0b01100;

// error bits of an answer
inline constexpr std::uint8_t kErrorVoltage = 1 << 0;
inline constexpr std::uint8_t kErrorAngle = 1 << 1;
inline constexpr std::uint8_t kErrorTemperature = 1 << 2;
inline constexpr std::uint8_t kErrorCurrent = 1 << 3;
inline constexpr std::uint8_t kErrorOverload = 1 << 5;
// An error is a fault when the servo may have let go because of it: an encoder it cannot read, and whatever
// its register unload_condition lists (factory: temperature, current, overload). The rest, like a low voltage
// that it is not told to let go for, is a warning.
inline constexpr std::uint8_t kErrorsAlwaysFaults = kErrorAngle;

}  // namespace wallx::feetech
