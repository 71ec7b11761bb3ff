// Time: one clock for the whole process, CLOCK_MONOTONIC.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace wallx {

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC on Linux, the same in every process
using TimePoint = Clock::time_point;
using Duration = Clock::duration;
using Seconds = std::chrono::duration<double>;

inline Duration to_duration(Seconds seconds) { return std::chrono::duration_cast<Duration>(seconds); }
inline double to_seconds(Duration duration) { return Seconds(duration).count(); }

}  // namespace wallx
