// SlcanCodec: CAN frames as lines of text, in the LAWICEL format with the CANable commands for FD; no I/O.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "hardware/can_bus.hpp"

namespace wallx {

// command, id, length, data, end; a received line may have a time stamp of four digits before its end
inline constexpr std::size_t kSlcanMaxLine = 1 + 8 + 1 + 2 * 64 + 4 + 1;

struct SlcanLine {
  std::array<char, kSlcanMaxLine> text;
  std::size_t size = 0;
};

// `frame` must be valid. With the final '\r'.
SlcanLine encode_slcan(const CanFrame& frame) noexcept;

enum class SlcanEvent { frame, acknowledgement, refusal, other };  // other: remote frames, versions, noise

// One line that ended with `end` ('\r', or '\a': a refusal), which is not part of it. `frame` is set for
// SlcanEvent::frame only, without a time of arrival.
SlcanEvent decode_slcan(std::string_view line, char end, CanFrame& frame) noexcept;

// Commands that set a rate, or nothing when the format has none for it.       [bit/s]
std::optional<std::string_view> slcan_bit_rate_command(int bit_rate) noexcept;
std::optional<std::string_view> slcan_data_bit_rate_command(int data_bit_rate) noexcept;

}  // namespace wallx
