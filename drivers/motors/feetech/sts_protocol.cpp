// STS protocol: building requests, finding answers.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/feetech/sts_protocol.hpp"

#include <algorithm>

namespace wallx::feetech {
namespace {

constexpr std::uint8_t kHeader = 0xFF;
constexpr std::size_t kPrefixBytes = 4;  // header, header, id, length

}  // namespace

std::uint8_t checksum(std::span<const std::uint8_t> body) noexcept {
  unsigned sum = 0;
  for (const std::uint8_t byte : body) sum += byte;
  return static_cast<std::uint8_t>(~sum & 0xFF);
}

Frame::Frame(std::uint8_t id, Instruction instruction, std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() > kMaxParameters) return;
  bytes_[0] = bytes_[1] = kHeader;
  bytes_[2] = id;
  bytes_[3] = static_cast<std::uint8_t>(parameters.size() + 2);
  bytes_[4] = static_cast<std::uint8_t>(instruction);
  std::copy(parameters.begin(), parameters.end(), bytes_.begin() + 5);
  size_ = kPrefixBytes + 2 + parameters.size();
  bytes_[size_ - 1] = checksum({bytes_.data() + 2, size_ - 3});
}

Frame encode_ping(std::uint8_t id) noexcept { return {id, Instruction::ping, {}}; }

Frame encode_read(std::uint8_t id, std::uint8_t address, std::uint8_t num_bytes) noexcept {
  const std::array parameters{address, num_bytes};
  return {id, Instruction::read, parameters};
}

Frame encode_write(std::uint8_t id, std::uint8_t address, std::span<const std::uint8_t> data) noexcept {
  std::array<std::uint8_t, kMaxParameters> parameters{};
  if (data.size() + 1 > parameters.size()) return {};
  parameters[0] = address;
  std::copy(data.begin(), data.end(), parameters.begin() + 1);
  return {id, Instruction::write, {parameters.data(), data.size() + 1}};
}

Frame encode_sync_read(std::uint8_t address, std::uint8_t num_bytes,
                       std::span<const std::uint8_t> ids) noexcept {
  std::array<std::uint8_t, kMaxParameters> parameters{};
  if (ids.size() + 2 > parameters.size()) return {};
  parameters[0] = address;
  parameters[1] = num_bytes;
  std::copy(ids.begin(), ids.end(), parameters.begin() + 2);
  return {kBroadcastId, Instruction::sync_read, {parameters.data(), ids.size() + 2}};
}

Frame encode_sync_write(std::uint8_t address, std::uint8_t num_bytes, std::span<const std::uint8_t> ids,
                        std::span<const std::uint8_t> data) noexcept {
  std::array<std::uint8_t, kMaxParameters> parameters{};
  const std::size_t size = 2 + ids.size() * (1u + num_bytes);
  if (size > parameters.size() || data.size() != ids.size() * num_bytes) return {};
  parameters[0] = address;
  parameters[1] = num_bytes;
  auto* out = parameters.data() + 2;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    *out++ = ids[i];
    out = std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(i * num_bytes), num_bytes, out);
  }
  return {kBroadcastId, Instruction::sync_write, {parameters.data(), size}};
}

void ReplyParser::reset(std::size_t max_parameters) noexcept {
  begin_ = end_ = 0;
  max_length_ = std::min(max_parameters, kMaxParameters) + 2;
  num_damaged_ = num_skipped_ = 0;
}

std::size_t ReplyParser::push(std::span<const std::uint8_t> bytes) noexcept {
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

void ReplyParser::skip() noexcept {
  ++begin_;
  ++num_skipped_;
}

bool ReplyParser::next(Reply& reply) noexcept {
  while (begin_ < end_) {
    const std::uint8_t* frame = buffer_.data() + begin_;
    const std::size_t available = end_ - begin_;
    if (frame[0] != kHeader) {
      skip();
      continue;
    }
    if (available < 2) return false;
    if (frame[1] != kHeader) {
      skip();
      continue;
    }
    if (available < 3) return false;
    // no servo has an id above kMaxId; a third FF means that the header starts one byte later
    if (frame[2] > kMaxId) {
      skip();
      continue;
    }
    if (available < kPrefixBytes) return false;
    const std::size_t length = frame[3];
    if (length < 2 || length > max_length_) {
      ++num_damaged_;
      skip();
      continue;
    }
    const std::size_t size = kPrefixBytes + length;
    if (available < size) return false;
    if (checksum({frame + 2, size - 3}) != frame[size - 1]) {
      ++num_damaged_;
      skip();
      continue;
    }
    reply.id = frame[2];
    reply.error = frame[4];
    reply.parameters = {frame + 5, length - 2};
    begin_ += size;
    return true;
  }
  return false;
}

}  // namespace wallx::feetech
