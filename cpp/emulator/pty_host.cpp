// PtyHost: the pacing thread, the terminal and the log of a live emulated bus.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/pty_host.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <utility>

#include "base/errors.hpp"
#include "emulator/log_lines.hpp"
#include "emulator/registry.hpp"

namespace wallx::emulator {
namespace {

constexpr Duration kStatePeriod = std::chrono::milliseconds(5);
constexpr int kPriority = 60;
constexpr Duration kTimerLateness = std::chrono::microseconds(40);
constexpr int kQuietRounds = 20;  // of 1 ms without a byte before a line that is being closed is empty
constexpr std::size_t kTerminalSize = 4095;  // what a terminal's queue holds

[[noreturn]] void fail(const std::string& what) { throw DeviceError(what + ": " + std::strerror(errno)); }

void close_files(std::initializer_list<int*> files) {
  for (int* file : files) {
    if (*file >= 0) ::close(*file);
    *file = -1;
  }
}

}  // namespace

PtyHost::PtyHost(const std::string& family, const std::vector<ServoSetup>& servos, BusOptions bus,
                 const HostOptions& options)
    : options_(options) {
  bus.start = Clock::now();
  next_state_ = bus.start;
  bus_ = make_line(family, servos, bus, &ring_);
  log_ = std::make_unique<EventLog>(ring_, options.log);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  pthread_mutex_init(&mutex_, &attributes);
  pthread_mutexattr_destroy(&attributes);
  try {
    open_clock();
    open_terminal();
    make_link();
    thread_ = std::thread([this] { run(); });
    is_ready_.wait(false);
    log_->write_line(start_line());
    log_->start();
  } catch (...) {
    is_stopping_ = true;
    if (thread_.joinable()) thread_.join();  // wakes for its next state line
    close_all();
    throw;
  }
}

PtyHost::~PtyHost() {
  stop();
  pthread_mutex_destroy(&mutex_);
}

void PtyHost::open_terminal() {
  master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (master_ < 0) fail("cannot open a pseudo-terminal");
  char name[128];
  if (::grantpt(master_) != 0 || ::unlockpt(master_) != 0 || ::ptsname_r(master_, name, sizeof name) != 0) {
    fail("cannot set up the pseudo-terminal");
  }
  port_ = name;
  slave_ = ::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave_ < 0) fail("cannot open the pseudo-terminal " + port_);
  termios settings;
  if (::tcgetattr(slave_, &settings) != 0) fail("cannot read the settings of " + port_);
  ::cfmakeraw(&settings);
  ::cfsetspeed(&settings, B1000000);
  if (::tcsetattr(slave_, TCSANOW, &settings) != 0) fail("cannot set " + port_ + " to raw mode");
  // edges, not levels: asking a terminal whether there is input waits for a kernel worker of normal priority,
  // which a busy computer runs milliseconds later
  watch(master_, EPOLLIN | EPOLLET);
}

void PtyHost::open_clock() {
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  timer_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (wake_ < 0 || timer_ < 0 || epoll_ < 0) fail("cannot make the files the pacing thread waits on");
  watch(wake_, EPOLLIN);
  watch(timer_, EPOLLIN);
}

void PtyHost::watch(int file, unsigned events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = file;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, file, &event) != 0) fail("cannot wait on " + port_);
}

void PtyHost::make_link() {
  if (options_.link.empty()) return;
  struct stat status;
  if (::lstat(options_.link.c_str(), &status) == 0) {
    if (!S_ISLNK(status.st_mode)) {
      throw DeviceError(
          "the link " + options_.link +
          " for the emulated port would replace something that is not a link; name another path");
    }
    ::unlink(options_.link.c_str());
  }
  if (::symlink(port_.c_str(), options_.link.c_str()) != 0) fail("cannot make the link " + options_.link);
  has_link_ = true;
}

void PtyHost::close_terminal() noexcept {
  if (has_link_) {
    // only if it is still ours
    char target[128];
    const ssize_t size = ::readlink(options_.link.c_str(), target, sizeof target);
    if (size > 0 && port_ == std::string(target, static_cast<std::size_t>(size)))
      ::unlink(options_.link.c_str());
    has_link_ = false;
  }
  close_files({&slave_, &master_});
}

void PtyHost::close_all() noexcept {
  close_terminal();
  close_files({&wake_, &timer_, &epoll_});
}

void PtyHost::unplug() {
  with_bus([this](SerialLine&) { close_terminal(); });
}

void PtyHost::plug_in() {
  with_bus([this](SerialLine&) {
    if (master_ >= 0) return;
    try {
      open_terminal();
      make_link();
    } catch (...) {
      close_terminal();
      throw;
    }
  });
}

