// DynamixelRegisters: reads, and writes that are allowed and read back.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/dynamixel/dynamixel_registers.hpp"

#include <array>

#include "base/errors.hpp"
#include "drivers/motors/servo_line.hpp"

namespace wallx {

using dynamixel::find_register;
using dynamixel::Register;

namespace {

constexpr Register kTorqueEnable = find_register("torque_enable");

const Register& row_of(const std::string& name) {
  for (const Register& row : dynamixel::kRegisters)
    if (row.name == name) return row;
  throw ConfigError("Dynamixel X servos have no register '" + name +
                    "'; see drivers/motors/dynamixel/register_table.hpp");
}

std::string describe(int id, const Register& row) {
  return "register " + std::string(row.name) + " (" + std::to_string(row.address) + ") of servo " +
         std::to_string(id);
}

}  // namespace

bool DynamixelRegisters::ask(int id, const dynamixel::Frame& request, std::span<std::uint8_t> parameters) {
  if (id < 0 || id > dynamixel::kMaxId)
    throw ConfigError("servo id " + std::to_string(id) + " must be 0.." + std::to_string(dynamixel::kMaxId));
  return ask_patiently(*bus_, parser_, static_cast<std::uint8_t>(id), request, parameters);
}

bool DynamixelRegisters::ping(int id) {
  std::array<std::uint8_t, 3> model_and_firmware;
  return ask(id, dynamixel::encode_ping(static_cast<std::uint8_t>(id)), model_and_firmware);
}

std::int64_t DynamixelRegisters::get(int id, const Register& row) {
  std::array<std::uint8_t, 4> bytes{};
  if (!ask(id, dynamixel::encode_read(static_cast<std::uint8_t>(id), row.address, row.num_bytes),
           {bytes.data(), row.num_bytes}))
    throw BusTimeout("no answer on " + bus_->name() + " to a read of " + describe(id, row) +
                     "; check its cable, supply and id");
  return dynamixel::get(row, bytes, row.address);
}

void DynamixelRegisters::put(int id, const Register& row, std::int64_t value) {
  std::array<std::uint8_t, 4> bytes{};
  if (!dynamixel::put(row, value, bytes))
    throw ConfigError(describe(id, row) + " cannot hold " + std::to_string(value));
  // a lost acknowledgement is no lost write: what counts is read back
  (void)ask(
      id, dynamixel::encode_write(static_cast<std::uint8_t>(id), row.address, {bytes.data(), row.num_bytes}),
      {});
  const std::int64_t found = get(row.name == "id" ? static_cast<int>(value) : id, row);
  if (found != value)
    throw DeviceError(describe(id, row) + " was written " + std::to_string(value) + " and reads back " +
                      std::to_string(found) + "; is the value allowed, or another program on the line?");
}

std::int64_t DynamixelRegisters::read(int id, const std::string& name) { return get(id, row_of(name)); }

double DynamixelRegisters::value(int id, const std::string& name) {
  const Register& row = row_of(name);
  return static_cast<double>(get(id, row)) * row.scale;
}

void DynamixelRegisters::write(int id, const std::string& name, std::int64_t value) {
  const Register& row = row_of(name);
  if (row.access == dynamixel::Access::read) throw DeviceError(describe(id, row) + " can only be read");
  if (row.name == kTorqueEnable.name) {
    if (value != 0)
      throw DeviceError("torque of servo " + std::to_string(id) +
                        " is not switched on here: only an enabled robot moves");
    put(id, row, 0);
    return;
  }
  if (get(id, kTorqueEnable) != 0)
    throw DeviceError(describe(id, row) + " is written only without torque; servo " + std::to_string(id) +
                      " has torque: support the arm and let go of it first");
  put(id, row, value);
}

}  // namespace wallx
