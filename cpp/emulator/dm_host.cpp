// DmHost: the pacing thread and the log of a live emulated CAN line.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/dm_host.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/errors.hpp"
#include "emulator/log_lines.hpp"

namespace wallx::emulator {
namespace {

constexpr Duration kStatePeriod = std::chrono::milliseconds(5);
constexpr int kPriority = 60;

[[noreturn]] void fail(const std::string& what) { throw DeviceError(what + ": " + std::strerror(errno)); }

// holds the lock for its own life
class Lock {
 public:
  explicit Lock(pthread_mutex_t& mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Lock() { pthread_mutex_unlock(&mutex_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  pthread_mutex_t& mutex_;
};

}  // namespace

DmHost::DmHost(const std::vector<DmSetup>& motors, DmBusOptions bus, const DmHostOptions& options)
    : options_(options) {
  if (options.bus != "slcan" && options.bus != "udp_multicast")
    throw ConfigError("an emulated CAN line is reached by slcan or udp_multicast, not by '" + options.bus +
                      "'");
  bus.start = Clock::now();
  next_state_ = bus.start;
  bus_ = std::make_unique<DmBus>(motors, bus, &ring_);
  log_ = std::make_unique<EventLog>(ring_, options.log);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  pthread_mutex_init(&mutex_, &attributes);
  pthread_mutexattr_destroy(&attributes);
  try {
    open_clock();
    plug_in();
    thread_ = std::thread([this] { run(); });
    is_ready_.wait(false);
    log_->write_line(start_line());
    log_->start();
  } catch (...) {
    is_stopping_ = true;
    if (thread_.joinable()) thread_.join();  // wakes for its next state line
    close_clock();
    pthread_mutex_destroy(&mutex_);
    throw;
  }
}

DmHost::~DmHost() {
  stop();
  pthread_mutex_destroy(&mutex_);
}

void DmHost::open_clock() {
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (wake_ < 0 || timer_ < 0 || epoll_ < 0) fail("cannot make the files the pacing thread waits on");
  watch(wake_, EPOLLIN);
  watch(timer_, EPOLLIN);
}

void DmHost::close_clock() noexcept {
  for (int* file : {&wake_, &timer_, &epoll_}) {
    if (*file >= 0) ::close(*file);
    *file = -1;
  }
}

void DmHost::watch(int file, unsigned events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = file;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, file, &event) != 0) fail("cannot wait on " + port_name_);
}

std::unique_ptr<CanPort> DmHost::open_port() const {
  return options_.bus == "slcan" ? open_slcan_port(options_.link)
                                 : open_udp_port(options_.group, options_.interface);
}

void DmHost::unplug() {
  const Lock lock(mutex_);
  port_.reset();  // closing its file ends the waiting for it
}

void DmHost::plug_in() {
  const Lock lock(mutex_);
  if (port_) return;
  std::unique_ptr<CanPort> port = open_port();
  port_name_ = port->name();
  watch(port->file(), EPOLLIN | EPOLLET);
  port_ = std::move(port);
}

void DmHost::stop() {
  if (!thread_.joinable()) return;
  is_stopping_ = true;
  const std::uint64_t one = 1;
  if (::write(wake_, &one, sizeof one) < 0) {
    // the thread wakes for the next state line anyway
  }
  thread_.join();
  bus_->advance(Clock::now());
  bus_->record_state();
  log_->stop();
  log_->write_line(end_line());
  port_.reset();
  close_clock();
}

DmHostCounters DmHost::counters() const noexcept {
  return {wakeups_.load(), output_lost_.load(), ring_.num_lost(), log_->num_write_errors(),
          max_lateness_ns_.load()};
}

void DmHost::with_bus(const std::function<void(DmBus&)>& body) {
  const Lock lock(mutex_);
  body(*bus_);
}

void DmHost::run() noexcept {
  sched_param parameters{};
  parameters.sched_priority = kPriority;
  is_realtime_ = ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters) == 0;
  ::prctl(PR_SET_TIMERSLACK, 1000UL);  // [ns], for the case without real-time priority
  is_ready_ = true;
  is_ready_.notify_one();
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    const auto at = std::chrono::nanoseconds(serve().time_since_epoch());
    itimerspec alarm{};
    alarm.it_value.tv_sec = static_cast<time_t>(at.count() / 1'000'000'000);
    alarm.it_value.tv_nsec = static_cast<long>(at.count() % 1'000'000'000);
    ::timerfd_settime(timer_, TFD_TIMER_ABSTIME, &alarm, nullptr);  // also forgets an old alarm not yet read
    epoll_event events[3];
    ::epoll_wait(epoll_, events, 3, -1);
  }
}

TimePoint DmHost::serve() noexcept {
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  const Lock lock(mutex_);
  WireFrame frame;
  // bounded: a host that floods the line cannot keep the plant from moving
  for (int i = 0; i < 256 && port_ && port_->take(frame); ++i) bus_->receive(frame, Clock::now());
  const TimePoint now = Clock::now();
  bus_->advance(now);
  while (const std::size_t count = bus_->due(now, answers_)) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t lateness = std::chrono::nanoseconds(now - answers_[i].at).count();
      if (lateness > max_lateness_ns_.load(std::memory_order_relaxed)) max_lateness_ns_.store(lateness);
      if (!port_ || !port_->give(answers_[i].frame)) output_lost_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (now >= next_state_) {
    bus_->record_state();
    next_state_ += kStatePeriod;
    if (next_state_ <= now) next_state_ = now + kStatePeriod;  // late: skip, never burst
  }
  return std::min(bus_->next_event().value_or(next_state_), next_state_);
}

std::string DmHost::start_line() const {
  std::vector<std::pair<int, std::string>> drives;
  for (std::size_t i = 0; i < bus_->num_motors(); ++i) {
    const DmSetup& setup = std::as_const(*bus_).motor(i).setup();
    drives.emplace_back(setup.id, setup.name);
  }
  return emulator::start_line(port_name_, is_realtime_, drives);
}

std::string DmHost::end_line() {
  CounterLine line;
  for_each_counter(bus_->counters(), line);
  for_each_counter(counters(), line);
  return std::move(line).text();
}

}  // namespace wallx::emulator
