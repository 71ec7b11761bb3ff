// ThreadPoolTest: work is done once, whoever comes; nobody waits for a thread that is busy elsewhere.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"

namespace wallx::test {
namespace {

using cpu::ThreadPool;

// every index below `count` was worked on once
bool does_each_once(ThreadPool& pool, std::int64_t count, std::int64_t run_length) {
  std::vector<std::atomic<int>> times(static_cast<std::size_t>(count));
  pool.for_each(count, run_length, [&](std::int64_t i) { ++times[static_cast<std::size_t>(i)]; });
  return std::ranges::all_of(times, [](const std::atomic<int>& n) { return n == 1; });
}

// runs bodies until every thread of the pool has been in one; their handles, the caller's first
std::vector<pthread_t> threads_of(ThreadPool& pool) {
  std::vector<pthread_t> handles(static_cast<std::size_t>(pool.num_threads()));
  std::vector<std::atomic<bool>> has_come(handles.size());
  const auto is_complete = [&] {
    return std::ranges::all_of(has_come, [](const auto& one) { return one.load(); });
  };
  while (!is_complete()) {
    auto body = [&](int thread) {
      handles[static_cast<std::size_t>(thread)] = pthread_self();
      has_come[static_cast<std::size_t>(thread)] = true;
      if (thread == 0) std::this_thread::yield();
    };
    pool.run(body);
  }
  return handles;
}

#if !defined(__SANITIZE_THREAD__)  // which delays signals
// A thread that is kept busy by a signal's handler, as a core that runs something else would keep it.
std::atomic<bool> is_caught{false}, is_released{false};
void be_busy(int) {
  is_caught = true;
  while (!is_released) {
  }
}
#endif

}  // namespace

TEST(every_index_is_done_once_by_any_number_of_threads) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads, {});
    CHECK_EQ(pool.num_threads(), threads);
    for (int round = 0; round < 20; ++round)
      for (const std::int64_t count : {0, 1, 2, 7, 100, 1000})
        for (const std::int64_t run : {1, 3, 64}) CHECK(does_each_once(pool, count, run));
  }
}

TEST(threads_come_and_are_told_apart) {
  ThreadPool pool(3, {});
  const std::vector<pthread_t> handles = threads_of(pool);
  CHECK(pthread_equal(handles[0], pthread_self()));
  CHECK(!pthread_equal(handles[1], handles[0]) && !pthread_equal(handles[2], handles[0]) &&
        !pthread_equal(handles[1], handles[2]));
}

TEST(a_thread_that_has_begun_is_waited_for) {
  ThreadPool pool(2, {});
  for (int round = 0; round < 100; ++round) {
    std::atomic<bool> has_entered{false};
    int share = 0;  // not atomic: the pool orders it before run returns
    auto body = [&](int thread) {
      if (thread == 0) {
        while (!has_entered) std::this_thread::yield();
        return;
      }
      has_entered = true;
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
      share = 1;
    };
    pool.run(body);
    CHECK_EQ(share, 1);
  }
}

TEST(a_thread_whose_core_is_busy_is_not_waited_for) {
#if defined(__SANITIZE_THREAD__)
  std::printf("  skipped: the thread sanitizer delays signals\n");
#else
  ThreadPool pool(2, {});
  const std::vector<pthread_t> handles = threads_of(pool);
  is_caught = is_released = false;
  struct sigaction busy{}, before{};
  busy.sa_handler = be_busy;
  ::sigaction(SIGUSR1, &busy, &before);
  REQUIRE(pthread_kill(handles[1], SIGUSR1) == 0);
  while (!is_caught) std::this_thread::yield();
  // would never return if it waited: the other thread is released only afterwards
  for (int round = 0; round < 50; ++round) CHECK(does_each_once(pool, 100, 1));
  is_released = true;
  CHECK_EQ(threads_of(pool).size(), 2u);  // it comes again
  ::sigaction(SIGUSR1, &before, nullptr);
#endif
}

