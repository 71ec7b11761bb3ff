// DmHost: runs emulated Damiao motors in real time behind a CAN port, so that any program can talk to them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "emulator/can_port.hpp"
#include "emulator/dm_bus.hpp"
#include "emulator/event_log.hpp"

namespace wallx::emulator {

struct DmHostOptions {
  std::string bus = "slcan";           // or udp_multicast
  std::string link;                    // slcan: symbolic link to make for the port; empty: none
  std::string group = "239.74.163.2";  // udp_multicast
  std::string interface;               // udp_multicast: network interface; empty: as the routes say
  std::string log;                     // file of JSON lines, empty: none
};

struct DmHostCounters {
  std::uint64_t wakeups = 0;
  std::uint64_t output_lost = 0;  // frames nobody took
  std::uint64_t log_lost = 0;     // events beyond the ring
  std::uint64_t log_write_errors = 0;
  std::int64_t max_lateness_ns = 0;  // of an answer, handed over against complete on the line
};

template <class Visit>
void for_each_counter(const DmHostCounters& c, Visit&& visit) {
  visit("wakeups", c.wakeups), visit("output_lost", c.output_lost), visit("log_lost", c.log_lost);
  visit("log_write_errors", c.log_write_errors), visit("max_lateness_ns", c.max_lateness_ns);
}

class DmHost {
 public:
  // Opens the port and starts the threads; the motors start their life now. Throws ConfigError (motors,
  // options) and DeviceError (port, link, log).
  DmHost(const std::vector<DmSetup>& motors, DmBusOptions bus, const DmHostOptions& options);
  ~DmHost();  // stop()
  DmHost(const DmHost&) = delete;
  DmHost& operator=(const DmHost&) = delete;

  // Ends the threads, writes the log's last line, closes the port. Idempotent. Blocks some 20 ms.
  void stop();
  // Pulls the adapter, and plugs another one in. Idempotent; plug_in() throws DeviceError.
  void unplug();
  void plug_in();

  const std::string& port() const noexcept { return port_name_; }    // changes with plug_in()
  bool is_realtime() const noexcept { return is_realtime_.load(); }  // SCHED_FIFO was permitted
  DmHostCounters counters() const noexcept;
  // Runs `body` on the bus between two wake-ups of the pacing thread, which waits meanwhile: keep it short.
  void with_bus(const std::function<void(DmBus&)>& body);

 private:
  void open_clock();
  void close_clock() noexcept;
  std::unique_ptr<CanPort> open_port() const;
  void watch(int file, unsigned events);
  void run() noexcept;
  TimePoint serve() noexcept;  // one wake-up; returns the next
  std::string start_line() const;
  std::string end_line();

  DmHostOptions options_;
  EventRing ring_;
  std::unique_ptr<EventLog> log_;
  std::unique_ptr<DmBus> bus_;
  std::unique_ptr<CanPort> port_;  // null: unplugged
  std::string port_name_;
  pthread_mutex_t
      mutex_;  // inherits priority: a reader cannot hold the pacing thread up for longer than it reads
  int wake_ = -1;
  int timer_ = -1;
  int epoll_ = -1;
  std::thread thread_;
  std::atomic<bool> is_stopping_{false};
  std::atomic<bool> is_realtime_{false};
  std::atomic<bool> is_ready_{false};
  TimePoint next_state_;
  std::atomic<std::uint64_t> wakeups_{0}, output_lost_{0};
  std::atomic<std::int64_t> max_lateness_ns_{0};
  std::array<TimedFrame, 64> answers_;
};

}  // namespace wallx::emulator
