// Register table: the control table of Dynamixel X servos, one row per register, and what differs by model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <numbers>
#include <span>
#include <string_view>

namespace wallx::dynamixel {

inline constexpr int kTicksPerTurn = 4096;
inline constexpr int kMaxTicks = kTicksPerTurn - 1;
inline constexpr double kRadPerTick = 2 * std::numbers::pi / kTicksPerTurn;
inline constexpr double kRadPerSecond =
    0.229 * 2 * std::numbers::pi / 60;  // per unit of velocity: 0.229 rev/min

enum class Access : std::uint8_t { read, read_write };
// eeprom survives power-off and can be written only while the torque is off
enum class Memory : std::uint8_t { eeprom, ram };

struct Register {
  std::string_view name;
  std::uint16_t address = 0;
  std::uint8_t num_bytes = 1;  // low byte first
  bool is_signed = false;      // two's complement
  double scale = 1;            // raw value * scale = value in `unit`
  std::string_view unit;       // empty: a plain number, a code or bits
  Access access = Access::read_write;
  Memory memory = Memory::ram;
};

// Currents count in Model::current_unit.
// clang-format off
inline constexpr std::array kRegisters{
    Register{"model_number",          0, 2, false, 1,             "",      Access::read,       Memory::eeprom},
    Register{"model_information",     2, 4, false, 1,             "",      Access::read,       Memory::eeprom},
    Register{"firmware_version",      6, 1, false, 1,             "",      Access::read,       Memory::eeprom},
    Register{"id",                    7, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"baud_rate_code",        8, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"return_delay",          9, 1, false, 2e-6,          "s",     Access::read_write, Memory::eeprom},
    Register{"drive_mode",           10, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"operating_mode",       11, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"secondary_id",         12, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"protocol_type",        13, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"homing_offset",        20, 4, true,  1,             "ticks", Access::read_write, Memory::eeprom},
    Register{"moving_threshold",     24, 4, false, kRadPerSecond, "rad/s", Access::read_write, Memory::eeprom},
    Register{"temperature_limit",    31, 1, false, 1,             "degC",  Access::read_write, Memory::eeprom},
    Register{"max_voltage",          32, 2, false, 0.1,           "V",     Access::read_write, Memory::eeprom},
    Register{"min_voltage",          34, 2, false, 0.1,           "V",     Access::read_write, Memory::eeprom},
    Register{"pwm_limit",            36, 2, false, 1.0 / 885,     "share", Access::read_write, Memory::eeprom},
    Register{"current_limit",        38, 2, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"velocity_limit",       44, 4, false, kRadPerSecond, "rad/s", Access::read_write, Memory::eeprom},
    Register{"max_position",         48, 4, false, 1,             "ticks", Access::read_write, Memory::eeprom},
    Register{"min_position",         52, 4, false, 1,             "ticks", Access::read_write, Memory::eeprom},
    Register{"startup_configuration",60, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"shutdown",             63, 1, false, 1,             "",      Access::read_write, Memory::eeprom},
    Register{"torque_enable",        64, 1, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"led",                  65, 1, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"status_return_level",  68, 1, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"registered",           69, 1, false, 1,             "",      Access::read,       Memory::ram},
    Register{"hardware_error",       70, 1, false, 1,             "",      Access::read,       Memory::ram},
    Register{"velocity_i",           76, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"velocity_p",           78, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"position_d",           80, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"position_i",           82, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"position_p",           84, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"feedforward_2",        88, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"feedforward_1",        90, 2, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"bus_watchdog",         98, 1, true,  0.02,          "s",     Access::read_write, Memory::ram},
    Register{"goal_pwm",            100, 2, true,  1.0 / 885,     "share", Access::read_write, Memory::ram},
    Register{"goal_current",        102, 2, true,  1,             "",      Access::read_write, Memory::ram},
    Register{"goal_velocity",       104, 4, true,  kRadPerSecond, "rad/s", Access::read_write, Memory::ram},
    Register{"profile_acceleration",108, 4, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"profile_velocity",    112, 4, false, 1,             "",      Access::read_write, Memory::ram},
    Register{"goal_position",       116, 4, true,  1,             "ticks", Access::read_write, Memory::ram},
    Register{"realtime_tick",       120, 2, false, 1e-3,          "s",     Access::read,       Memory::ram},
    Register{"moving",              122, 1, false, 1,             "",      Access::read,       Memory::ram},
    Register{"moving_status",       123, 1, false, 1,             "",      Access::read,       Memory::ram},
    Register{"present_pwm",         124, 2, true,  1.0 / 885,     "share", Access::read,       Memory::ram},
    Register{"present_current",     126, 2, true,  1,             "",      Access::read,       Memory::ram},
    Register{"present_velocity",    128, 4, true,  kRadPerSecond, "rad/s", Access::read,       Memory::ram},
    Register{"present_position",    132, 4, true,  kRadPerTick,   "rad",   Access::read,       Memory::ram},
    Register{"velocity_trajectory", 136, 4, true,  kRadPerSecond, "rad/s", Access::read,       Memory::ram},
    Register{"position_trajectory", 140, 4, true,  kRadPerTick,   "rad",   Access::read,       Memory::ram},
    Register{"present_voltage",     144, 2, false, 0.1,           "V",     Access::read,       Memory::ram},
    Register{"present_temperature", 146, 1, false, 1,             "degC",  Access::read,       Memory::ram},
};
// clang-format on

// A name that is not in the table does not compile.
consteval Register find_register(std::string_view name) {
  for (const Register& row : kRegisters)
    if (row.name == name) return row;
  throw "no such register";
}

// `block` holds the register and starts at address `first`
constexpr std::int64_t get(const Register& row, std::span<const std::uint8_t> block,
                           std::uint16_t first) noexcept {
  const std::uint8_t* at = block.data() + (row.address - first);
  std::uint64_t raw = 0;
  for (int i = row.num_bytes; i-- > 0;) raw = raw << 8 | at[i];
  const std::uint64_t sign = std::uint64_t{1} << (8 * row.num_bytes - 1);
  return row.is_signed && raw & sign ? static_cast<std::int64_t>(raw) - static_cast<std::int64_t>(2 * sign)
                                     : static_cast<std::int64_t>(raw);
}
// False, and nothing written, when the value does not fit into the register.
constexpr bool put(const Register& row, std::int64_t value, std::span<std::uint8_t> bytes) noexcept {
  const std::int64_t span = std::int64_t{1} << 8 * row.num_bytes;
  const std::int64_t min = row.is_signed ? -span / 2 : 0;
  if (value < min || value >= min + span || bytes.size() < row.num_bytes) return false;
  for (int i = 0; i < row.num_bytes; ++i)
    bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(value >> 8 * i & 0xFF);
  return true;
}

// what differs by model; sources: the models' pages of the e-manual
struct Model {
  int number = 0;
  std::string_view name;
  double stall_current = 0;  // [A]
  double current_unit = 0;   // of the current registers [A]; 0: has none, register 126 is a load in 0.1 %
  int min_fast_sync_firmware = 45;  // older firmware does not answer a fast sync read
  int min_watchdog_firmware = 38;   // older firmware has no bus watchdog

