// Watch and StopFile: when the watcher acts, and what it is told about the robot.
// SPDX-License-Identifier: Apache-2.0
#include "tools/watch.hpp"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/errors.hpp"
#include "check.hpp"
#include "tools/stop_file.hpp"

using namespace wallx;
using Act = Watch::Act;

namespace {

const TimePoint kStart{std::chrono::seconds(5)};
constexpr Duration kMs = std::chrono::milliseconds(1);

struct TextFile {
  explicit TextFile(const std::string& text)
      : path("stop_file_test_" + std::to_string(::getpid()) + ".json") {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file != nullptr);
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
  ~TextFile() { std::remove(path.c_str()); }
  const std::string path;
};

const std::string kGood =
    R"({"name": "cart", "motor_family": "feetech_sts",
        "bus": {"kind": "serial", "port": "/dev/ttyX", "baud_rate": 1000000, "bit_rate": 1000000,
                "data_bit_rate": 0, "interface": ""},
        "joints": [{"name": "arm", "id": 1, "mode": "position"}, {"name": "wheel", "id": 2, "mode": "velocity"}]})";

}  // namespace

TEST(a_beating_owner_is_left_alone) {
  Watch watch(kStart);
  for (int i = 0; i < 100; ++i)
    CHECK(watch.decide(kStart + i * 499 * kMs, static_cast<std::uint64_t>(i + 1), WatchEvent::none) ==
          Act::nothing);
}

TEST(a_stalled_owner_is_shut_out_for_good) {
  Watch watch(kStart);
  CHECK(watch.decide(kStart + 10 * kMs, 7, WatchEvent::none) == Act::nothing);
  CHECK(watch.decide(kStart + 510 * kMs, 7, WatchEvent::none) == Act::nothing);
  CHECK(watch.decide(kStart + 511 * kMs, 7, WatchEvent::none) == Act::seize_and_stop);
  // it wakes up: one exchange of it may still come, so the stop is repeated
  CHECK(watch.decide(kStart + 520 * kMs, 8, WatchEvent::none) == Act::seize_and_stop);
  CHECK(watch.decide(kStart + 540 * kMs, 9, WatchEvent::left) == Act::leave);
}

TEST(a_dead_owner_is_stopped_at_once_and_one_that_leaves_is_not) {
  Watch watch(kStart);
  CHECK(watch.decide(kStart + kMs, 1, WatchEvent::died) == Act::stop);
  Watch other(kStart);
  CHECK(other.decide(kStart + kMs, 1, WatchEvent::left) == Act::leave);
  CHECK(!other.has_seized());
}

TEST(a_seized_bus_is_seen_by_the_owner_through_the_inherited_memory) {
  Heartbeat owner;
  Heartbeat watcher(owner.descriptor());
  CHECK(owner.enter());
  owner.leave();
  owner.leave();
  CHECK_EQ(watcher.beats(), 2u);
  watcher.seize();
  CHECK(!owner.enter());
  owner.rearm();
  CHECK(owner.enter());
  CHECK_THROWS(Heartbeat(9999), DeviceError, "no such file descriptor");
}

TEST(a_stop_file_tells_family_bus_and_modes) {
  const TextFile text(kGood);
  const StopFile file = read_stop_file(text.path);
  CHECK_EQ(file.embodiment.motor_family, "feetech_sts");
  CHECK_EQ(file.bus.port, "/dev/ttyX");
  REQUIRE(file.embodiment.joints.size() == 2);
  CHECK(file.embodiment.joints[0].mode == JointMode::position);
  CHECK(file.embodiment.joints[1].mode == JointMode::velocity);
  CHECK_EQ(file.calibration[1].id, 2);
}

TEST(a_stop_file_that_is_wrong_is_refused_with_the_key) {
  const auto broken = [](std::string text, const std::string& from, const std::string& to, const char* key) {
    REQUIRE(text.find(from) != std::string::npos);
    const TextFile file(text.replace(text.find(from), from.size(), to));
    CHECK_THROWS(read_stop_file(file.path), ConfigError, key);
  };
  broken(kGood, "\"velocity\"", "\"torque\"", "'mode' is 'torque'");
  broken(kGood, "\"motor_family\"", "\"family\"", "'motor_family' is missing");
  broken(kGood, "\"id\": 2", "\"id\": -2", "'id' is -2");
  broken(kGood, "}", "", "stop_file_test");
  CHECK_THROWS(read_stop_file("absent.json"), ConfigError, "cannot be read");
}
