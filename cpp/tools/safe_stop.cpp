// safe-stop: stops a robot's wheels and leaves every other joint holding, now or when its owner dies or
// stalls. SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "base/errors.hpp"
#include "drivers/registry.hpp"
#include "tools/stop_file.hpp"
#include "tools/watch.hpp"

namespace {

constexpr const char* kUsage =
    "usage: safe-stop FILE\n"
    "       safe-stop --watch FILE BUS HEARTBEAT PIPE\n"
    "\n"
    "Stops every joint in velocity mode; joints in position mode keep their last goal. Torque stays on.\n"
    "FILE is the stop file that wallx-edge writes when it connects a robot. --watch is how wallx-edge starts "
    "it:\n"
    "BUS, HEARTBEAT and PIPE are inherited file descriptors; it acts when the owner dies, or 0.5 s after "
    "its\n"
    "last beat.\n";

int descriptor(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    throw wallx::ConfigError("file descriptor '" + std::string(text) + "' must be a whole number from 0 on");
  return value;
}

int stop_now(const std::string& path) {
  const wallx::StopFile file = wallx::read_stop_file(path);
  const bool has_wheels =
      std::any_of(file.embodiment.joints.begin(), file.embodiment.joints.end(),
                  [](const wallx::JointSpec& joint) { return joint.mode == wallx::JointMode::velocity; });
  if (!has_wheels) {
    std::printf("safe-stop: '%s' has no wheels: there is nothing to stop, and nothing was sent\n",
                file.embodiment.name.c_str());
    return 0;
  }
  const auto robot = wallx::make_robot(file.embodiment, file.calibration, file.bus);
  const wallx::Result result = robot->stop_wheels(wallx::Clock::now() + std::chrono::seconds(1));
  robot->disconnect();
  if (!result.ok()) {
    std::fprintf(stderr, "safe-stop: %s: %s\n", file.bus.port.c_str(), to_string(result.code));
    return 1;
  }
  std::printf("safe-stop: '%s': wheels are stopped, every other joint holds its last goal, torque stays on\n",
              file.embodiment.name.c_str());
  return 0;
}

int watch_over(char** arguments) {
  wallx::StopFile file = wallx::read_stop_file(arguments[0]);
  file.bus.descriptor = descriptor(arguments[1]);
  wallx::Heartbeat heartbeat(descriptor(arguments[2]));
  const int pipe = descriptor(arguments[3]);
  const auto robot = wallx::make_robot(file.embodiment, file.calibration, file.bus);
  // a terminal's Ctrl-C is for the owner
  for (const int number : {SIGINT, SIGHUP, SIGPIPE}) std::signal(number, SIG_IGN);
  (void)::mlockall(MCL_CURRENT | MCL_FUTURE);  // small; where it is not permitted, it is only slower
  std::printf("watching\n");
  std::fflush(stdout);
  return wallx::watch(*robot, heartbeat, pipe) ? 3 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count == 2 && arguments[1][0] != '-') return stop_now(arguments[1]);
    if (count == 6 && std::string_view(arguments[1]) == "--watch") return watch_over(arguments + 2);
    const bool asks = count == 2 && (std::string_view(arguments[1]) == "--help");
    std::fputs(kUsage, asks ? stdout : stderr);
    return asks ? 0 : 2;
  } catch (const wallx::WallxError& error) {
    std::fprintf(stderr, "safe-stop: %s\n", error.what());
    return 1;
  }
}
