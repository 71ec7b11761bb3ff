// ControlLoop: its real-time thread, with absolute deadlines on the tick grid.
// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <future>
#include <system_error>

#include "base/errors.hpp"
#include "control/control_loop.hpp"

namespace wallx {
namespace {

constexpr std::size_t kStack = 64 * 1024;  // more than a tick needs

// std::chrono would do, but its sleep is not bound to be TIMER_ABSTIME on CLOCK_MONOTONIC
void sleep_until(TimePoint time) noexcept {
  const auto ns = std::chrono::nanoseconds(time.time_since_epoch()).count();
  const timespec deadline{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nullptr) == EINTR) {
  }
}

// touches and locks the part of the stack below this frame, which the ticks will use; 0 or errno
__attribute__((noinline)) int lock_stack() noexcept {
  volatile char stack[kStack];
  for (std::size_t i = 0; i < kStack; i += 512) stack[i] = 0;
  return mlock(const_cast<char*>(&stack[0]), kStack) == 0 ? 0 : errno;
}

}  // namespace

void ControlLoop::lock_memory() {
  int error = mlock(this, sizeof(*this)) == 0 ? 0 : errno;
  if (!error && mlock(ring_.memory().data(), ring_.memory().size()) != 0) error = errno;
  if (!error) error = lock_stack();
  real_time_.is_memory_locked = error == 0;
  if (error)
    real_time_.shortfalls.push_back(
        std::string("memory is not locked: ") + std::strerror(error) +
        "; raise memlock in /etc/security/limits.conf, or LimitMEMLOCK of the service");
}

void ControlLoop::enter_real_time() {
  real_time_ = {};
  pthread_setname_np(pthread_self(), "wallx-loop");  // for top, and for count_calls
  lock_memory();
  if (config_.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(config_.cpu, &cpus);
    if (const int error = pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus))
      real_time_.shortfalls.push_back("not bound to processor " + std::to_string(config_.cpu) + ": " +
                                      std::strerror(error));
  }
  if (config_.priority > 0) {
    sched_param parameters{};
    parameters.sched_priority = config_.priority;
    const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters);
    real_time_.is_fifo = error == 0;
    if (error)
      real_time_.shortfalls.push_back(
          "SCHED_FIFO " + std::to_string(config_.priority) + " is not permitted: " + std::strerror(error) +
          "; raise rtprio in /etc/security/limits.conf, or LimitRTPRIO of the service");
  } else {
    real_time_.shortfalls.push_back("SCHED_FIFO was not asked for (priority 0)");
  }
}

RealTimeStatus ControlLoop::real_time_status() const {
  const std::lock_guard lock(control_mutex_);
  return real_time_;
}

void ControlLoop::start() {
  const std::lock_guard lock(control_mutex_);
  if (is_running()) throw DeviceError("the control loop is already running; stop it first");
  if (thread_.joinable()) thread_.join();
  is_stopping_ = false;
  std::promise<void> ready;
  std::future<void> is_ready = ready.get_future();
  // signals belong to the other threads
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this, ready = std::move(ready)]() mutable {
      enter_real_time();
      ready.set_value();
      run();
    });
  } catch (const std::system_error& error) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw DeviceError(std::string("the control loop got no thread: ") + error.what());
  }
  is_running_.store(true, std::memory_order_release);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  is_ready.wait();
}

void ControlLoop::stop() noexcept {
  const std::lock_guard lock(control_mutex_);
  if (!thread_.joinable()) return;
  is_stopping_.store(true, std::memory_order_release);
  thread_.join();
  is_running_.store(false, std::memory_order_release);
  munlock(this, sizeof(*this));
  munlock(ring_.memory().data(), ring_.memory().size());
}

void ControlLoop::run() noexcept {
  TimePoint next = on_grid(Clock::now() + period_ / 2);
  std::int64_t ticks_to_stop = -1;  // -1: not stopping
  while (true) {
    sleep_until(next);
    Duration lateness = Clock::now() - next;
    std::int64_t skipped = std::max<std::int64_t>(0, lateness / period_);
    next += period_ * skipped;
    lateness -= period_ * skipped;
    statistics_.add_lateness(to_seconds(lateness + period_ * skipped) * 1e6);
    if (skipped > 0) statistics_.add(LoopStatistics::overruns);  // woken a period late

    if (ticks_to_stop < 0 && is_stopping_.load(std::memory_order_acquire)) {
      ticks_to_stop = static_cast<std::int64_t>(limiter_.max_stop_time() / to_seconds(period_)) + 20;
      request(kRequestHold);
    }
    tick(next, lateness);
    if (ticks_to_stop >= 0) {
      const LoopState state = machine_.state();
      const bool is_held = state != LoopState::ramp && state != LoopState::run && limiter_.is_at_rest() &&
                           (!is_torque_pending_ || is_bus_closed_);
      if (is_held || ticks_to_stop-- == 0) return;
    }

    next += period_;
    const Duration past = Clock::now() - next;
    if (past > Duration::zero()) {  // never burst: go on at the next grid point still to come
      const std::int64_t missed = past / period_ + 1;
      next += period_ * missed;
      skipped += missed;
      statistics_.add(LoopStatistics::overruns);
    }
    if (skipped > 0) statistics_.add(LoopStatistics::skipped_periods, static_cast<std::uint64_t>(skipped));
  }
}

}  // namespace wallx