TEST(callers_take_turns) {
  ThreadPool pool(3, {});
  std::atomic<int> num_inside{0}, num_clashes{0}, num_wrong{0};
  const auto call = [&] {
    for (int round = 0; round < 300; ++round) {
      auto body = [&](int thread) {
        if (thread != 0) return;
        num_clashes += num_inside++ != 0;
        --num_inside;
      };
      pool.run(body);
      num_wrong += !does_each_once(pool, 50, 1);
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(call);
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(num_clashes.load(), 0);
  CHECK_EQ(num_wrong.load(), 0);
}

TEST(a_body_may_call_the_pool_again) {
  ThreadPool pool(3, {});
  for (int round = 0; round < 50; ++round) {
    std::vector<std::atomic<int>> times(20 * 30);
    pool.for_each(20, 1, [&](std::int64_t i) {
      pool.for_each(30, 1, [&](std::int64_t k) { ++times[static_cast<std::size_t>(i * 30 + k)]; });
    });
    CHECK(std::ranges::all_of(times, [](const std::atomic<int>& n) { return n == 1; }));
  }
}

TEST(pools_end_whatever_their_threads_do) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(1 + round % 4, {});
    if (round % 3) CHECK(does_each_once(pool, round, 1));
  }
}

TEST(an_exception_of_the_caller_leaves_the_pool_usable) {
  ThreadPool pool(3, {});
  for (int round = 0; round < 50; ++round) {
    std::vector<int> alive(100);  // a thread that stayed inside would write to it later
    auto body = [&](int thread) {
      if (thread == 0) throw std::runtime_error("no room");
      for (int& one : alive) ++one;
    };
    CHECK_THROWS((pool.run(body), 0), std::runtime_error, "no room");
    CHECK(does_each_once(pool, 100, 1));
  }
}

TEST(threads_are_pinned_where_cores_are_named) {
  cpu_set_t usable;
  REQUIRE(sched_getaffinity(0, sizeof usable, &usable) == 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &usable)) cores.push_back(core);
  ThreadPool pool(3, cores);
  const std::vector<pthread_t> handles = threads_of(pool);
  for (std::size_t i = 1; i < handles.size(); ++i) {
    cpu_set_t set;
    REQUIRE(pthread_getaffinity_np(handles[i], sizeof set, &set) == 0);
    CHECK_EQ(CPU_COUNT(&set), 1);
    CHECK(CPU_ISSET(cores[i % cores.size()], &set));
  }
  cpu_set_t own;
  REQUIRE(pthread_getaffinity_np(pthread_self(), sizeof own, &own) == 0);
  CHECK(CPU_EQUAL(&own, &usable));  // the caller keeps its own
}

TEST(impossible_pools_are_refused) {
  for (const int threads : {0, -3, 1025})
    CHECK_THROWS(ThreadPool(threads, {}), ConfigError, ("threads is " + std::to_string(threads)).c_str());
  CHECK_THROWS(ThreadPool(3, {0, -1}), ConfigError, "cores: -1 is not a core");
}

TEST(shares_give_every_index_once_and_a_thread_its_own_in_order) {
  for (const int threads : {1, 2, 3, 7})
    for (const std::int64_t count : {0, 1, 2, 5, 64, 1000}) {
      // one after the other: whoever comes last finds nothing, whoever comes first does it all
      cpu::Shares alone(count, threads);
      std::vector<std::int64_t> found;
      std::int64_t index = 0;
      while (alone.next(threads - 1, index)) found.push_back(index);
      CHECK_EQ(std::ssize(found), count);
      const std::int64_t own = count - count * (threads - 1) / threads;
      for (std::int64_t i = 0; i < own; ++i)
        CHECK_EQ(found[static_cast<std::size_t>(i)], count * (threads - 1) / threads + i);
      std::ranges::sort(found);
      for (std::int64_t i = 0; i < count; ++i) CHECK_EQ(found[static_cast<std::size_t>(i)], i);
      CHECK(!alone.next(0, index));

      cpu::Shares together(count, threads);
      std::vector<std::atomic<int>> times(static_cast<std::size_t>(count));
      std::vector<std::thread> workers;
      for (int t = 0; t < threads; ++t)
        workers.emplace_back([&, t] {
          std::int64_t at = 0;
          while (together.next(t, at)) ++times[static_cast<std::size_t>(at)];
        });
      for (std::thread& worker : workers) worker.join();
      for (const std::atomic<int>& once : times) CHECK_EQ(once.load(), 1);
    }
}

}  // namespace wallx::test
