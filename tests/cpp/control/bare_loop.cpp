// BareLoop: it counts what it wakes, and refuses what is no loop.
// SPDX-License-Identifier: Apache-2.0
#include "control/bare_loop.hpp"

#include <numeric>

#include "base/errors.hpp"
#include "check.hpp"

namespace wallx {

TEST(a_bare_loop_counts_every_wake_up_once) {
  const BareLoopRun run = run_bare_loop(1000, Seconds(0.05), 0);
  CHECK(run.num_ticks >= 1);
  CHECK(run.num_ticks <= 50);  // late ones are skipped, none comes twice
  CHECK_EQ(std::accumulate(run.lateness.begin(), run.lateness.end(), std::uint64_t{0}), run.num_ticks);
  CHECK(!run.is_fifo);
}

TEST(a_bare_loop_refuses_impossible_rates_durations_and_priorities) {
  CHECK_THROWS(run_bare_loop(0.5, Seconds(1), 0), ConfigError, "rate_hz");
  CHECK_THROWS(run_bare_loop(20000, Seconds(1), 0), ConfigError, "10000");
  CHECK_THROWS(run_bare_loop(100, Seconds(0), 0), ConfigError, "duration");
  CHECK_THROWS(run_bare_loop(100, Seconds(1), 100), ConfigError, "priority is 100");
}

}  // namespace wallx
