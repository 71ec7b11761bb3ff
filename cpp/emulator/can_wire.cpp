// CAN wire: the bit sequence of a frame, with its checksum and stuff bits.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/can_wire.hpp"

namespace wallx::emulator {
namespace {

constexpr int kClassicTail = 1 + 2 + 7 + 3;  // checksum delimiter, acknowledge and its delimiter, end, gap

// counts bits as they are sent, stuff bits included
class BitCounter {
 public:
  void push(unsigned value, int num_bits) noexcept {
    for (int i = num_bits - 1; i >= 0; --i) push_bit(value >> i & 1);
  }
  void push_bit(bool bit) noexcept {
    ++count_;
    const bool feedback = (crc_ >> 14 & 1) ^ bit;
    crc_ = (crc_ << 1 & 0x7FFF) ^ (feedback ? 0x4599u : 0u);
    run_ = bit == last_ ? run_ + 1 : 1;
    last_ = bit;
    if (run_ == 5) {  // a bit of the other value follows, and counts for the next run
      ++count_;
      last_ = !bit;
      run_ = 1;
    }
  }
  unsigned crc15() const noexcept { return crc_; }
  int count() const noexcept { return count_; }

 private:
  int count_ = 0, run_ = 0;
  bool last_ = true;  // the line rests at 1
  unsigned crc_ = 0;
};

int size_code(int size) noexcept {
  constexpr std::array kSizes{12, 16, 20, 24, 32, 48, 64};
  if (size <= 8) return size;
  for (std::size_t i = 0; i < kSizes.size(); ++i)
    if (size <= kSizes[i]) return 9 + static_cast<int>(i);
  return 15;
}

}  // namespace

int fd_size(int size) noexcept {
  constexpr std::array kSizes{0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};
  return kSizes[static_cast<std::size_t>(size_code(size))];
}

WireBits count_bits(const WireFrame& frame) noexcept {
  BitCounter bits;
  bits.push(0, 1);  // start of frame
  if (frame.is_extended) {
    bits.push(frame.id >> 18 & 0x7FF, 11);
    bits.push(3, 2);  // substitute remote request, identifier extension
    bits.push(frame.id & 0x3FFFF, 18);
  } else {
    bits.push(frame.id & 0x7FF, 11);
  }
  bits.push(0, 1);  // remote request, or its FD successor
  if (!frame.is_fd) {
    bits.push(0, 2);  // identifier extension or reserved, reserved
    bits.push(static_cast<unsigned>(size_code(frame.size)), 4);
    for (int i = 0; i < frame.size; ++i) bits.push(frame.data[static_cast<std::size_t>(i)], 8);
    bits.push(bits.crc15(), 15);
    return {.slow = bits.count() + kClassicTail, .fast = 0};
  }
  if (!frame.is_extended) bits.push(0, 1);
  bits.push(1, 1);  // FD format
  bits.push(0, 1);
  bits.push(frame.is_fast, 1);  // the rate changes behind this bit
  const int head = bits.count();
  bits.push(0, 1);  // error state
  bits.push(static_cast<unsigned>(size_code(frame.size)), 4);
  for (int i = 0; i < frame.size; ++i) bits.push(frame.data[static_cast<std::size_t>(i)], 8);
  const int crc = frame.size <= 16 ? 17 : 21;
  const int stuff_count = 4, fixed_stuff = 1 + (stuff_count + crc) / 4;  // one at first, then every fifth bit
  const int data = bits.count() - head + stuff_count + crc + fixed_stuff;
  return frame.is_fast ? WireBits{.slow = head + kClassicTail, .fast = data}
                       : WireBits{.slow = head + data + kClassicTail, .fast = 0};
}

Duration wire_time(const WireFrame& frame, const WireRates& rates) noexcept {
  const WireBits bits = count_bits(frame);
  const double fast = rates.data_bit_rate > 0 ? double(rates.data_bit_rate) : double(rates.bit_rate);
  return to_duration(Seconds(bits.slow / double(rates.bit_rate) + bits.fast / fast));
}

}  // namespace wallx::emulator
