// ControlLoop: the only writer of a robot's motors; a pure tick, and the real-time thread that calls it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "control/loop_record.hpp"
#include "control/loop_statistics.hpp"
#include "control/plan_buffer.hpp"
#include "control/safety_limiter.hpp"
#include "control/state_machine.hpp"
#include "control/watchdog.hpp"
#include "hardware/heartbeat.hpp"
#include "hardware/robot.hpp"

namespace wallx {

struct LoopConfig {
  double rate_hz = 200;
  Seconds stale_hold{0};                        // oldest feedback to move on, 0: three periods   [s]
  Seconds stale_fault{0};                       // oldest feedback to go on at all, 0: 0.1 s or 6 periods [s]
  double ramp_share = 0.25;                     // of the velocity limits while catching the rows (0..1]
  double estop_torque_share = 0.5;              // of the configured torque after an e-stop       (0..1]
  double obstruction_torque_share = 0.5;        // of a joint's that met an obstacle              (0..1]
  double high_load = 0.8;                       // share of a joint's torque limit that is a high load (0..1]
  Seconds high_load_time{1};                    // of high load that steps the torque limit down  [s]
  double max_first_step = 1.0;                  // from the command to a plan's row that takes over [rad]
  double read_share = 0.85;                     // of the period that reading feedback may take   (0..1)
  int priority = 80;                            // SCHED_FIFO, 1 to 99; 0: do not ask for it
  int cpu = -1;                                 // to run on, -1: any
  std::size_t ring_capacity = 8192;             // records kept until drain()
  std::optional<TimePoint> origin;              // of the tick grid; without: the time of construction
  TimePoint (*clock)() noexcept = &Clock::now;  // for lateness and read times only: no decision looks at it
};

// how real the thread's time is; `shortfalls` names each thing the system refused, and where to permit it
struct RealTimeStatus {
  bool is_fifo = false;
  bool is_memory_locked = false;
  std::vector<std::string> shortfalls;
};

struct FaultReport {
  Finding cause;
  Result read, send;  // of the tick that failed
  TimePoint at;
  std::vector<LoopRecord> records;  // the last 64 ticks up to it, oldest first
};

class ControlLoop {
 public:
  // Throws ConfigError: a setting or joint limit is out of its bounds.
  ControlLoop(std::shared_ptr<Robot> robot, const LoopConfig& config);
  ~ControlLoop();  // stop()
  ControlLoop(const ControlLoop&) = delete;
  ControlLoop& operator=(const ControlLoop&) = delete;

  const LoopConfig& config() const noexcept { return config_; }
  const Robot& robot() const noexcept { return *robot_; }
  Duration period() const noexcept { return period_; }
  // the first tick time at or after `time`
  TimePoint on_grid(TimePoint time) const noexcept;

  // One period at grid time `now`: read, decide, interpolate, limit, send. Only the loop's thread, or a test
  // or simulation that never calls start(). The record is valid until the next tick.
  const LoopRecord& tick(TimePoint now, Duration lateness = Duration::zero()) noexcept;

  // Starts the thread. Throws DeviceError: already running, or no thread to be had.
  void start();
  // Brakes to rest along the limits, then ends the thread; the motors keep their torque. Blocks at most
  // limiter().max_stop_time() and some periods. Idempotent.
  void stop() noexcept;
  bool is_running() const noexcept { return is_running_.load(std::memory_order_acquire); }

  // Any thread. When `step` is a multiple of the period, `start` is moved up to the grid, so that rows fall
  // on ticks. The plan's sequence number, or 0 when `generation` is over (see generation()): the plan died at
  // the door. Throws ConfigError: see make_plan; or a generation that has not begun.
  std::uint64_t submit(std::span<const double> rows, TimePoint start, Seconds step, std::uint32_t generation);
  std::uint32_t generation() const noexcept { return plans_.generation(); }
  void request(std::uint8_t requests) noexcept { requests_.fetch_or(requests, std::memory_order_release); }
  // Any thread or signal handler.
  void estop() noexcept { request(kRequestEstop); }

