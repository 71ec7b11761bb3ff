// STS protocol: the frames of Feetech's STS servos as bytes; pure functions and a parser, no I/O, no
// allocation. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace wallx::feetech {

// request:  FF FF | id | length | instruction | parameters... | checksum
// answer:   FF FF | id | length | error bits  | parameters... | checksum     length = parameters + 2
inline constexpr std::uint8_t kBroadcastId = 0xFE;
inline constexpr int kMaxId = 0xFD;
inline constexpr std::size_t kMaxFrameBytes = 4 + 255;
inline constexpr std::size_t kMaxParameters = 253;

enum class Instruction : std::uint8_t {
  ping = 0x01,
  read = 0x02,
  write = 0x03,
  sync_read = 0x82,   // every servo answers, in the order of the ids
  sync_write = 0x83,  // nobody answers
};

// one request, ready for the bus; empty when what was asked for does not fit into a frame
class Frame {
 public:
  Frame() = default;
  Frame(std::uint8_t id, Instruction instruction, std::span<const std::uint8_t> parameters) noexcept;
  std::span<const std::uint8_t> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::array<std::uint8_t, kMaxFrameBytes> bytes_{};
  std::size_t size_ = 0;
};

Frame encode_ping(std::uint8_t id) noexcept;
Frame encode_read(std::uint8_t id, std::uint8_t address, std::uint8_t num_bytes) noexcept;
Frame encode_write(std::uint8_t id, std::uint8_t address, std::span<const std::uint8_t> data) noexcept;
Frame encode_sync_read(std::uint8_t address, std::uint8_t num_bytes,
                       std::span<const std::uint8_t> ids) noexcept;
// `data`: one row of `num_bytes` per id, in the order of the ids      (ids x num_bytes)
Frame encode_sync_write(std::uint8_t address, std::uint8_t num_bytes, std::span<const std::uint8_t> ids,
                        std::span<const std::uint8_t> data) noexcept;

// over everything between the header and the checksum itself
std::uint8_t checksum(std::span<const std::uint8_t> body) noexcept;

constexpr std::uint16_t get_u16(const std::uint8_t* bytes) noexcept {
  return static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8);
}
constexpr void put_u16(std::uint8_t* bytes, std::uint16_t value) noexcept {
  bytes[0] = static_cast<std::uint8_t>(value & 0xFF);
  bytes[1] = static_cast<std::uint8_t>(value >> 8);
}

// Negative values are a magnitude below `sign_bit` and that bit set, not two's complement; -1: unsigned.
// nullopt: the magnitude does not fit, or a negative value of an unsigned register.
constexpr std::optional<std::uint16_t> to_sign_magnitude(int value, int sign_bit) noexcept {
  const int bound = sign_bit < 0 ? 0x10000 : 1 << sign_bit;
  if (value >= bound || value <= (sign_bit < 0 ? -1 : -bound)) return std::nullopt;
  return static_cast<std::uint16_t>(value < 0 ? -value | bound : value);
}
// Bits above the sign bit are reserved and ignored.
constexpr int from_sign_magnitude(std::uint16_t raw, int sign_bit) noexcept {
  if (sign_bit < 0) return raw;
  const int magnitude = raw & ((1 << sign_bit) - 1);
  return raw >> sign_bit & 1 ? -magnitude : magnitude;
}

// one valid answer; `parameters` is a view into the parser and ends with the next call of push() or reset()
struct Reply {
  std::uint8_t id = 0;
  std::uint8_t error = 0;  // error bits, register_table.hpp
  std::span<const std::uint8_t> parameters;
};

// Finds answers in a stream of bytes that may hold garbage. What it yields has a right header, length and
// checksum; after anything else it looks for the next header one byte later, so a damaged frame never hides
// the one behind it.
class ReplyParser {
 public:
  using Reply = feetech::Reply;

  // An announced length above `max_parameters` is damage: the parser does not wait for bytes that nobody
  // sends.
  explicit ReplyParser(std::size_t max_parameters = kMaxParameters) noexcept { reset(max_parameters); }

  // Forgets everything received.
  void reset(std::size_t max_parameters) noexcept;
  // Takes as many bytes as fit and says how many. All fit when next() has returned false before and there are
  // at most kMaxPush of them.
  std::size_t push(std::span<const std::uint8_t> bytes) noexcept;
  // The next valid answer; false: more bytes are needed.
  bool next(Reply& reply) noexcept;

  std::size_t num_damaged() const noexcept {
    return num_damaged_;
  }  // headers with a wrong length or checksum
  std::size_t num_skipped() const noexcept { return num_skipped_; }  // bytes that belong to no valid answer

  static constexpr std::size_t kMaxPush = 256;

 private:
  void skip() noexcept;

  std::array<std::uint8_t, kMaxFrameBytes + kMaxPush> buffer_{};
  std::size_t begin_ = 0;  // buffer_[begin_..end_) is not yet parsed
  std::size_t end_ = 0;
  std::size_t max_length_ = 0;
  std::size_t num_damaged_ = 0;
  std::size_t num_skipped_ = 0;
};

}  // namespace wallx::feetech
