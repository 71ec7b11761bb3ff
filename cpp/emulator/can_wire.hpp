// CAN wire: a frame as the emulators know it, and how long it occupies the line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "base/time.hpp"

namespace wallx::emulator {

struct WireFrame {
  std::uint32_t id = 0;  // 11 bits, or 29 when extended
  bool is_extended = false;
  bool is_fd = false;
  bool is_fast = false;   // FD with the data at the data bit rate
  bool is_error = false;  // the host's controller reports an error of the line; the id says which
  std::uint8_t size = 0;  // [bytes]
  std::array<std::uint8_t, 64> data{};
};

struct WireRates {
  int bit_rate = 1'000'000;       // of arbitration, and of classic frames             [bit/s]
  int data_bit_rate = 5'000'000;  // of the data of FD frames; 0: the line is classic  [bit/s]
  bool is_fd() const { return data_bit_rate > 0; }
};

// The bits of a frame from start of frame to the gap behind it, by the rate they are sent at. ISO 11898-1:
// stuff bits are counted in the real bit sequence, checksum included; an FD checksum's fixed ones are added.
struct WireBits {
  int slow = 0;  // at bit_rate
  int fast = 0;  // at data_bit_rate
};
WireBits count_bits(const WireFrame& frame) noexcept;
Duration wire_time(const WireFrame& frame, const WireRates& rates) noexcept;

// the least FD payload that holds `size` bytes: 0..8, 12, 16, 20, 24, 32, 48, 64
int fd_size(int size) noexcept;

}  // namespace wallx::emulator
