// CanLine: an emulated CAN bus on a clock of its own, and frames as the documents print them, "001#FFFF".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "emulator/dm_bus.hpp"

namespace wallx::emulator {

inline WireFrame wire_frame(std::uint32_t id, const std::string& hex) {
  WireFrame frame;
  frame.id = id;
  unsigned value = 0;
  int used = 0;
  for (const char* at = hex.c_str(); std::sscanf(at, "%2x%n", &value, &used) == 1; at += used)
    frame.data[frame.size++] = static_cast<std::uint8_t>(value);
  return frame;
}

inline std::string text(const WireFrame& frame) {
  char part[8];
  std::snprintf(part, sizeof part, "%03X#", frame.id);
  std::string all = part;
  for (int i = 0; i < frame.size; ++i) {
    std::snprintf(part, sizeof part, i ? " %02X" : "%02X", frame.data[static_cast<std::size_t>(i)]);
    all += part;
  }
  return all;
}

// motors that hang on nothing: ids 1.., answers under 0x11..
inline std::vector<DmSetup> plain_motors(int count) {
  std::vector<DmSetup> motors;
  for (int i = 1; i <= count; ++i) {
    DmSetup setup;
    setup.name = "motor " + std::to_string(i);
    setup.id = i;
    setup.feedback_id = 0x10 + i;
    setup.serial = 1000 + i;
    motors.push_back(setup);
  }
  return motors;
}

struct CanLine {
  explicit CanLine(const std::vector<DmSetup>& motors, DmBusOptions options = {})
      : bus(motors, (options.start = TimePoint{std::chrono::seconds(1)}, options)) {}

  // sends, lets the line fall quiet and returns what came back
  std::vector<TimedFrame> exchange_all(const WireFrame& frame) {
    bus.receive(frame, bus.now());
    std::vector<TimedFrame> answers;
    std::array<TimedFrame, 8> taken;
    while (const auto next = bus.next_event()) {
      bus.advance(*next);
      while (const std::size_t count = bus.due(bus.now(), taken))
        answers.insert(answers.end(), taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(count));
    }
    return answers;
  }
  // as text, one blank between frames
  std::string exchange(std::uint32_t id, const std::string& hex) {
    std::string all;
    for (const TimedFrame& answer : exchange_all(wire_frame(id, hex)))
      all += (all.empty() ? "" : ", ") + text(answer.frame);
    return all;
  }
  // time passes, an MIT or position frame repeated every 5 ms
  void hold(std::uint32_t id, const std::string& hex, double seconds) {
    for (int i = 0; i < static_cast<int>(seconds / 0.005); ++i) {
      exchange(id, hex);
      bus.advance(bus.now() + std::chrono::milliseconds(5));
    }
  }
  void wait(double seconds) { bus.advance(bus.now() + to_duration(Seconds(seconds))); }

  DmBus bus;
};

}  // namespace wallx::emulator
