// PtyHost: runs an emulated bus in real time behind a pseudo-terminal, so that any program can open it as a
// serial port. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "emulator/event_log.hpp"
#include "emulator/serial_line.hpp"

namespace wallx::emulator {

struct HostOptions {
  std::string link;  // symbolic link to make for the port; replaced when it is a link, empty: none
  std::string log;   // file of JSON lines, empty: none
};

struct HostCounters {
  std::uint64_t wakeups = 0;
  std::uint64_t output_lost = 0;  // answer bytes nobody read in time
  std::uint64_t log_lost = 0;     // events beyond the ring
  std::uint64_t log_write_errors = 0;
  std::int64_t max_lateness_ns = 0;  // of an answer, handed over against left the servo
};

template <class Visit>
void for_each_counter(const HostCounters& c, Visit&& visit) {
  visit("wakeups", c.wakeups), visit("output_lost", c.output_lost), visit("log_lost", c.log_lost);
  visit("log_write_errors", c.log_write_errors), visit("max_lateness_ns", c.max_lateness_ns);
}

class PtyHost {
 public:
  // Opens the terminal, makes the link and starts the threads. `servos` start their life now.
  // Throws ConfigError (family, servos) and DeviceError (terminal, link, log).
  PtyHost(const std::string& family, const std::vector<ServoSetup>& servos, BusOptions bus,
          const HostOptions& options);
  ~PtyHost();  // stop()
  PtyHost(const PtyHost&) = delete;
  PtyHost& operator=(const PtyHost&) = delete;

  // Ends the threads, writes the log's last line, removes the link, closes the port. Idempotent. Blocks some
  // 20 ms.
  void stop();

  // Pulls the adapter: whoever has the port open sees it hang up, its path and link are gone. The servos live
  // on. plug_in() opens another port and makes the link anew. Both idempotent; throw DeviceError.
  void unplug();
  void plug_in();

  const std::string& port() const noexcept { return port_; }         // changes with plug_in()
  bool is_realtime() const noexcept { return is_realtime_.load(); }  // SCHED_FIFO was permitted
  HostCounters counters() const noexcept;
  // Runs `body` on the bus between two wake-ups of the pacing thread, which waits meanwhile: keep it short.
  void with_bus(const std::function<void(SerialLine&)>& body);

 private:
  void open_clock();
  void open_terminal();
  void watch(int file, unsigned events);
  void close_terminal() noexcept;
  void make_link();
  void close_all() noexcept;
  void run() noexcept;
  TimePoint serve() noexcept;  // one wake-up; returns the next
  void wait_until(TimePoint next) noexcept;
  void write_answers(TimePoint now) noexcept;
  std::size_t hand_over(std::span<const std::uint8_t> bytes) noexcept;
  std::string start_line() const;
  std::string end_line();

  HostOptions options_;
  EventRing ring_;
  std::unique_ptr<EventLog> log_;
  std::unique_ptr<SerialLine> bus_;
  pthread_mutex_t
      mutex_;  // inherits priority: a reader cannot hold the pacing thread up for longer than it reads
  int master_ = -1;
  int slave_ = -1;  // kept open, so that the port outlives its users
  int wake_ = -1;
  int timer_ = -1;
  int epoll_ = -1;
  std::string port_;
  bool has_link_ = false;
  bool may_insert_ = true;  // TIOCSTI was not refused so far
  std::thread thread_;
  std::atomic<bool> is_stopping_{false};
  std::atomic<bool> is_realtime_{false};
  std::atomic<bool> is_ready_{false};
  TimePoint next_state_;
  bool is_awaited_ = false;  // the last byte of an answer, at the next wake-up
  std::atomic<std::uint64_t> wakeups_{0}, output_lost_{0};
  std::atomic<std::int64_t> max_lateness_ns_{0};
  std::array<TimedByte, 1024> answers_;
  std::array<std::uint8_t, 1024> output_;
};

}  // namespace wallx::emulator