  // Any thread; none of these makes the loop wait.
  LoopState state() const noexcept { return state_.load(std::memory_order_acquire); }
  bool snapshot(LoopRecord& newest) const;                           // false: no tick yet
  std::size_t drain(std::span<LoopRecord> records);                  // oldest first; how many
  std::size_t num_records() const noexcept { return ring_.size(); }  // waiting for drain()
  LoopCounters counters() const noexcept;
  std::array<std::uint64_t, LoopStatistics::kNumBuckets> lateness_histogram() const noexcept {
    return statistics_.histogram();
  }
  RealTimeStatus real_time_status() const;
  std::optional<FaultReport> fault_report() const;  // while in fault
  // for a watcher in another process, which may shut this loop out of the bus when it stalls
  int heartbeat_descriptor() const noexcept { return heartbeat_.descriptor(); }
  Seconds max_stop_time() const noexcept { return Seconds(limiter_.max_stop_time()); }

 private:
  static constexpr std::size_t kHistory = 64;

  void run() noexcept;
  void enter_real_time();
  void lock_memory();
  void take_requests() noexcept;
  void check_jumps() noexcept;
  void pull_back(TimePoint now) noexcept;
  void guard(const Plan& plan) noexcept;
  void watch_load(TimePoint now) noexcept;
  void lower_torque(std::size_t joint, double share) noexcept;
  void move(TimePoint now, bool follows) noexcept;
  void release(TimePoint now) noexcept;
  bool is_fresh(std::size_t joint, TimePoint now) const noexcept {
    return now - feedback_.sampled_at[joint] <= watchdog_.stale_hold;
  }
  void enable(TimePoint now) noexcept;
  void send(SafeCommand&& command, TimePoint now) noexcept;
  void fail(const Finding& cause) noexcept;
  void publish() noexcept;
  void remember() noexcept;

  const std::shared_ptr<Robot> robot_;
  const LoopConfig config_;
  const Duration period_;
  const TimePoint origin_;
  const WatchdogConfig watchdog_;

  // the loop's own
  SafetyLimiter limiter_, undelivered_;  // now, and before this tick
  StateMachine machine_;
  JointState feedback_;
  LoopRecord record_;
  std::uint64_t tick_ = 0;
  std::uint32_t estops_seen_;
  int num_lost_enables_ = 0;
  bool is_seized_ = false;  // a watcher has shut this loop out of the bus
  bool is_bus_closed_ = false;
  bool was_on_target_ = false;
  std::uint64_t seen_plan_ = 0, far_plan_ = 0;  // sequence of the last plan in force, and of a refused one
  std::array<bool, kMaxJoints> is_pulled_back_{};
  std::array<bool, kMaxJoints> is_implausible_{};  // its position jumped; until torque is switched on again
  JointArray seen_position_{};                     // of the last sample [rad]
  std::array<TimePoint, kMaxJoints> seen_at_{};
  JointArray torque_share_{};                            // wanted limits            (0..1]
  bool is_torque_pending_ = false;                       // not yet what the drives have
  std::array<TimePoint, kMaxJoints> high_load_since_{};  // epoch: the load is not high
  TimePoint last_sent_;
  std::array<LoopRecord, kHistory> history_;
  std::size_t history_size_ = 0;  // grows past kHistory; the ring index is modulo
  bool is_history_over_ = false;  // of a fault that was reset: begins anew once nobody reads it

  // from and to other threads and processes
  Heartbeat heartbeat_;
  LoopStatistics statistics_;
  PlanBuffer plans_;
  RecordRing ring_;
  mutable TripleBuffer<LoopRecord> newest_;
  std::atomic<std::uint8_t> requests_{0};
  std::atomic<LoopState> state_{LoopState::boot};
  std::atomic<bool> is_running_{false}, is_stopping_{false};
  std::atomic<bool> is_history_frozen_{false};
  mutable std::atomic<bool> is_history_read_{false};

  std::mutex submit_mutex_;
  mutable std::mutex control_mutex_, read_mutex_, history_mutex_;
  mutable bool has_newest_ = false;
  RealTimeStatus real_time_;
  std::thread thread_;
};

// Why the loop stopped the robot, for an error message.
std::string fault_message(const FaultReport& report, const Embodiment& embodiment, const LoopConfig& config);

}  // namespace wallx
