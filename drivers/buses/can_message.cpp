// CanMessage: as much of MessagePack as a flat map needs.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/can_message.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string_view>

namespace wallx {
namespace {

class Writer {
 public:
  explicit Writer(std::uint8_t* to) : begin_(to), at_(to) {}
  std::size_t size() const noexcept { return static_cast<std::size_t>(at_ - begin_); }

  void byte(std::uint32_t value) noexcept { *at_++ = static_cast<std::uint8_t>(value); }
  void big_endian(std::uint64_t value, int num_bytes) noexcept {
    for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8)
      byte(static_cast<std::uint8_t>(value >> shift));
  }
  void key(std::string_view text) noexcept {  // up to 31 characters
    byte(0xA0u | static_cast<std::uint32_t>(text.size()));
    for (const char c : text) byte(static_cast<std::uint8_t>(c));
  }
  void boolean(bool value) noexcept { byte(value ? 0xC3 : 0xC2); }
  void nothing() noexcept { byte(0xC0); }
  void number(std::uint32_t value) noexcept {
    if (value < 0x80) return byte(value);
    const int num_bytes = value <= 0xFF ? 1 : value <= 0xFFFF ? 2 : 4;
    byte(num_bytes == 1 ? 0xCC : num_bytes == 2 ? 0xCD : 0xCE);
    big_endian(value, num_bytes);
  }
  void real(double value) noexcept {
    byte(0xCB);
    big_endian(std::bit_cast<std::uint64_t>(value), 8);
  }
  void binary(std::span<const std::uint8_t> bytes) noexcept {  // up to 255
    byte(0xC4);
    byte(static_cast<std::uint32_t>(bytes.size()));
    for (const std::uint8_t one : bytes) byte(one);
  }

 private:
  std::uint8_t* const begin_;
  std::uint8_t* at_;
};

// one value that is not a container; containers have no place in a frame
struct Value {
  enum class Type { nothing, boolean, number, real, bytes } type = Type::nothing;
  bool is_true = false;
  std::uint64_t number = 0;             // not negative: no entry may be
  std::span<const std::uint8_t> bytes;  // of a text or of binary data

  bool text_is(std::string_view text) const noexcept {
    return type == Type::bytes && bytes.size() == text.size() &&
           std::memcmp(bytes.data(), text.data(), text.size()) == 0;
  }
};

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> from) : left_(from) {}
  bool is_at_end() const noexcept { return left_.empty(); }

  bool take(std::size_t count, std::span<const std::uint8_t>& bytes) noexcept {
    if (left_.size() < count) return false;
    bytes = left_.first(count);
    left_ = left_.subspan(count);
    return true;
  }

  bool big_endian(std::size_t num_bytes, std::uint64_t& value) noexcept {
    std::span<const std::uint8_t> bytes;
    if (!take(num_bytes, bytes)) return false;
    value = 0;
    for (const std::uint8_t one : bytes) value = value << 8 | one;
    return true;
  }

  bool map_size(std::uint64_t& size) noexcept {
    if (!big_endian(1, size)) return false;
    if (size >= 0x80 && size <= 0x8F) {
      size &= 0xF;
      return true;
    }
    return (size == 0xDE && big_endian(2, size)) || (size == 0xDF && big_endian(4, size));
  }

  bool value(Value& value) noexcept {
    std::uint64_t head = 0;
    if (!big_endian(1, head)) return false;
    value = {};
    if (head < 0x80) return number(value, head);
    if (head >= 0xA0 && head <= 0xBF) return bytes(value, head & 0x1F);
    std::uint64_t read = 0;
    switch (head) {
      case 0xC0:
        return true;
      case 0xC2:
      case 0xC3:
        value.type = Value::Type::boolean;
        value.is_true = head == 0xC3;
        return true;
      case 0xC4:  // binary data and texts of 8, 16 and 32 bits of length
      case 0xC5:
      case 0xC6:
        return big_endian(std::size_t{1} << (head - 0xC4), read) && bytes(value, read);
      case 0xD9:
      case 0xDA:
      case 0xDB:
        return big_endian(std::size_t{1} << (head - 0xD9), read) && bytes(value, read);
      case 0xCA:
      case 0xCB:
        value.type = Value::Type::real;
        return big_endian(head == 0xCA ? 4 : 8, read);
      case 0xCC:  // unsigned and signed numbers of 1, 2, 4 and 8 bytes
      case 0xCD:
      case 0xCE:
      case 0xCF:
        return big_endian(std::size_t{1} << (head - 0xCC), read) && number(value, read);
      case 0xD0:
      case 0xD1:
      case 0xD2:
      case 0xD3: {
        const std::size_t num_bytes = std::size_t{1} << (head - 0xD0);
        return big_endian(num_bytes, read) && (read >> (8 * num_bytes - 1)) == 0 && number(value, read);
      }
      default:
        return false;
    }
  }

 private:
  static bool number(Value& value, std::uint64_t read) noexcept {
    value.type = Value::Type::number;
    value.number = read;
    return true;
  }
  bool bytes(Value& value, std::uint64_t count) noexcept {
    value.type = Value::Type::bytes;
    return count <= left_.size() && take(count, value.bytes);
  }

  std::span<const std::uint8_t> left_;
};

