// StsBus: a line of emulated Feetech STS servos: their packets and what they do with them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulator/serial_line.hpp"
#include "emulator/sts_servo.hpp"

namespace wallx::emulator {

class StsBus final : public SerialLine {
 public:
  // `events` may be null and must outlive the bus. Throws ConfigError: no servo, too many, an id twice, a
  // value no servo can hold, a bad rate.
  StsBus(std::span<const ServoSetup> servos, const BusOptions& options, EventRing* events = nullptr);

  const char* family() const noexcept override { return "feetech_sts"; }

 private:
  std::size_t consume(std::span<const std::uint8_t> packet, TimePoint at) noexcept override;
  bool execute_one(Event& event, std::uint8_t instruction,
                   std::span<const std::uint8_t> parameters) noexcept override;
  std::size_t seal(std::uint8_t id, std::uint8_t error, std::span<const std::uint8_t> parameters,
                   std::span<std::uint8_t> out) const noexcept override;
  bool sync_read(std::span<const std::uint8_t> parameters) noexcept;
  bool sync_write(Event& event, std::span<const std::uint8_t> parameters) noexcept;
};

}  // namespace wallx::emulator
