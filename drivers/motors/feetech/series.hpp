// Series: what tells Feetech's two kinds of servos apart: the STS count 4096 ticks a turn, low byte first;
// the SCS (SCS0009) count 1024 over 300 degrees, high byte first. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "drivers/motors/feetech/register_table.hpp"

namespace wallx::feetech {

inline constexpr int kScsMaxTicks = 1023;
inline constexpr double kScsRadPerTick = 300.0 / 1024 * std::numbers::pi / 180;

// The SCS have no homing offset, no operating mode (both angle limits 0: a wheel), no torque limit but the
// one in EPROM, and do not answer a sync read.
// clang-format off
inline constexpr std::array kScsRegisters{
    Register{"firmware_major",      0, 1, -1, 1,              "",      Access::read,       Memory::eprom},
    Register{"firmware_minor",      1, 1, -1, 1,              "",      Access::read,       Memory::eprom},
    Register{"model_number",        3, 2, -1, 1,              "",      Access::read,       Memory::eprom},
    Register{"id",                  5, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"baud_rate_code",      6, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"return_delay",        7, 1, -1, 2e-6,           "s",     Access::read_write, Memory::eprom},
    Register{"response_level",      8, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"min_angle",           9, 2, -1, 1,              "ticks", Access::read_write, Memory::eprom},
    Register{"max_angle",          11, 2, -1, 1,              "ticks", Access::read_write, Memory::eprom},
    Register{"max_temperature",    13, 1, -1, 1,              "degC",  Access::read_write, Memory::eprom},
    Register{"max_voltage",        14, 1, -1, 0.1,            "V",     Access::read_write, Memory::eprom},
    Register{"min_voltage",        15, 1, -1, 0.1,            "V",     Access::read_write, Memory::eprom},
    Register{"max_torque",         16, 2, -1, 1e-3,           "share", Access::read_write, Memory::eprom},
    Register{"phase",              18, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"unload_condition",   19, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"led_alarm",          20, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"position_p",         21, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"position_d",         22, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"position_i",         23, 1, -1, 1,              "",      Access::read_write, Memory::eprom},
    Register{"min_start_force",    24, 2, -1, 1e-3,           "share", Access::read_write, Memory::eprom},
    Register{"dead_zone_cw",       26, 1, -1, 1,              "ticks", Access::read_write, Memory::eprom},
    Register{"dead_zone_ccw",      27, 1, -1, 1,              "ticks", Access::read_write, Memory::eprom},
    Register{"holding_torque",     37, 1, -1, 1e-2,           "share", Access::read_write, Memory::eprom},
    Register{"protection_time",    38, 1, -1, 1e-2,           "s",     Access::read_write, Memory::eprom},
    Register{"torque_enable",      40, 1, -1, 1,              "",      Access::read_write, Memory::ram},
    Register{"goal_position",      42, 2, -1, 1,              "ticks", Access::read_write, Memory::ram},
    Register{"goal_time",          44, 2, 10, 1e-3,           "s",     Access::read_write, Memory::ram},
    Register{"goal_speed",         46, 2, 15, kScsRadPerTick, "rad/s", Access::read_write, Memory::ram},
    Register{"lock",               48, 1, -1, 1,              "",      Access::read_write, Memory::ram},
    Register{"present_position",   56, 2, -1, kScsRadPerTick, "rad",   Access::read,       Memory::ram},
    Register{"present_speed",      58, 2, 15, kScsRadPerTick, "rad/s", Access::read,       Memory::ram},
    Register{"present_load",       60, 2, 10, 1e-3,           "share", Access::read,       Memory::ram},
    Register{"present_voltage",    62, 1, -1, 0.1,            "V",     Access::read,       Memory::ram},
    Register{"present_temperature",63, 1, -1, 1,              "degC",  Access::read,       Memory::ram},
    Register{"async_flag",         64, 1, -1, 1,              "",      Access::read,       Memory::ram},
    Register{"moving",             66, 1, -1, 1,              "",      Access::read,       Memory::ram},
};
// clang-format on
inline constexpr int kModelScs0009 = 1284;

struct Series {
  std::string_view name;
  std::span<const Register> registers;
  bool is_big_endian = false;

  // null: no such register
  constexpr const Register* find(std::string_view register_name) const noexcept {
    for (const Register& row : registers)
      if (row.name == register_name) return &row;
    return nullptr;
  }
  // of a register of one or two bytes, as they stand on the wire
  constexpr std::uint16_t get(const Register& row, const std::uint8_t* bytes) const noexcept {
    if (row.num_bytes == 1) return bytes[0];
    return static_cast<std::uint16_t>(is_big_endian ? bytes[0] << 8 | bytes[1] : bytes[0] | bytes[1] << 8);
  }
  constexpr void put(const Register& row, std::uint16_t raw, std::uint8_t* bytes) const noexcept {
    const auto low = static_cast<std::uint8_t>(raw & 0xFF), high = static_cast<std::uint8_t>(raw >> 8);
    bytes[0] = row.num_bytes == 2 && is_big_endian ? high : low;
    if (row.num_bytes == 2) bytes[1] = is_big_endian ? low : high;
  }
};

inline constexpr Series kSts{"STS", kRegisters, false};
inline constexpr Series kScs{"SCS", kScsRegisters, true};

}  // namespace wallx::feetech
