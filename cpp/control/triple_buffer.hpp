// TripleBuffer: hands the newest value from one thread to another; neither ever waits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace wallx {

// One writer, one reader. `Held` values stay with the reader: 1 is the classic triple buffer, with 2 the
// reader can keep one value while it takes another.
template <class T, unsigned Held = 1>
class TripleBuffer {
 public:
  TripleBuffer() {
    for (unsigned i = 0; i < Held; ++i) held_[i] = static_cast<std::uint8_t>(i + 2);
  }

  T& back() noexcept { return slots_[back_]; }  // writer: fill this, then publish()
  void publish() noexcept {
    back_ = middle_.exchange(static_cast<std::uint8_t>(back_ | kFresh), std::memory_order_acq_rel) & kIndex;
  }

  // reader: the newest value replaces held value `which`; false: nothing new
  bool take(unsigned which = 0) noexcept {
    if (!(middle_.load(std::memory_order_relaxed) & kFresh)) return false;
    held_[which] = middle_.exchange(held_[which], std::memory_order_acq_rel) & kIndex;
    return true;
  }
  const T& held(unsigned which = 0) const noexcept { return slots_[held_[which]]; }

 private:
  static constexpr std::uint8_t kFresh = 0x80, kIndex = 0x7f;
  std::array<T, Held + 2> slots_{};
  std::uint8_t back_ = 0;                  // the writer's
  std::atomic<std::uint8_t> middle_{1};    // nobody's: the last published value
  std::array<std::uint8_t, Held> held_{};  // the reader's
};

}  // namespace wallx
