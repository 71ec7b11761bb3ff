// SlcanCodec: hexadecimal both ways.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/slcan_codec.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

namespace wallx {
namespace {

constexpr char kDigits[] = "0123456789ABCDEF";

int digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// reads `count` digits, or fails
bool read_hex(std::string_view text, std::size_t at, std::size_t count, std::uint32_t& value) noexcept {
  value = 0;
  if (at + count > text.size()) return false;
  for (const char c : text.substr(at, count)) {
    const int one = digit(c);
    if (one < 0) return false;
    value = value << 4 | static_cast<std::uint32_t>(one);
  }
  return true;
}

// t T: classic; d D: FD; b B: FD with the fast rate; capitals: 29 bits
char command_of(const CanFrame& frame) noexcept {
  const char small = !frame.is_fd ? 't' : frame.is_bit_rate_switched ? 'b' : 'd';
  return frame.is_extended ? static_cast<char>(small - 'a' + 'A') : small;
}

}  // namespace

SlcanLine encode_slcan(const CanFrame& frame) noexcept {
  SlcanLine line;
  const auto put = [&line](char c) { line.text[line.size++] = c; };
  put(command_of(frame));
  for (int shift = frame.is_extended ? 28 : 8; shift >= 0; shift -= 4) put(kDigits[frame.id >> shift & 0xF]);
  put(kDigits[can_length_code(frame.size, frame.is_fd) & 0xF]);
  for (std::size_t i = 0; i < frame.size; ++i) {
    put(kDigits[frame.data[i] >> 4]);
    put(kDigits[frame.data[i] & 0xF]);
  }
  put('\r');
  return line;
}

SlcanEvent decode_slcan(std::string_view line, char end, CanFrame& frame) noexcept {
  if (end == '\a') return SlcanEvent::refusal;
  // an empty line answers a setting; z and Z say that a frame was taken
  if (line.empty() || line == "z" || line == "Z") return SlcanEvent::acknowledgement;
  CanFrame read;
  const char command = line[0];
  read.is_extended = command == 'T' || command == 'D' || command == 'B';
  read.is_bit_rate_switched = command == 'b' || command == 'B';
  read.is_fd = read.is_bit_rate_switched || command == 'd' || command == 'D';
  if (!read.is_extended && !read.is_fd && command != 't') return SlcanEvent::other;
  const std::size_t num_id_digits = read.is_extended ? 8 : 3;
  std::uint32_t code = 0;
  if (!read_hex(line, 1, num_id_digits, read.id) || !read_hex(line, 1 + num_id_digits, 1, code) ||
      (!read.is_fd && code > 8))
    return SlcanEvent::other;
  read.size = kCanSizes[code];
  const std::size_t data = 2 + num_id_digits;
  const std::size_t end_of_data = data + 2u * read.size;
  std::uint32_t value = 0;
  if (line.size() != end_of_data &&
      (line.size() != end_of_data + 4 || !read_hex(line, end_of_data, 4, value)))
    return SlcanEvent::other;
  for (std::size_t i = 0; i < read.size; ++i) {
    if (!read_hex(line, data + 2 * i, 2, value)) return SlcanEvent::other;
    read.data[i] = static_cast<std::uint8_t>(value);
  }
  if (!is_valid(read)) return SlcanEvent::other;
  frame = read;
  return SlcanEvent::frame;
}

std::optional<std::string_view> slcan_bit_rate_command(int bit_rate) noexcept {
  // S7 is left out: some adapters take it for 800000, others for 750000
  constexpr std::pair<int, std::string_view> kCommands[] = {
      {10'000, "S0\r"},  {20'000, "S1\r"},  {50'000, "S2\r"},  {100'000, "S3\r"},
      {125'000, "S4\r"}, {250'000, "S5\r"}, {500'000, "S6\r"}, {1'000'000, "S8\r"}};
  const auto* found = std::find_if(std::begin(kCommands), std::end(kCommands),
                                   [bit_rate](const auto& command) { return command.first == bit_rate; });
  return found == std::end(kCommands) ? std::nullopt : std::optional(found->second);
}

std::optional<std::string_view> slcan_data_bit_rate_command(int data_bit_rate) noexcept {
  if (data_bit_rate == 2'000'000) return "Y2\r";
  if (data_bit_rate == 5'000'000) return "Y5\r";
  return std::nullopt;
}

}  // namespace wallx
