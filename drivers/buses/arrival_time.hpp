// ArrivalTime: when a socket's kernel took a datagram in, on our clock; a frame that waited is not new.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/time.hpp"

namespace wallx {

// room for the control message of SO_TIMESTAMPNS and one more
inline constexpr std::size_t kControlSize = 64;

// Now when the message carries no stamp, or one that a step of the wall clock has put into the future.
inline TimePoint arrival_time(msghdr& message) noexcept {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS) continue;
    timespec stamp{}, wall{};
    std::memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
    // two looks at clocks that belong together: once more when something came between them. The first one
    // counts, which makes the frame older than it is rather than newer
    TimePoint now;
    for (int i = 0; i < 3; ++i) {
      now = Clock::now();
      ::clock_gettime(CLOCK_REALTIME, &wall);
      if (Clock::now() - now < std::chrono::microseconds(20)) break;
    }
    const std::int64_t age =
        (std::int64_t{wall.tv_sec} - stamp.tv_sec) * 1'000'000'000 + (wall.tv_nsec - stamp.tv_nsec);
    return now - std::chrono::nanoseconds(std::max<std::int64_t>(age, 0));
  }
  return Clock::now();
}

}  // namespace wallx
