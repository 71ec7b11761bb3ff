// Watch: the decision, and the loop around it.
// SPDX-License-Identifier: Apache-2.0
#include "tools/watch.hpp"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <thread>

#include "base/errors.hpp"

namespace wallx {
namespace {

WatchEvent look(int pipe) {
  pollfd poll{.fd = pipe, .events = POLLIN, .revents = 0};
  const int timeout_ms =
      static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kWatchPeriod).count());
  if (::poll(&poll, 1, timeout_ms) <= 0) return WatchEvent::none;
  char byte;
  const ssize_t count = ::read(pipe, &byte, 1);
  if (count > 0) return WatchEvent::left;
  return count < 0 && (errno == EINTR || errno == EAGAIN) ? WatchEvent::none : WatchEvent::died;
}

void stop(Robot& robot) noexcept {
  try {
    (void)robot.stop_wheels(Clock::now() + kWatchPeriod);  // repeated: nothing else could be done about it
  } catch (const WallxError&) {
  }
}

void say(const Robot& robot, const char* why) {
  std::fprintf(stderr,
               "safe-stop: the program that drives '%s' %s: wheels are stopped, every other joint holds its "
               "last goal, torque stays on\n",
               robot.embodiment().name.c_str(), why);
  std::fflush(stderr);
}

}  // namespace

Watch::Act Watch::decide(TimePoint now, std::uint64_t beats, WatchEvent event) noexcept {
  if (event == WatchEvent::left) return Act::leave;
  if (event == WatchEvent::died) return Act::stop;
  if (beats != beats_) {
    beats_ = beats;
    last_beat_ = now;
  }
  if (!has_seized_ && now - last_beat_ <= kStall) return Act::nothing;
  has_seized_ = true;  // for good: only the owner's death or its leave ends it
  return Act::seize_and_stop;
}

bool watch(Robot& robot, Heartbeat& heartbeat, int pipe) {
  Watch state(Clock::now());
  while (true) {
    const WatchEvent event = look(pipe);
    const bool had_seized = state.has_seized();
    switch (state.decide(Clock::now(), heartbeat.beats(), event)) {
      case Watch::Act::nothing:
        break;
      case Watch::Act::seize_and_stop:
        heartbeat.seize();
        stop(robot);
        if (!had_seized) say(robot, "has stalled");
        break;
      case Watch::Act::stop:
        for (int i = 0; i < kFarewells; ++i) {
          stop(robot);
          std::this_thread::sleep_for(kWatchPeriod);  // a half-written frame of the dead owner ends here
        }
        say(robot, "has died");
        return true;
      case Watch::Act::leave:
        return state.has_seized();
    }
  }
}

}  // namespace wallx
