// LoopStatistics: the loop's counters and its lateness histogram, readable from any thread at any time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "control/safety_limiter.hpp"

namespace wallx {

struct LoopCounters {
  std::uint64_t num_ticks = 0;
  std::uint64_t num_overruns = 0;         // ticks that were not over at the next one's time
  std::uint64_t num_skipped_periods = 0;  // grid points without a tick
  std::uint64_t num_stale_ticks = 0;      // ticks with a joint that did not answer
  std::uint64_t num_send_failures = 0;
  std::uint64_t num_holds = 0;                                      // times that hold was entered
  std::uint64_t num_resets = 0;                                     // times that a fault was reset
  std::uint64_t num_refused_plans = 0;                              // late plans of an old generation
  std::uint64_t num_dropped_records = 0;                            // nobody drained the ring
  std::array<std::uint64_t, kNumLimitReasons> num_limited_ticks{};  // per LimitReason bit, any joint
};

class LoopStatistics {
 public:
  // 1 us wide; the last one takes everything later
  static constexpr std::size_t kNumBuckets = 4096;

  enum Counter : std::size_t {
    ticks,
    overruns,
    skipped_periods,
    stale_ticks,
    send_failures,
    holds,
    resets,
    kNumCounters
  };

  void add(Counter counter, std::uint64_t count = 1) noexcept { bump(counters_[counter], count); }
  void set_refused_plans(std::uint64_t count) noexcept { refused_.store(count, std::memory_order_relaxed); }
  void add_limited(std::uint16_t reasons) noexcept {
    for (std::size_t bit = 0; bit < kNumLimitReasons; ++bit)
      if (reasons >> bit & 1) bump(limited_[bit], 1);
  }
  void add_lateness(double lateness_us) noexcept {
    const double bucket = std::clamp(lateness_us, 0.0, double(kNumBuckets - 1));
    bump(histogram_[static_cast<std::size_t>(bucket)], 1);
  }

  LoopCounters counters() const noexcept {
    LoopCounters c;
    c.num_ticks = get(counters_[ticks]);
    c.num_overruns = get(counters_[overruns]);
    c.num_skipped_periods = get(counters_[skipped_periods]);
    c.num_stale_ticks = get(counters_[stale_ticks]);
    c.num_send_failures = get(counters_[send_failures]);
    c.num_holds = get(counters_[holds]);
    c.num_resets = get(counters_[resets]);
    c.num_refused_plans = get(refused_);
    for (std::size_t bit = 0; bit < kNumLimitReasons; ++bit) c.num_limited_ticks[bit] = get(limited_[bit]);
    return c;
  }
  std::array<std::uint64_t, kNumBuckets> histogram() const noexcept {
    std::array<std::uint64_t, kNumBuckets> counts;
    for (std::size_t i = 0; i < kNumBuckets; ++i) counts[i] = get(histogram_[i]);
    return counts;
  }

 private:
  using Atomic = std::atomic<std::uint64_t>;
  static std::uint64_t get(const Atomic& value) noexcept { return value.load(std::memory_order_relaxed); }
  // only the loop writes
  static void bump(Atomic& value, std::uint64_t by) noexcept {
    value.store(get(value) + by, std::memory_order_relaxed);
  }

  std::array<Atomic, kNumCounters> counters_{};
  std::array<Atomic, kNumLimitReasons> limited_{};
  std::array<Atomic, kNumBuckets> histogram_{};
  Atomic refused_{0};
};

}  // namespace wallx