bool to_flag(const Value& value, bool& flag) noexcept {
  if (value.type != Value::Type::boolean) return false;
  flag = value.is_true;
  return true;
}

}  // namespace

std::size_t encode_can_message(const CanFrame& frame, double timestamp,
                               std::span<std::uint8_t, kMaxCanMessage> message) noexcept {
  Writer writer(message.data());
  writer.byte(0x8B);
  writer.key("timestamp");
  writer.real(timestamp);
  writer.key("arbitration_id");
  writer.number(frame.id);
  writer.key("is_extended_id");
  writer.boolean(frame.is_extended);
  writer.key("is_remote_frame");
  writer.boolean(false);
  writer.key("is_error_frame");
  writer.boolean(false);
  writer.key("channel");
  writer.nothing();
  writer.key("dlc");
  writer.number(frame.size);
  writer.key("data");
  writer.binary({frame.data.data(), frame.size});
  writer.key("is_fd");
  writer.boolean(frame.is_fd);
  writer.key("bitrate_switch");
  writer.boolean(frame.is_bit_rate_switched);
  writer.key("error_state_indicator");
  writer.boolean(false);
  return writer.size();
}

bool decode_can_message(std::span<const std::uint8_t> message, CanFrame& frame) noexcept {
  Reader reader(message);
  std::uint64_t num_entries = 0;
  if (!reader.map_size(num_entries)) return false;
  CanFrame read;
  read.is_extended = true;  // python-can's default
  std::uint64_t id = 0, size = 0;
  bool has_size = false, is_remote = false, is_error = false, ignored = false;
  std::span<const std::uint8_t> data;
  for (; num_entries > 0; --num_entries) {
    Value key, value;
    if (!reader.value(key) || !reader.value(value)) return false;
    if (key.text_is("arbitration_id")) {
      if (value.type != Value::Type::number) return false;
      id = value.number;
    } else if (key.text_is("dlc")) {
      if (value.type == Value::Type::nothing) continue;  // as long as the data
      if (value.type != Value::Type::number) return false;
      size = value.number;
      has_size = true;
    } else if (key.text_is("data")) {
      if (value.type == Value::Type::nothing) continue;
      if (value.type != Value::Type::bytes) return false;
      data = value.bytes;
    } else if (key.text_is("is_extended_id")) {
      if (!to_flag(value, read.is_extended)) return false;
    } else if (key.text_is("is_remote_frame")) {
      if (!to_flag(value, is_remote)) return false;
    } else if (key.text_is("is_error_frame")) {
      if (!to_flag(value, is_error)) return false;
    } else if (key.text_is("is_fd")) {
      if (!to_flag(value, read.is_fd)) return false;
    } else if (key.text_is("bitrate_switch")) {
      if (!to_flag(value, read.is_bit_rate_switched)) return false;
    } else if (key.text_is("error_state_indicator") || key.text_is("is_rx")) {
      if (!to_flag(value, ignored)) return false;
    } else if (!key.text_is("timestamp") && !key.text_is("channel")) {
      return false;
    }
  }
  if (!reader.is_at_end() || is_remote || is_error || id > 0x1FFF'FFFF || data.size() > read.data.size() ||
      (has_size && size != data.size()))
    return false;
  read.id = static_cast<std::uint32_t>(id);
  read.size = static_cast<std::uint8_t>(data.size());
  std::copy(data.begin(), data.end(), read.data.begin());
  if (!is_valid(read)) return false;
  frame = read;
  return true;
}

}  // namespace wallx
