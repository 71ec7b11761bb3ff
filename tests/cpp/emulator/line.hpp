// Line: a bus on a fake clock, for tests: sends literal bytes and collects what comes back, with times.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "emulator/sts_bus.hpp"

namespace wallx::emulator {

using Bytes = std::vector<std::uint8_t>;

// "FF FF 01" -> bytes
inline Bytes hex(const std::string& text) {
  std::istringstream in(text);
  Bytes bytes;
  for (unsigned value; in >> std::hex >> value;) bytes.push_back(static_cast<std::uint8_t>(value));
  return bytes;
}

inline std::string show(const Bytes& bytes) {
  std::string text;
  char digits[4];
  for (const std::uint8_t byte : bytes) {
    std::snprintf(digits, sizeof digits, "%02X ", byte);
    text += digits;
  }
  if (!text.empty()) text.pop_back();
  return text;
}

inline ServoSetup plain_servo(int id) {
  ServoSetup setup;
  setup.name = "joint" + std::to_string(id);
  setup.id = id;
  return setup;
}

inline std::vector<ServoSetup> plain_servos(int count) {
  std::vector<ServoSetup> setups;
  for (int id = 1; id <= count; ++id) setups.push_back(plain_servo(id));
  return setups;
}

struct Line {
  explicit Line(const std::vector<ServoSetup>& servos, BusOptions options = {}, EventRing* events = nullptr)
      : bus(servos, options, events), now(options.start) {}

  // Sends, then waits until the line is quiet; returns the answers' bytes.
  std::string exchange(const std::string& request) {
    bus.receive(hex(request), now);
    timed.clear();
    Bytes answers;
    while (const auto next = bus.next_event()) {
      now = *next;
      bus.advance(now);
      collect(answers);
    }
    return show(answers);
  }
  void collect(Bytes& answers) {
    std::vector<TimedByte> bytes(64);
    while (const std::size_t count = bus.due(now, bytes)) {
      for (std::size_t i = 0; i < count; ++i) {
        answers.push_back(bytes[i].byte);
        timed.push_back(bytes[i]);
      }
    }
  }
  void wait(double seconds) { bus.advance(now += to_duration(Seconds(seconds))); }
  std::uint8_t byte(int id, int address) {
    return bus.find(id)->registers()[static_cast<std::size_t>(address)];
  }
  int word(int id, int address) { return byte(id, address) | byte(id, address + 1) << 8; }

  StsBus bus;
  TimePoint now;
  std::vector<TimedByte> timed;
};

}  // namespace wallx::emulator
