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
  TimePoint received_at{};  // when it arrived here; epoch: it was not received
};

// length code of CAN FD -> bytes; classic CAN has the first nine
inline constexpr std::array<std::uint8_t, 16> kCanSizes{0, 1,  2,  3,  4,  5,  6,  7,
                                                        8, 12, 16, 20, 24, 32, 48, 64};

// The length code of a size, or -1: no frame has that size.
constexpr int can_length_code(std::uint8_t size, bool is_fd) noexcept {
  for (int code = 0; code < (is_fd ? 16 : 9); ++code)
    if (kCanSizes[static_cast<std::size_t>(code)] == size) return code;
  return -1;
}

// Whether such a frame exists: its id fits, it has one of the sizes, and only FD switches bit rates.
constexpr bool is_valid(const CanFrame& frame) noexcept {
  return frame.id <= (frame.is_extended ? 0x1FFF'FFFFu : 0x7FFu) &&
         can_length_code(frame.size, frame.is_fd) >= 0 && (frame.is_fd || !frame.is_bit_rate_switched);
}

inline constexpr std::int32_t kBusOff = -1;  // detail of bus_closed: the controller took itself off the bus

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

  // What went wrong beyond what a Result can say, for messages; empty: nothing. From any thread.
  virtual std::string trouble() const { return {}; }
  // The clock that deadlines and arrival times are on: the real one, but for an emulated line in lock-step.
  virtual TimePoint now() const noexcept { return Clock::now(); }

  // Loop calls: no throw, no allocation, bounded by `deadline`.

  // Hands all frames to the device, in order, or fails (timeout: its queue stayed full until the deadline;
  // out_of_range: one is not valid, or is FD on a classic bus: nothing was sent; `detail` is its index).
  virtual Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept = 0;
  // Waits for at least one frame, then takes what is there; `received` says how many. A frame of our own that
  // the transport hears again is not reported.
  virtual Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept = 0;
  // Drops whatever has arrived and was not read.
  virtual Result discard_input() noexcept = 0;

  // What arrived since open() and was no data frame: noise, remote frames, refusals of the adapter.
  virtual std::uint64_t num_ignored() const noexcept { return 0; }
};

// What every transmit() checks first.
inline Result check_frames(std::span<const CanFrame> frames, bool is_fd) noexcept {
  for (std::size_t i = 0; i < frames.size(); ++i)
    if (!is_valid(frames[i]) || (frames[i].is_fd && !is_fd))
      return {.code = ErrorCode::out_of_range, .detail = static_cast<std::int32_t>(i)};
  return {};
}

}  // namespace wallx
