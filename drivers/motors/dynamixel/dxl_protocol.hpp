// Dynamixel Protocol 2.0: frames as bytes; pure functions and a parser, no I/O, no allocation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace wallx::dynamixel {

// request:  FF FF FD 00 | id | length | instruction | parameters...         | crc
// answer:   FF FF FD 00 | id | length | 55          | error | parameters... | crc
// Two bytes are low byte first. `length` counts what follows it. Between length and crc every FF FF FD is
// sent as FF FF FD FD, so that no data looks like a header.
inline constexpr std::uint8_t kBroadcastId = 0xFE;
inline constexpr int kMaxId = 0xFC;
inline constexpr std::size_t kMaxParameters = 512;                                   // before stuffing
inline constexpr std::size_t kMaxFrameBytes = 7 + (kMaxParameters + 2) * 4 / 3 + 2;  // all of it stuffed

enum class Instruction : std::uint8_t {
  ping = 0x01,  // answers model number and firmware version
  read = 0x02,
  write = 0x03,
  reboot = 0x08,
  status = 0x55,
  sync_read = 0x82,       // every servo answers, in the order of the ids
  sync_write = 0x83,      // nobody answers
  fast_sync_read = 0x8A,  // the servos answer with one frame that each continues
};

// one request, ready for the bus; empty when what was asked for does not fit into a frame
class Frame {
 public:
  Frame() = default;
  Frame(std::uint8_t id, Instruction instruction, std::span<const std::uint8_t> parameters) noexcept;
  std::span<const std::uint8_t> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::array<std::uint8_t, kMaxFrameBytes> bytes_;  // written up to `size_`
  std::size_t size_ = 0;
};

Frame encode_ping(std::uint8_t id) noexcept;
Frame encode_reboot(std::uint8_t id) noexcept;
Frame encode_read(std::uint8_t id, std::uint16_t address, std::uint16_t num_bytes) noexcept;
Frame encode_write(std::uint8_t id, std::uint16_t address, std::span<const std::uint8_t> data) noexcept;
// `instruction` is sync_read or fast_sync_read.
Frame encode_sync_read(Instruction instruction, std::uint16_t address, std::uint16_t num_bytes,
                       std::span<const std::uint8_t> ids) noexcept;
// `data`: one row of `num_bytes` per id, in the order of the ids      (ids x num_bytes)
Frame encode_sync_write(std::uint16_t address, std::uint16_t num_bytes, std::span<const std::uint8_t> ids,
                        std::span<const std::uint8_t> data) noexcept;

// CRC-16, polynomial 0x8005, start 0, high bit first, over the whole frame before it
std::uint16_t crc16(std::span<const std::uint8_t> bytes) noexcept;

constexpr std::uint16_t get_u16(const std::uint8_t* bytes) noexcept {
  return static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8);
}
constexpr void put_u16(std::uint8_t* bytes, std::uint16_t value) noexcept {
  bytes[0] = static_cast<std::uint8_t>(value & 0xFF);
  bytes[1] = static_cast<std::uint8_t>(value >> 8);
}

// one valid answer; `parameters` is a view into the parser and ends with its next call
struct Status {
  std::uint8_t id = 0;
  std::uint8_t error = 0;  // bit 7: look at hardware_error; bits 0-6: why the instruction was refused
  std::span<const std::uint8_t> parameters;
};

// Bytes of a fast sync read's parameters: the first servo's error is the frame's own, then for each servo
// id, data, crc, and for all but the first its error before the id.
constexpr std::size_t fast_parameters(std::size_t num_bytes, std::size_t num_servos) noexcept {
  return num_servos * (num_bytes + 4) - 3;
}
// The part of servo `index` of a fast answer whose size the caller has checked.
Status fast_part(const Status& whole, std::size_t num_bytes, std::size_t index) noexcept;

// Finds answers in a stream of bytes that may hold garbage, echoes of requests included. What it yields has a
// right header, length, stuffing and crc; after anything else it looks for the next header one byte later, so
// a damaged frame never hides the one behind it.
class StatusParser {
 public:
  using Reply = Status;

  // An announced length above `max_parameters` is damage: the parser does not wait for bytes that nobody
  // sends.
  explicit StatusParser(std::size_t max_parameters = kMaxParameters) noexcept { reset(max_parameters); }

  // Forgets everything received.
  void reset(std::size_t max_parameters) noexcept;
  // Takes as many bytes as fit and says how many. All fit when next() has returned false before and there are
  // at most kMaxPush of them.
  std::size_t push(std::span<const std::uint8_t> bytes) noexcept;
  // The next valid answer; false: more bytes are needed. An answer of id 0xFE is a fast sync read's, which
  // the servos send without stuffing.
  bool next(Status& status) noexcept;

  std::size_t num_damaged() const noexcept {
    return num_damaged_;
  }  // headers with a frame behind them that is wrong
  std::size_t num_skipped() const noexcept { return num_skipped_; }  // bytes that belong to no valid answer

  static constexpr std::size_t kMaxPush = 256;

 private:
  void skip() noexcept;
  bool take(const std::uint8_t* frame, std::size_t size, Status& status) noexcept;

  std::array<std::uint8_t, kMaxFrameBytes + kMaxPush> buffer_;
  std::array<std::uint8_t, kMaxParameters> parameters_;  // of the last answer, without stuffing
  std::size_t begin_ = 0;                                // buffer_[begin_..end_) is not yet parsed
  std::size_t end_ = 0;
  std::size_t max_parameters_ = 0;
  std::size_t num_damaged_ = 0;
  std::size_t num_skipped_ = 0;
};

}  // namespace wallx::dynamixel
