// DxlBus: a line of emulated Dynamixel X servos: the packets of Protocol 2.0 and what the servos do with
// them. SPDX-License-Identifier: Apache-2.0
#pragma once

#include "emulator/dxl_servo.hpp"
#include "emulator/serial_line.hpp"

namespace wallx::emulator {

class DxlBus final : public SerialLine {
 public:
  // `events` may be null and must outlive the bus. Throws ConfigError: no servo, too many, an id twice, a
  // value no servo can hold, a bad rate.
  DxlBus(std::span<const ServoSetup> servos, const BusOptions& options, EventRing* events = nullptr);

  const char* family() const noexcept override { return "dynamixel_x"; }

 private:
  static constexpr std::size_t kMaxBody = 1024;  // instruction and parameters of a request
  struct Ask {                                   // one servo's share of a read of many
    std::uint8_t id;
    int address, size;
  };

  std::size_t consume(std::span<const std::uint8_t> packet, TimePoint at) noexcept override;
  bool execute_one(Event& event, std::uint8_t instruction,
                   std::span<const std::uint8_t> parameters) noexcept override;
  std::size_t seal(std::uint8_t id, std::uint8_t error, std::span<const std::uint8_t> parameters,
                   std::span<std::uint8_t> out) const noexcept override;
  static DxlServo& drive(Slot& slot) noexcept { return static_cast<DxlServo&>(*slot.servo); }
  void answer_ping(Slot& slot) noexcept;
  void answer_read(Slot& slot, int address, int size) noexcept;
  bool act(Event& event, std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept;
  void one_by_one(std::span<const Ask> asks) noexcept;
  void in_one_packet(std::span<const Ask> asks) noexcept;
  bool read_many(std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept;
  bool write_many(Event& event, std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept;

  std::array<std::uint8_t, kMaxBody> body_{};
};

}  // namespace wallx::emulator
