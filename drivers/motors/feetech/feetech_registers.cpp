// FeetechRegisters: reads, and writes that are allowed, unlocked and read back.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/feetech/feetech_registers.hpp"

#include <array>

#include "base/errors.hpp"
#include "drivers/motors/servo_line.hpp"

namespace wallx {

using feetech::Register;

namespace {

std::string describe(int id, const Register& row) {
  return "register " + std::string(row.name) + " (" + std::to_string(row.address) + ") of servo " +
         std::to_string(id);
}

}  // namespace

const Register& FeetechRegisters::row_of(const std::string& name) const {
  if (const Register* row = series_.find(name)) return *row;
  throw ConfigError("Feetech " + std::string(series_.name) + " servos have no register '" + name +
                    "'; see drivers/motors/feetech/" +
                    (series_.is_big_endian ? "series.hpp" : "register_table.hpp"));
}

bool FeetechRegisters::ask(int id, const feetech::Frame& request, std::span<std::uint8_t> parameters) {
  if (id < 0 || id > feetech::kMaxId)
    throw ConfigError("servo id " + std::to_string(id) + " must be 0.." + std::to_string(feetech::kMaxId));
  return ask_patiently(*bus_, parser_, static_cast<std::uint8_t>(id), request, parameters);
}

bool FeetechRegisters::ping(int id) {
  return ask(id, feetech::encode_ping(static_cast<std::uint8_t>(id)), {});
}

std::int64_t FeetechRegisters::get(int id, const Register& row) {
  std::array<std::uint8_t, 2> bytes{};
  if (!ask(id, feetech::encode_read(static_cast<std::uint8_t>(id), row.address, row.num_bytes),
           {bytes.data(), row.num_bytes}))
    throw BusTimeout("no answer on " + bus_->name() + " to a read of " + describe(id, row) +
                     "; check its cable, supply and id");
  return feetech::from_sign_magnitude(series_.get(row, bytes.data()), row.sign_bit);
}

void FeetechRegisters::put(int id, const Register& row, std::int64_t value) {
  const auto raw = value >= -0x10000 && value <= 0xFFFF
                       ? feetech::to_sign_magnitude(static_cast<int>(value), row.sign_bit)
                       : std::nullopt;
  if (!raw || (row.num_bytes == 1 && *raw > 0xFF))
    throw ConfigError(describe(id, row) + " cannot hold " + std::to_string(value));
  std::array<std::uint8_t, 2> bytes{};
  series_.put(row, *raw, bytes.data());
  // a lost acknowledgement is no lost write: what counts is read back
  (void)ask(id,
            feetech::encode_write(static_cast<std::uint8_t>(id), row.address, {bytes.data(), row.num_bytes}),
            {});
  const std::int64_t found = get(id, row);
  if (found != value)
    throw DeviceError(describe(id, row) + " was written " + std::to_string(value) + " and reads back " +
                      std::to_string(found) + "; is it write-protected, or is another program on the line?");
}

std::int64_t FeetechRegisters::read(int id, const std::string& name) { return get(id, row_of(name)); }

double FeetechRegisters::value(int id, const std::string& name) {
  const Register& row = row_of(name);
  return static_cast<double>(get(id, row)) * row.scale;
}

void FeetechRegisters::write(int id, const std::string& name, std::int64_t value) {
  const Register& row = row_of(name);
  if (row.access == feetech::Access::read) throw DeviceError(describe(id, row) + " can only be read");
  if (row.name == "torque_enable") {
    if (value != 0)
      throw DeviceError("torque of servo " + std::to_string(id) +
                        " is not switched on here: only an enabled robot moves");
    put(id, row, 0);
    return;
  }
  if (get(id, row_of("torque_enable")) != 0)
    throw DeviceError(describe(id, row) + " is written only without torque; servo " + std::to_string(id) +
                      " has torque: support the arm and let go of it first");
  if (row.memory != feetech::Memory::eprom) {
    put(id, row, value);
    return;
  }
  const Register& lock = row_of("lock");
  put(id, lock, 0);
  try {
    put(id, row, value);
  } catch (...) {
    try {
      put(id, lock, 1);
    } catch (const WallxError&) {
      // the first failure is the one to tell
    }
    throw;
  }
  // the id itself may have been what changed
  put(row.name == "id" ? static_cast<int>(value) : id, lock, 1);
}

}  // namespace wallx
