// Poll: waits for a file descriptor until a deadline, without throwing or allocating.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "base/result.hpp"
#include "base/time.hpp"

namespace wallx {

// Blocks until one of `events`, an error or a hang-up (ok: it shows in the read or write that follows), or
// the deadline (timeout). bus_closed carries errno in `detail`.
inline Result wait_for(int fd, short events, TimePoint deadline) noexcept {
  while (true) {
    const auto left = std::max<std::int64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count(), 0);
    const timespec timeout{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    pollfd poll{.fd = fd, .events = events, .revents = 0};
    const int ready = ::ppoll(&poll, 1, &timeout, nullptr);
    if (ready > 0) return {};
    if (ready == 0) return {.code = ErrorCode::timeout};
    if (errno != EINTR) return {.code = ErrorCode::bus_closed, .detail = errno};
  }
}

}  // namespace wallx
