// Peak: threads, time and memory around the loops.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/peak.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "base/errors.hpp"

namespace wallx {
namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kNames[] = {"int8", "bf16", "fp32", "read", "clock"};
constexpr double kSlice = 1e-3;  // between two looks at the time  [s]
constexpr std::size_t kBlock = 1 << 20;
std::atomic<std::uint64_t> sink{0};  // so that what was read counts as used

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::vector<int> own_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// anonymous memory in large pages where the system has them
class Buffer {
 public:
  explicit Buffer(std::size_t size) : size_(size) {
    void* mapping = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
      throw WallxError("no memory for a buffer of " + std::to_string(size >> 20) + " MiB to read");
    ::madvise(mapping, size, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(mapping);
  }
  ~Buffer() { ::munmap(data_, size_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::size_t size_;
  std::byte* data_ = nullptr;
};

std::size_t bytes_to_read(std::size_t threads) {
  const long last_cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  const std::size_t wanted = std::max<std::size_t>(256 << 20, 8 * std::max(0l, last_cache));
  const std::size_t each = std::min<std::size_t>(wanted, 1 << 30) / threads;
  return each / kBlock * kBlock * threads;
}

std::uint64_t read_plain(const std::byte* data, std::size_t size) {
  std::uint64_t sums[8] = {};
  for (std::size_t at = 0; at < size; at += sizeof sums) {
    __builtin_prefetch(data + at + kReadAhead, 0, 2);
    std::uint64_t line[8];
    std::memcpy(line, data + at, sizeof line);
    for (std::size_t i = 0; i < 8; ++i) sums[i] += line[i];
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t part : sums) sum += part;
  return sum;
}

struct Slices {
  double mean = 0, best = 0;  // work per second, of all slices and of the fastest
};

// calls `slice` until `seconds` are over; it returns how much it did
template <class Slice>
Slices repeat(double seconds, const Slice& slice) {
  Slices found;
  double done = 0;
  const Clock::time_point begin = Clock::now();
  for (double now = 0; now < seconds;) {
    const double did = slice(), then = seconds_since(begin);
    found.best = std::max(found.best, did / std::max(then - now, 1e-9));
    done += did;
    now = then;
    found.mean = done / now;
  }
  return found;
}

Slices run_loop(const PeakLoop& loop, double seconds) {
  std::uint64_t rounds = 64;
  for (double took = 0; took < kSlice && rounds < std::uint64_t{1} << 40; rounds *= 2) {
    const Clock::time_point begin = Clock::now();
    loop.run(rounds);
    took = seconds_since(begin);
  }
  return repeat(seconds, [&] {
    loop.run(rounds);
    return static_cast<double>(rounds) * loop.operations;
  });
}

const PeakLoop& best_loop(PeakKind kind) {
  for (const PeakLoop& loop : peak_loops())
    if (loop.kind == kind && loop.is_supported()) return loop;
  throw ConfigError(std::string("this processor has no instruction for the peak of ") + to_string(kind));
}

// work(i) on every thread, each on a processor of its own, beginning together
template <class Prepare, class Work>
std::vector<Slices> on_threads(const std::vector<int>& cpus, const Prepare& prepare, const Work& work) {
  std::vector<Slices> found(cpus.size());
  std::barrier together(static_cast<std::ptrdiff_t>(cpus.size()));
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < cpus.size(); ++i)
    threads.emplace_back([&, i] {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(cpus[i], &set);
      ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
      prepare(i);
      together.arrive_and_wait();
      found[i] = work(i);
    });
  threads.clear();
  return found;
}

}  // namespace

const char* to_string(PeakKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

PeakKind to_peak_kind(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<PeakKind>(i);
  throw ConfigError("peak of '" + std::string(name) + "', expected int8, bf16, fp32, read or clock");
}

Peak measure_peak(PeakKind kind, int threads, double seconds) {
  std::vector<int> cpus = own_cpus();
  if (threads < 1 || static_cast<std::size_t>(threads) > cpus.size())
    throw ConfigError("threads is " + std::to_string(threads) + ", expected 1 to the " +
                      std::to_string(cpus.size()) + " processors that this process may use");
  if (!(seconds > 0 && seconds <= 60))
    throw ConfigError("seconds is " + std::to_string(seconds) + ", expected more than 0 and at most 60");
  cpus.resize(static_cast<std::size_t>(threads));
  Peak peak;
  std::vector<Slices> found;
  if (kind == PeakKind::read) {
    peak.instruction = "load";
    const std::size_t size = bytes_to_read(cpus.size()), each = size / cpus.size();
    const Buffer buffer(size);
    const ReadLoop read = wide_read_loop() ? wide_read_loop() : read_plain;
    found = on_threads(
        cpus, [&](std::size_t i) { std::memset(buffer.data() + i * each, 1, each); },
        [&](std::size_t i) {
          std::size_t at = 0;
          return repeat(seconds, [&] {
            sink.fetch_add(read(buffer.data() + i * each + at, kBlock), std::memory_order_relaxed);
            at = (at + kBlock) % each;
            return static_cast<double>(kBlock);
          });
        });
  } else {
    const PeakLoop& loop = best_loop(kind);
    peak.instruction = loop.instruction;
    peak.width = loop.width();
    found = on_threads(cpus, [](std::size_t) {}, [&](std::size_t) { return run_loop(loop, seconds); });
  }
  for (const Slices& one : found)
    peak.rate = kind == PeakKind::clock ? std::max(peak.rate, one.best) : peak.rate + one.mean;
  return peak;
}

}  // namespace wallx
