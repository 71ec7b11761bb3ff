// Dynamixel Protocol 2.0: building requests, finding answers.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/dynamixel/dxl_protocol.hpp"

#include <algorithm>

namespace wallx::dynamixel {
namespace {

constexpr std::array<std::uint8_t, 4> kHeader{0xFF, 0xFF, 0xFD, 0x00};
constexpr std::uint8_t kStuffing = 0xFD;
constexpr std::size_t kPrefixBytes = 7;  // header, id, length

consteval std::array<std::uint16_t, 256> make_crc_table() {
  std::array<std::uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 0x8000 ? crc << 1 ^ 0x8005 : crc << 1;
    table[byte] = static_cast<std::uint16_t>(crc);
  }
  return table;
}
constexpr std::array<std::uint16_t, 256> kCrcTable = make_crc_table();

// the last three bytes before `end`
bool ends_like_a_header(const std::uint8_t* begin, const std::uint8_t* end) noexcept {
  return end - begin >= 3 && end[-1] == kHeader[2] && end[-2] == kHeader[1] && end[-3] == kHeader[0];
}

// parameters being collected; `fits` becomes false and stays so
struct Parameters {
  std::array<std::uint8_t, kMaxParameters> bytes;
  std::size_t size = 0;
  bool fits = true;

  void byte(std::uint8_t value) noexcept {
    if (size < bytes.size())
      bytes[size++] = value;
    else
      fits = false;
  }
  void word(std::uint16_t value) noexcept {
    byte(static_cast<std::uint8_t>(value & 0xFF));
    byte(static_cast<std::uint8_t>(value >> 8));
  }
  void all(std::span<const std::uint8_t> values) noexcept {
    for (const std::uint8_t value : values) byte(value);
  }
  Frame frame(std::uint8_t id, Instruction instruction) const noexcept {
    return fits ? Frame(id, instruction, {bytes.data(), size}) : Frame();
  }
};

}  // namespace

std::uint16_t crc16(std::span<const std::uint8_t> bytes) noexcept {
  unsigned crc = 0;
  for (const std::uint8_t byte : bytes) crc = (crc << 8 ^ kCrcTable[(crc >> 8 ^ byte) & 0xFF]) & 0xFFFF;
  return static_cast<std::uint16_t>(crc);
}

Frame::Frame(std::uint8_t id, Instruction instruction, std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() > kMaxParameters) return;
  std::copy(kHeader.begin(), kHeader.end(), bytes_.begin());
  bytes_[4] = id;
  std::uint8_t* const body = bytes_.data() + kPrefixBytes;
  std::uint8_t* out = body;
  *out++ = static_cast<std::uint8_t>(instruction);
  // a stuffing byte ends the sequence it follows: FF FF FD FD is not looked at again
  const std::uint8_t* fresh = body;
  for (const std::uint8_t byte : parameters) {
    *out++ = byte;
    if (!ends_like_a_header(fresh, out)) continue;
    *out++ = kStuffing;
    fresh = out;
  }
  put_u16(&bytes_[5], static_cast<std::uint16_t>(out - body + 2));
  const auto size = static_cast<std::size_t>(out - bytes_.data());
  put_u16(out, crc16({bytes_.data(), size}));
  size_ = size + 2;
}

Frame encode_ping(std::uint8_t id) noexcept { return {id, Instruction::ping, {}}; }

Frame encode_reboot(std::uint8_t id) noexcept { return {id, Instruction::reboot, {}}; }

Frame encode_read(std::uint8_t id, std::uint16_t address, std::uint16_t num_bytes) noexcept {
  Parameters parameters;
  parameters.word(address), parameters.word(num_bytes);
  return parameters.frame(id, Instruction::read);
}

Frame encode_write(std::uint8_t id, std::uint16_t address, std::span<const std::uint8_t> data) noexcept {
  Parameters parameters;
  parameters.word(address), parameters.all(data);
  return parameters.frame(id, Instruction::write);
}

