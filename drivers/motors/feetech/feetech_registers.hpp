// FeetechRegisters: the registers of Feetech STS and SCS servos by name, torque off.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>

#include "drivers/motors/feetech/series.hpp"
#include "drivers/motors/feetech/sts_protocol.hpp"
#include "hardware/bus.hpp"
#include "hardware/motor_registers.hpp"

namespace wallx {

class FeetechRegisters final : public MotorRegisters {
 public:
  explicit FeetechRegisters(std::unique_ptr<Bus> bus, const feetech::Series& series = feetech::kSts)
      : bus_(std::move(bus)), series_(series) {}
  ~FeetechRegisters() override { close(); }

  void open() override { bus_->open(); }
  void close() noexcept override { bus_->close(); }
  bool ping(int id) override;
  std::int64_t read(int id, const std::string& name) override;
  double value(int id, const std::string& name) override;
  void write(int id, const std::string& name, std::int64_t value) override;

 private:
  // false: no answer after three tries
  bool ask(int id, const feetech::Frame& request, std::span<std::uint8_t> parameters);
  std::int64_t get(int id, const feetech::Register& row);
  void put(int id, const feetech::Register& row, std::int64_t value);

  const feetech::Register& row_of(const std::string& name) const;

  const std::unique_ptr<Bus> bus_;
  const feetech::Series series_;
  feetech::ReplyParser parser_;
};

}  // namespace wallx
