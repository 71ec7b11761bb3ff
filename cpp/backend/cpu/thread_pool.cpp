// ThreadPool: regions that threads enter while they are open.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "base/errors.hpp"

namespace wallx::cpu {
namespace {

constexpr std::uint64_t kOpen = std::uint64_t{1} << 31;
constexpr std::uint64_t kInside = kOpen - 1;
// longer than from one operation to the next, and far below a scheduler's tick
constexpr std::chrono::microseconds kSpin{50};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// until done() or the time is over
template <class Done>
bool spin(Done done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// the pool whose body this thread runs
thread_local const ThreadPool* inside = nullptr;

class Inside {
 public:
  explicit Inside(const ThreadPool* pool) : before_(std::exchange(inside, pool)) {}
  ~Inside() { inside = before_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  const ThreadPool* before_;
};

void pin(std::thread& thread, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (const int error = pthread_setaffinity_np(thread.native_handle(), sizeof set, &set))
    throw ConfigError("cores: " + std::to_string(core) + " is not a core that this process may use (" +
                      std::strerror(error) + ")");
}

}  // namespace

ThreadPool::ThreadPool(int threads, const std::vector<int>& cores) {
  if (threads < 1 || threads > 1024)
    throw ConfigError("threads is " + std::to_string(threads) + ", expected 1 to 1024");
  for (const int core : cores)
    if (core < 0 || core >= CPU_SETSIZE)
      throw ConfigError("cores: " + std::to_string(core) + " is not a core of this machine");
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i] { work(i); });
      if (!cores.empty()) pin(workers_.back(), cores[static_cast<std::size_t>(i) % cores.size()]);
    }
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  is_over_.store(true, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

bool ThreadPool::enter(std::uint32_t epoch) {
  std::uint64_t region = region_.load(std::memory_order_acquire);
  while ((region >> 32) == epoch && (region & kOpen))
    if (region_.compare_exchange_weak(region, region + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  if (inside == this) return body(0);
  const std::lock_guard lock(turn_);
  const Inside mark(this);
  if (workers_.empty()) return body(0);
  body_ = &body;
  const std::uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  region_.store(std::uint64_t{epoch} << 32 | kOpen, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_release);
  epoch_.notify_all();
  try {
    body(0);
  } catch (...) {
    close();
    throw;
  }
  close();
}

void ThreadPool::close() {
  // nobody enters from here on; whoever is inside has work in hand
  region_.fetch_and(~kOpen, std::memory_order_acq_rel);
  const auto is_empty = [&] { return (region_.load(std::memory_order_acquire) & kInside) == 0; };
  if (spin(is_empty)) return;
  std::uint64_t region = region_.load(std::memory_order_acquire);
  while (region & kInside) {
    region_.wait(region, std::memory_order_acquire);
    region = region_.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(int thread) {
  std::uint32_t seen = 0;
  for (;;) {
    const auto has_changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin(has_changed)) epoch_.wait(seen, std::memory_order_acquire);
    seen = epoch_.load(std::memory_order_acquire);
    if (is_over_.load(std::memory_order_acquire)) return;
    if (!enter(seen)) continue;
    {
      const Inside mark(this);
      (*body_)(thread);
    }
    region_.fetch_sub(1, std::memory_order_acq_rel);
    region_.notify_all();
  }
}

}  // namespace wallx::cpu