Frame encode_sync_read(Instruction instruction, std::uint16_t address, std::uint16_t num_bytes,
                       std::span<const std::uint8_t> ids) noexcept {
  Parameters parameters;
  parameters.word(address), parameters.word(num_bytes), parameters.all(ids);
  return parameters.frame(kBroadcastId, instruction);
}

Frame encode_sync_write(std::uint16_t address, std::uint16_t num_bytes, std::span<const std::uint8_t> ids,
                        std::span<const std::uint8_t> data) noexcept {
  if (data.size() != ids.size() * num_bytes) return {};
  Parameters parameters;
  parameters.word(address), parameters.word(num_bytes);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    parameters.byte(ids[i]);
    parameters.all(data.subspan(i * num_bytes, num_bytes));
  }
  return parameters.frame(kBroadcastId, Instruction::sync_write);
}

Status fast_part(const Status& whole, std::size_t num_bytes, std::size_t index) noexcept {
  // counted from the frame's own error byte, which is not among the parameters
  const std::size_t part = index * (num_bytes + 4);
  return {.id = whole.parameters[part],
          .error = index == 0 ? whole.error : whole.parameters[part - 1],
          .parameters = whole.parameters.subspan(part + 1, num_bytes)};
}

void StatusParser::reset(std::size_t max_parameters) noexcept {
  begin_ = end_ = 0;
  max_parameters_ = std::min(max_parameters, kMaxParameters);
  num_damaged_ = num_skipped_ = 0;
}

std::size_t StatusParser::push(std::span<const std::uint8_t> bytes) noexcept {
  if (begin_ > 0) {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
    end_ -= begin_;
    begin_ = 0;
  }
  const std::size_t count = std::min(bytes.size(), buffer_.size() - end_);
  std::copy_n(bytes.begin(), count, buffer_.begin() + static_cast<std::ptrdiff_t>(end_));
  end_ += count;
  return count;
}

void StatusParser::skip() noexcept {
  ++begin_;
  ++num_skipped_;
}

// a whole frame with a right crc; false: it is none of ours after all
bool StatusParser::take(const std::uint8_t* frame, std::size_t size, Status& status) noexcept {
  const std::uint8_t* in = frame + kPrefixBytes;
  const std::uint8_t* const end = frame + size - 2;
  if (*in++ != static_cast<std::uint8_t>(Instruction::status)) return false;
  status.id = frame[4];
  status.error = *in++;
  std::size_t count = 0;
  if (status.id == kBroadcastId) {
    count = static_cast<std::size_t>(end - in);
    if (count > max_parameters_) return false;
    std::copy(in, end, parameters_.begin());
  } else {
    // the error byte is part of what is stuffed, but 55 before it cannot begin a header
    const std::uint8_t* fresh = in - 1;
    while (in < end) {
      if (count == max_parameters_) return false;
      parameters_[count++] = *in++;
      if (!ends_like_a_header(fresh, in)) continue;
      if (in == end || *in != kStuffing) return false;
      fresh = ++in;
    }
  }
  status.parameters = {parameters_.data(), count};
  return true;
}

bool StatusParser::next(Status& status) noexcept {
  // instruction, error, parameters, all stuffed, and crc
  const std::size_t max_length = (max_parameters_ + 2) * 4 / 3 + 2;
  while (begin_ < end_) {
    const std::uint8_t* frame = buffer_.data() + begin_;
    const std::size_t available = end_ - begin_;
    const std::size_t known = std::min(available, kHeader.size());
    if (!std::equal(frame, frame + known, kHeader.begin())) {
      skip();
      continue;
    }
    if (available < kPrefixBytes) return false;
    const std::size_t length = get_u16(frame + 5);
    if ((frame[4] > kMaxId && frame[4] != kBroadcastId) || length < 4 || length > max_length) {
      ++num_damaged_;
      skip();
      continue;
    }
    const std::size_t size = kPrefixBytes + length;
    if (available < size) return false;
    if (crc16({frame, size - 2}) != get_u16(frame + size - 2) || !take(frame, size, status)) {
      ++num_damaged_;
      skip();
      continue;
    }
    begin_ += size;
    return true;
  }
  return false;
}

}  // namespace wallx::dynamixel
