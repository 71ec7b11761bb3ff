// CanMessage: a CAN frame as the MessagePack map that python-can's udp_multicast interface sends; no I/O.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "hardware/can_bus.hpp"

namespace wallx {

inline constexpr std::size_t kMaxCanMessage = 256;  // what encode_can_message needs at most [bytes]

// Eleven entries in python-can's order, numbers as short as they go: byte for byte what `msgpack` makes of a
// python-can Message without a channel. `frame` must be valid; `timestamp` [s] since 1970. Returns the size.
std::size_t encode_can_message(const CanFrame& frame, double timestamp,
                               std::span<std::uint8_t, kMaxCanMessage> message) noexcept;

// Entries may come in any order and any width, and those that have a default there may be left out. false:
// not such a map, a frame that cannot exist, or a remote or error frame; `frame` is untouched then.
bool decode_can_message(std::span<const std::uint8_t> message, CanFrame& frame) noexcept;

}  // namespace wallx
