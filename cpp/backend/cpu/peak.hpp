// Peak: what this computer can do at most, measured by loops that neither memory nor a dependency slows down.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace wallx {

enum class PeakKind : std::uint8_t { int8, bf16, fp32, read, clock };

struct Peak {
  double rate = 0;               // of all threads; see PeakKind  [operations/s], read: [bytes/s], clock: [Hz]
  const char* instruction = "";  // what was issued
  std::int64_t width = 0;        // operations of a core in a cycle, a multiply-add being two; 0: not known
};

// int8, bf16, fp32: products, with every accumulator in a register of its own.
// read: sums over a buffer far larger than the last cache.
// clock: a chain of additions, one a cycle; the fastest slice of any thread.
// Thread i runs on the i-th processor that this one may run on. Blocks for `seconds` and what the buffer
// takes. Throws ConfigError: threads not 1 to those processors, seconds not above 0 and at most 60, a kind
// that this processor has no instruction for.
Peak measure_peak(PeakKind kind, int threads, double seconds);

// "int8", "bf16", "fp32", "read", "clock"; throws ConfigError: another word.
PeakKind to_peak_kind(std::string_view name);
const char* to_string(PeakKind kind);

// One loop of one instruction set.
struct PeakLoop {
  PeakKind kind;
  const char* instruction;
  double operations;  // of a round
  bool (*is_supported)();
  void (*run)(std::uint64_t rounds);
  std::int64_t (*width)();  // as in Peak
};

// of the architecture this was compiled for, the best of a kind first
std::span<const PeakLoop> peak_loops();

// Adds up `size` bytes, a multiple of 1024, and asks for what comes behind them: a core that only loads does
// not ask for all that the memory gives.
using ReadLoop = std::uint64_t (*)(const std::byte* data, std::size_t size);
constexpr std::size_t kReadAhead = 4096;  // [bytes]
ReadLoop wide_read_loop();                // nullptr: the processor has no wider loads than the compiler uses

}  // namespace wallx
