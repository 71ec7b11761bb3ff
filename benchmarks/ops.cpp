// BenchOps: the op tests' structs at the sizes of the full network, timed on each kernel set.
// SPDX-License-Identifier: Apache-2.0

// bench_ops [THREADS [KERNELS]]: all cores and every kernel set of this processor where they are not given
#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/op.hpp"

namespace {

using namespace wallx;
using namespace wallx::test;

// median of the runs that fit into a third of a second, at least 5  [s]
double seconds_of(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();  // pages and caches
  std::vector<double> times;
  const auto begin = Clock::now();
  while (times.size() < 5 || Clock::now() - begin < std::chrono::milliseconds(333)) {
    const auto start = Clock::now();
    run();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::nth_element(times, times.begin() + std::ssize(times) / 2);
  return times[times.size() / 2];
}

template <class Op>
void time(Backend& backend, const Op& op) {
  const double seconds = seconds_of(op.on(backend).run);
  std::printf("  %9.3f ms %8.1f G/s  %s\n", seconds * 1e3, op.work() / seconds, op.name().c_str());
}

void time_all(Backend& backend) {
  for (const Format format : {Format::bf16, Format::int8, Format::w8})
    for (const std::int64_t rows : {1, 32, 246}) {
      time(backend, ProductOp{.rows = rows, .in = 2048, .out = 2560, .format = format, .has_bias = true});
      time(
          backend,
          ProductOp{.rows = rows, .in = 11008, .out = 2048, .format = format, .residual = Residue::in_place});
      time(backend,
           GatedOp{.rows = rows, .in = 2048, .out = 11008, .format = format, .to = row_format(format)});
    }
  for (const Format format : {Format::bf16, Format::int8})
    time(backend,
         GatedOp{.rows = 504, .in = 1280, .out = 3420, .format = format, .to = format, .has_bias = true});
  for (const Format to : {Format::bf16, Format::int8})
    time(backend, NormOp{.rows = 246, .width = 2048, .kind = Norm::Kind::rms, .to = to});
  for (const std::int64_t rows : {1, 32, 246})
    time(backend, CacheOp{.rows = rows,
                          .num_heads = 16,
                          .num_kv_heads = 2,
                          .head_dim = 128,
                          .segments = {rows == 246 ? 10 : 246, rows},
                          .is_causal = rows != 32,
                          .format = Format::bf16,
                          .to = Format::int8});
  time(backend, WindowOp{.num_heads = 16,
                         .head_dim = 80,
                         .offsets = {0, 64, 128, 192, 252, 316, 380, 444, 504},
                         .format = Format::bf16,
                         .to = Format::int8});
  time(backend, WindowOp{.num_heads = 16,
                         .head_dim = 80,
                         .offsets = {0, 252, 504},
                         .format = Format::bf16,
                         .to = Format::int8});
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  try {
    for (const cpu::Kernels* kernels : cpu::available_kernels()) {
      if (argc > 2 && kernels->name != std::string(argv[2])) continue;
      CpuBackend backend({threads, {}, kernels->name});
      std::printf("%s, threads %d\n", backend.name().c_str(), backend.num_threads());
      time_all(backend);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_ops: %s\n", error.what());
    return 1;
  }
}