void PtyHost::stop() {
  if (!thread_.joinable()) return;
  is_stopping_ = true;
  const std::uint64_t one = 1;
  if (::write(wake_, &one, sizeof one) < 0) {
    // the thread wakes for the next state line anyway
  }
  thread_.join();
  // what was written before the stop counts: the kernel may still hold it, or the paced wire
  for (int quiet = 0; quiet < kQuietRounds; ++quiet) {
    const auto before = bus_->counters().bytes_received;
    serve();
    if (bus_->counters().bytes_received != before) quiet = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  bus_->advance(Clock::now());
  bus_->record_state();
  log_->stop();
  log_->write_line(end_line());
  close_all();
}

HostCounters PtyHost::counters() const noexcept {
  return {wakeups_.load(), output_lost_.load(), ring_.num_lost(), log_->num_write_errors(),
          max_lateness_ns_.load()};
}

void PtyHost::with_bus(const std::function<void(SerialLine&)>& body) {
  pthread_mutex_lock(&mutex_);
  try {
    body(*bus_);
  } catch (...) {
    pthread_mutex_unlock(&mutex_);
    throw;
  }
  pthread_mutex_unlock(&mutex_);
}

void PtyHost::run() noexcept {
  sched_param parameters{};
  parameters.sched_priority = kPriority;
  is_realtime_ = ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters) == 0;
  ::prctl(PR_SET_TIMERSLACK, 1000UL);  // [ns], for the case without real-time priority
  is_ready_ = true;
  is_ready_.notify_one();

  while (!is_stopping_.load(std::memory_order_relaxed)) {
    wait_until(serve());
  }
}

void PtyHost::wait_until(TimePoint next) noexcept {
  // whoever has all of an answer asks again: its last byte must not be as late as a timer is
  const Duration early = is_awaited_ && is_realtime_ ? kTimerLateness : Duration{};
  itimerspec alarm{};
  const auto at = std::chrono::nanoseconds((next - early).time_since_epoch());
  alarm.it_value.tv_sec = static_cast<time_t>(at.count() / 1'000'000'000);
  alarm.it_value.tv_nsec = static_cast<long>(at.count() % 1'000'000'000);
  ::timerfd_settime(timer_, TFD_TIMER_ABSTIME, &alarm, nullptr);  // also forgets an old alarm not yet read
  epoll_event events[3];
  ::epoll_wait(epoll_, events, 3, -1);
  for (TimePoint now = Clock::now(); now < next && now >= next - early;) now = Clock::now();
}

TimePoint PtyHost::serve() noexcept {
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  pthread_mutex_lock(&mutex_);
  std::array<std::uint8_t, 512> input;
  int available = 0;
  // FIONREAD first: a read that finds nothing would wait for that worker too. Bounded: a host that floods the
  // line cannot keep the plant from moving
  for (int round = 0; round < 8 && ::ioctl(master_, FIONREAD, &available) == 0 && available > 0; ++round) {
    const ssize_t size = ::read(master_, input.data(), input.size());
    if (size <= 0) break;
    bus_->receive({input.data(), static_cast<std::size_t>(size)}, Clock::now());
  }
  const TimePoint now = Clock::now();
  bus_->advance(now);
  write_answers(now);
  if (now >= next_state_) {
    bus_->record_state();
    next_state_ += kStatePeriod;
    if (next_state_ <= now) next_state_ = now + kStatePeriod;  // late: skip, never burst
  }
  const TimePoint next = std::min(bus_->next_event().value_or(next_state_), next_state_);
  is_awaited_ = bus_->is_last(next);
  pthread_mutex_unlock(&mutex_);
  return next;
}

// returns how many bytes the terminal took
std::size_t PtyHost::hand_over(std::span<const std::uint8_t> bytes) noexcept {
  // TIOCSTI puts a byte straight into the reader's queue; a write is carried there by a kernel worker of
  // normal priority, milliseconds late on a busy computer. It is a privilege, like SCHED_FIFO
  int unread = 0;
  if (slave_ >= 0 && ::ioctl(slave_, FIONREAD, &unread) == 0 &&
      static_cast<std::size_t>(unread) + bytes.size() > kTerminalSize) {
    return 0;
  }
  if (slave_ < 0) return bytes.size();  // pulled: nobody misses them
  if (may_insert_) {
    std::size_t done = 0;
    while (done < bytes.size() && ::ioctl(slave_, TIOCSTI, &bytes[done]) == 0) ++done;
    if (done > 0) return done;
    may_insert_ = false;
  }
  const ssize_t written = ::write(master_, bytes.data(), bytes.size());
  return written > 0 ? static_cast<std::size_t>(written) : 0;
}

void PtyHost::write_answers(TimePoint now) noexcept {
  while (const std::size_t count = bus_->due(now, answers_)) {
    for (std::size_t i = 0; i < count; ++i) output_[i] = answers_[i].byte;
    const std::int64_t lateness = std::chrono::nanoseconds(now - answers_[count - 1].at).count();
    if (lateness > max_lateness_ns_.load(std::memory_order_relaxed)) {
      max_lateness_ns_.store(lateness, std::memory_order_relaxed);
    }
    const std::size_t done = hand_over({output_.data(), count});
    if (done < count) output_lost_.fetch_add(count - done, std::memory_order_relaxed);
  }
}

std::string PtyHost::start_line() const {
  std::vector<std::pair<int, std::string>> drives;
  for (std::size_t i = 0; i < bus_->num_servos(); ++i) {
    const ServoSetup& setup = std::as_const(*bus_).servo(i).setup();
    drives.emplace_back(setup.id, setup.name);
  }
  return emulator::start_line(port_, is_realtime_, drives);
}

std::string PtyHost::end_line() {
  CounterLine line;
  for_each_counter(bus_->counters(), line);
  for_each_counter(counters(), line);
  return std::move(line).text();
}

}  // namespace wallx::emulator
