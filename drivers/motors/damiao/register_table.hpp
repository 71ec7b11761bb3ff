// Register table: the parameters of Damiao DM motors, one row per register (RID).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace wallx::damiao {

enum class Access : std::uint8_t { read, read_write };
enum class Type : std::uint8_t { u32, f32 };  // how the four bytes of a value are to be read, low byte first

struct Register {
  std::string_view name;
  std::uint8_t rid = 0;
  Type type = Type::f32;
  double scale = 1;       // raw value * scale = value in `unit`
  std::string_view unit;  // empty: a plain number or a code
  Access access = Access::read_write;
};

// clang-format off
inline constexpr std::array kRegisters{
    Register{"under_voltage",     0, Type::f32, 1,     "V",       Access::read_write},
    Register{"torque_constant",   1, Type::f32, 1,     "N m/A",   Access::read_write},
    Register{"over_temperature",  2, Type::f32, 1,     "degC",    Access::read_write},
    Register{"over_current",      3, Type::f32, 1,     "share",   Access::read_write},
    Register{"acceleration",      4, Type::f32, 1,     "rad/s^2", Access::read_write},
    Register{"deceleration",      5, Type::f32, 1,     "rad/s^2", Access::read_write},
    Register{"max_speed",         6, Type::f32, 1,     "rad/s",   Access::read_write},
    Register{"mst_id",            7, Type::u32, 1,     "",        Access::read_write},  // it answers with
    Register{"esc_id",            8, Type::u32, 1,     "",        Access::read_write},  // it listens to
    Register{"timeout",           9, Type::u32, 50e-6, "s",       Access::read_write},  // 0: off
    Register{"ctrl_mode",        10, Type::u32, 1,     "",        Access::read_write},  // Mode
    Register{"damping",          11, Type::f32, 1,     "",        Access::read},
    Register{"inertia",          12, Type::f32, 1,     "",        Access::read},
    Register{"hardware_version", 13, Type::u32, 1,     "",        Access::read},
    Register{"software_version", 14, Type::u32, 1,     "",        Access::read},
    Register{"serial_number",    15, Type::u32, 1,     "",        Access::read},
    Register{"pole_pairs",       16, Type::u32, 1,     "",        Access::read},
    Register{"resistance",       17, Type::f32, 1,     "Ohm",     Access::read},
    Register{"inductance",       18, Type::f32, 1,     "H",       Access::read},
    Register{"flux",             19, Type::f32, 1,     "Wb",      Access::read},
    Register{"gear_ratio",       20, Type::f32, 1,     "",        Access::read},
    Register{"pmax",             21, Type::f32, 1,     "rad",     Access::read_write},  // range of positions, +-
    Register{"vmax",             22, Type::f32, 1,     "rad/s",   Access::read_write},  // of velocities
    Register{"tmax",             23, Type::f32, 1,     "N m",     Access::read_write},  // of torques
    Register{"current_bandwidth",24, Type::f32, 1,     "",        Access::read_write},
    Register{"speed_kp",         25, Type::f32, 1,     "",        Access::read_write},
    Register{"speed_ki",         26, Type::f32, 1,     "",        Access::read_write},
    Register{"position_kp",      27, Type::f32, 1,     "",        Access::read_write},
    Register{"position_ki",      28, Type::f32, 1,     "",        Access::read_write},
    Register{"over_voltage",     29, Type::f32, 1,     "V",       Access::read_write},
    Register{"gear_efficiency",  30, Type::f32, 1,     "",        Access::read_write},
    Register{"speed_damping",    31, Type::f32, 1,     "",        Access::read_write},
    Register{"speed_bandwidth",  32, Type::f32, 1,     "",        Access::read_write},
    Register{"current_gain",     33, Type::f32, 1,     "",        Access::read_write},
    Register{"speed_gain",       34, Type::f32, 1,     "",        Access::read_write},
    Register{"can_rate",         35, Type::u32, 1,     "",        Access::read_write},  // 4: 1M, 9: 5M
    Register{"sub_version",      36, Type::u32, 1,     "",        Access::read},
    Register{"u_offset",         50, Type::f32, 1,     "",        Access::read},
    Register{"v_offset",         51, Type::f32, 1,     "",        Access::read},
    Register{"k1",               52, Type::f32, 1,     "",        Access::read},
    Register{"k2",               53, Type::f32, 1,     "",        Access::read},
    Register{"motor_offset",     54, Type::f32, 1,     "",        Access::read},
    Register{"direction",        55, Type::f32, 1,     "",        Access::read},
    Register{"motor_position",   80, Type::f32, 1,     "rad",     Access::read},
    Register{"output_position",  81, Type::f32, 1,     "rad",     Access::read},
};
// clang-format on

// A name that is not in the table does not compile.
consteval Register find_register(std::string_view name) {
  for (const Register& row : kRegisters)
    if (row.name == name) return row;
  throw "no such register";
}

// null: no such register
constexpr const Register* find_register(std::uint8_t rid) noexcept {
  for (const Register& row : kRegisters)
    if (row.rid == rid) return &row;
  return nullptr;
}

// What a motor's frames scale by: values run from -range to +range. Registers pmax, vmax, tmax.
struct Ranges {
  double position = 0;  // [rad]
  double velocity = 0;  // [rad/s]
  double torque = 0;    // [N m]
  bool operator==(const Ranges&) const = default;
};

// The ranges a motor model leaves the factory with; the number is the one in its name. Motors do not report a
// model: the ranges are what tells them apart.
struct Model {
  int number = 0;
  Ranges ranges;
};
inline constexpr std::array kModels{
    Model{3507, {12.5, 50, 5}},  Model{4310, {12.5, 30, 10}},   Model{4340, {12.5, 10, 28}},
    Model{6006, {12.5, 45, 20}}, Model{6248, {12.5, 20, 120}},  Model{8006, {12.5, 45, 40}},
    Model{8009, {12.5, 45, 54}}, Model{10010, {12.5, 20, 200}},
};

constexpr const Model* find_model(int number) noexcept {
  for (const Model& row : kModels)
    if (row.number == number) return &row;
  return nullptr;
}

}  // namespace wallx::damiao