  constexpr double load_scale() const { return current_unit > 0 ? current_unit / stall_current : 1e-3; }
};

inline constexpr std::array kModels{
    Model{1190, "XL330-M077", 1.47, 1e-3, 46, 0},      // 5 V
    Model{1200, "XL330-M288", 1.47, 1e-3, 46, 0},      //
    Model{1210, "XC330-T181", 0.80, 1e-3, 46, 0},      // 12 V, as all that follow
    Model{1220, "XC330-T288", 0.80, 1e-3, 46, 0},      //
    Model{1060, "XL430-W250", 1.40, 0, 45, 38},        //
    Model{1070, "XC430-W150", 1.40, 0, 45, 38},        //
    Model{1020, "XM430-W350", 2.30, 2.69e-3, 45, 38},  //
    Model{1120, "XM540-W270", 4.40, 2.69e-3, 45, 38},  //
    Model{1110, "XH540-W150", 4.90, 2.69e-3, 45, 38},  //
    Model{1100, "XH540-W270", 4.90, 2.69e-3, 45, 38},  //
};

constexpr const Model* find_model(int number) noexcept {
  for (const Model& model : kModels)
    if (model.number == number) return &model;
  return nullptr;
}

// operating_mode
inline constexpr int kModeVelocity = 1;
inline constexpr int kModePosition = 3;
inline constexpr int kModeExtendedPosition = 4;
inline constexpr int kModeCurrentBasedPosition = 5;
inline constexpr int kAnswerAll = 2;  // status_return_level: every instruction is answered
// drive_mode: bit 0 the servo reverses its direction; bit 2 profiles are times, bit 3 a goal turns the torque
// on
inline constexpr int kDriveReverse = 1 << 0;
inline constexpr int kDriveMask = 0b1100;
inline constexpr int kMaxPwm = 885;
inline constexpr int kWatchdogTripped = -1;  // bus_watchdog
inline constexpr int kMaxWatchdog = 127;
inline constexpr int kMaxReturnDelay = 10;  // 20 us: what a loop can wait for each servo

// error byte of an answer
inline constexpr std::uint8_t kAlert = 1 << 7;
// bits of hardware_error
inline constexpr std::uint8_t kErrorVoltage = 1 << 0;
inline constexpr std::uint8_t kErrorTemperature = 1 << 2;
inline constexpr std::uint8_t kErrorEncoder = 1 << 3;
inline constexpr std::uint8_t kErrorShock = 1 << 4;
inline constexpr std::uint8_t kErrorOverload = 1 << 5;
inline constexpr std::uint8_t kErrorWatchdog = 1 << 6;  // ours, in drive_error: the bus watchdog has tripped

}  // namespace wallx::dynamixel
