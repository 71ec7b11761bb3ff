// BareLoop: an empty real-time loop on this machine, what the control loop's lateness is judged by.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "base/time.hpp"
#include "control/loop_statistics.hpp"

namespace wallx {

struct BareLoopRun {
  std::array<std::uint64_t, LoopStatistics::kNumBuckets> lateness{};  // wake-ups per 1 us of lateness
  std::uint64_t num_ticks = 0;
  bool is_fifo = false;
};

// Wakes `rate_hz` times a second for `duration` on a thread of SCHED_FIFO `priority` that does nothing else;
// 0 asks for no priority. Blocks for `duration`. Throws ConfigError: rate_hz not 1..10000, duration not
// 0..3600 s, priority not 0..99.
BareLoopRun run_bare_loop(double rate_hz, Seconds duration, int priority);

}  // namespace wallx
