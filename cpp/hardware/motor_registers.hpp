// MotorRegisters: named registers of the motors on one line, for setting up and calibrating; moves nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace wallx {

// Every family spells its registers as its table does (drivers/motors/<family>/register_table.hpp). All calls
// block, up to some 150 ms for a motor that is silent. They throw BusError (port), BusTimeout (no answer)
// and ConfigError (a register the family does not have, a value it cannot hold).
class MotorRegisters {
 public:
  virtual ~MotorRegisters() = default;

  virtual void open() = 0;  // takes the port exclusively
  virtual void close() noexcept = 0;

  virtual bool ping(int id) = 0;
  // The register's own number, signed where the family signs it, without its scale.
  virtual std::int64_t read(int id, const std::string& name) = 0;
  // The register with its scale, in its table's unit; the only way to one that holds a fraction.
  virtual double value(int id, const std::string& name) = 0;
  // Writes and reads back. What survives a power cycle is unlocked for it and locked again. Throws
  // DeviceError: the motor has torque (only torque_enable = 0 is written then), the register is read-only, or
  // it reads back another value. torque_enable can only be switched off here.
  virtual void write(int id, const std::string& name, std::int64_t value) = 0;
};

}  // namespace wallx
