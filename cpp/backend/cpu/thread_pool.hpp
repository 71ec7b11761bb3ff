// ThreadPool: the engine's own threads: they share out one call's work, wait for a moment, then sleep.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace wallx::cpu {

// a callable by reference, for the time of one call
template <class Signature>
class FunctionRef;
template <class... Args>
class FunctionRef<void(Args...)> {
 public:
  template <class F>
  FunctionRef(F& f)  // NOLINT: meant to convert
      : object_(&f), call_([](void* object, Args... args) { (*static_cast<F*>(object))(args...); }) {}
  void operator()(Args... args) const { call_(object_, args...); }

 private:
  void* object_;
  void (*call_)(void*, Args...);
};

// Hands out the indices [0, count) in runs, to whoever asks.
class Claims {
 public:
  Claims(std::int64_t count, std::int64_t run) : count_(count), run_(run) {}
  // false when there are no more
  bool next(std::int64_t& begin, std::int64_t& end) {
    begin = next_.fetch_add(run_, std::memory_order_relaxed);
    if (begin >= count_) return false;
    end = begin + run_ < count_ ? begin + run_ : count_;
    return true;
  }

 private:
  std::atomic<std::int64_t> next_{0};
  std::int64_t count_, run_;
};

class ThreadPool {
 public:
  // `threads` computing threads, the caller of run being one of them; the others are pinned to `cores` in
  // turn where any are named. Throws ConfigError: fewer than one thread, a core that this process may not
  // use.
  ThreadPool(int threads, const std::vector<int>& cores);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Runs body(thread) on the caller (thread 0) and on every other thread that comes before the caller is
  // done: the body shares its work out by Claims. A thread whose core is busy elsewhere is not waited for,
  // unless it has begun. Calls from several threads take turns; one from inside a body runs its own on its
  // thread alone. What the caller's share throws goes on to the caller, once nobody is inside; the others'
  // must not throw.
  void run(FunctionRef<void(int)> body);
  // body(index) for all indices below count, in runs
  template <class Body>
  void for_each(std::int64_t count, std::int64_t run_length, Body body) {
    Claims claims(count, run_length);
    auto share = [&](int) {
      std::int64_t begin = 0, end = 0;
      while (claims.next(begin, end))
        for (std::int64_t i = begin; i < end; ++i) body(i);
    };
    if (count <= run_length) {
      share(0);
    } else {
      run(share);
    }
  }

 private:
  void work(int thread);
  void stop();
  bool enter(std::uint32_t epoch);
  void close();

  std::vector<std::thread> workers_;
  std::mutex turn_;
  const FunctionRef<void(int)>* body_ = nullptr;
  std::atomic<std::uint32_t> epoch_{0};   // counts calls; workers wait for it to change
  std::atomic<std::uint64_t> region_{0};  // epoch | is open (1 bit) | threads inside (31 bits)
  std::atomic<bool> is_over_{false};
};

}  // namespace wallx::cpu
