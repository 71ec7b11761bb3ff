// BareLoop: sleeping to absolute deadlines and looking at the clock.
// SPDX-License-Identifier: Apache-2.0
#include "control/bare_loop.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/errors.hpp"

namespace wallx {

BareLoopRun run_bare_loop(double rate_hz, Seconds duration, int priority) {
  if (!(rate_hz >= 1 && rate_hz <= 10000))
    throw ConfigError("rate_hz is " + std::to_string(rate_hz) + ", must be 1..10000");
  if (!(duration > Seconds(0) && duration <= Seconds(3600)))
    throw ConfigError("duration is " + std::to_string(duration.count()) +
                      " s, must be above 0, at most 3600");
  if (priority < 0 || priority > 99)
    throw ConfigError("priority is " + std::to_string(priority) + ", must be 0..99");
  BareLoopRun run;
  std::thread thread([&] {
    if (priority > 0) {
      sched_param parameters{};
      parameters.sched_priority = priority;
      run.is_fifo = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters) == 0;
    }
    const Duration period = std::chrono::duration_cast<Duration>(Seconds(1 / rate_hz));
    const TimePoint start = Clock::now() + period,
                    end = start + std::chrono::duration_cast<Duration>(duration);
    for (TimePoint next = start; next < end; next += period) {
      const auto ns = std::chrono::nanoseconds(next.time_since_epoch()).count();
      const timespec deadline{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
      while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nullptr) == EINTR) {
      }
      const Duration late = Clock::now() - next;
      const auto us = std::chrono::duration_cast<std::chrono::microseconds>(late).count();
      ++run.lateness[static_cast<std::size_t>(
          std::clamp<std::int64_t>(us, 0, LoopStatistics::kNumBuckets - 1))];
      ++run.num_ticks;
      next += period * (late / period);  // as the control loop: skip, never burst
    }
  });
  thread.join();
  return run;
}

}  // namespace wallx
