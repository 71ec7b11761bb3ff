// SliceMeter: how many rows of a prefill are computed at once, from measured times.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/time.hpp"

namespace wallx {

// Written by the queue's thread, read by any.
class SliceMeter {
 public:
  static constexpr double kShare = 0.1;         // of a chunk's own time that it may be delayed by a slice
  static constexpr double kSmallest = 0.5e-3;   // slice, however short a chunk is          [s]
  static constexpr double kLargest = 50e-3;     // slice, however long a chunk is           [s]
  static constexpr double kUnknown = 2e-3;      // slice before the first chunk was measured [s]
  static constexpr std::int64_t kMinRows = 16;  // of one prefill pass: weights are read once for all of them

  // computing times, without the work that went first in between
  void saw_chunk(Seconds time) { learn(chunk_, time.count()); }
  void saw_block(std::int64_t rows, Seconds time) { learn(row_, time.count() / static_cast<double>(rows)); }

  // of a slice [s]
  double target() const {
    const double chunk = chunk_.load(std::memory_order_relaxed);
    return chunk == 0 ? kUnknown : std::clamp(kShare * chunk, kSmallest, kLargest);
  }
  // rows of a prefill pass, of which one layer is a slice; 0: not measured yet, kMinRows or more otherwise
  std::int64_t rows() const {
    const double row = row_.load(std::memory_order_relaxed);
    return row <= 0 ? 0 : std::max(kMinRows, static_cast<std::int64_t>(std::min(target() / row, 1e6)));
  }

 private:
  static constexpr double kNewest = 0.2;  // weight of the newest measurement

  static void learn(std::atomic<double>& mean, double value) {
    const double before = mean.load(std::memory_order_relaxed);
    mean.store(before == 0 ? value : before + kNewest * (value - before), std::memory_order_relaxed);
  }

  std::atomic<double> chunk_{0}, row_{0};  // means [s]; 0: not measured
};

}  // namespace wallx
