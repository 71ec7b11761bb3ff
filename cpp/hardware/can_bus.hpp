// CanBus: moves CAN frames between this computer and the motors of one line; knows no motors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"
#include "base/time.hpp"

namespace wallx {

struct CanFrame {
  std::uint32_t id = 0;  // 11 bits, or 29 when extended
  bool is_extended = false;
  bool is_fd = false;                 // up to 64 bytes instead of 8
  bool is_bit_rate_switched = false;  // FD only: the data goes at the data bit rate
  std::uint8_t size = 0;              // [bytes]; FD beyond 8: 12, 16, 20, 24, 32, 48 or 64
  std::array<std::uint8_t, 64> data{};
  TimePoint received_at;  // when it arrived here; epoch: it was not received
};

class CanBus {
 public:
  virtual ~CanBus() = default;

  // Opens the device. Blocks briefly. Throws BusError: absent, down, no permission, bad rate, no FD.
  virtual void open() = 0;
  // Idempotent, never throws. Sends nothing.
  virtual void close() noexcept = 0;
  virtual bool is_open() const noexcept = 0;
  virtual bool is_fd() const noexcept = 0;               // FD frames can be sent
  virtual const std::string& name() const noexcept = 0;  // as the user wrote it, for messages

  // Loop calls: no throw, no allocation, bounded by `deadline`.

  // Hands all frames to the device, in order, or fails (timeout: its queue stayed full until the deadline).
  virtual Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept = 0;
  // Waits for at least one frame, then takes what is there; `received` says how many. A frame of our own that
  // the transport hears again is not reported.
  virtual Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept = 0;
  // Drops whatever has arrived and was not read.
  virtual Result discard_input() noexcept = 0;
};

}  // namespace wallx
