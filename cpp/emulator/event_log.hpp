// EventLog: a thread that writes the ring's events to a file as JSON lines; its format is told in
// src/wallx_edge/sim/README.md. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "emulator/event_ring.hpp"

namespace wallx::emulator {

class EventLog {
 public:
  // Creates or empties the file; an empty path keeps no log, and the ring is emptied all the same.
  // Throws DeviceError when it cannot be created.
  EventLog(EventRing& ring, const std::string& path);
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Writes a line as it is, now. Only before start() and after stop(). Blocks on the file.
  void write_line(const std::string& json);
  void start();
  void stop();  // writes what is left, ends the thread; idempotent
  std::uint64_t num_write_errors() const noexcept {
    return num_write_errors_.load(std::memory_order_relaxed);
  }

 private:
  void run();
  void drain();
  void flush();

  EventRing& ring_;
  std::string path_;
  int file_ = -1;
  std::string pending_;
  std::thread thread_;
  std::atomic<bool> is_stopping_{false};
  std::atomic<std::uint64_t> num_write_errors_{0};
};

// one line of the log, without its end of line
void append_json(const Event& event, std::string& out);
std::string quote_json(const std::string& text);

}  // namespace wallx::emulator
