// DynamixelRegisters: the registers of Dynamixel X servos by name, torque off.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>

#include "drivers/motors/dynamixel/dxl_protocol.hpp"
#include "drivers/motors/dynamixel/register_table.hpp"
#include "hardware/bus.hpp"
#include "hardware/motor_registers.hpp"

namespace wallx {

class DynamixelRegisters final : public MotorRegisters {
 public:
  explicit DynamixelRegisters(std::unique_ptr<Bus> bus) : bus_(std::move(bus)) {}
  ~DynamixelRegisters() override { DynamixelRegisters::close(); }

  void open() override { bus_->open(); }
  void close() noexcept override { bus_->close(); }
  bool ping(int id) override;
  std::int64_t read(int id, const std::string& name) override;
  double value(int id, const std::string& name) override;
  void write(int id, const std::string& name, std::int64_t value) override;

 private:
  bool ask(int id, const dynamixel::Frame& request, std::span<std::uint8_t> parameters);
  std::int64_t get(int id, const dynamixel::Register& row);
  void put(int id, const dynamixel::Register& row, std::int64_t value);

  const std::unique_ptr<Bus> bus_;
  dynamixel::StatusParser parser_;
};

}  // namespace wallx
