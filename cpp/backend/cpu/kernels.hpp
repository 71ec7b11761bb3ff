// Kernels: the inner loops of packed products, one set per kind of processor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/layout.hpp"

namespace wallx::cpu {

inline constexpr int kMaxTileRows = 14;

// A few rows against two panels.
struct Tile {
  const std::byte* rows = nullptr;  // the first row
  std::int64_t stride = 0;          // [bytes] between rows
  const std::byte* first = nullptr;
  const std::byte* second = nullptr;
  std::int64_t groups = 0;                      // of four bytes, a multiple of 4
  const std::int32_t* offset = nullptr;         // where int8 sums begin  (2 x kPanel)
  const std::byte* next = nullptr;              // what will be read soon
  int lines = 0;                                // cache lines of it to ask for in every four groups
  void* sums = nullptr;                         // int32 or fp32  (rows x 2 kPanel), 64 bytes aligned
};
using TileKernel = void (*)(const Tile&);

struct Kernels {
  const char* name;
  bool has_offset;  // int8 rows are unsigned, 128 above their value, and sums begin at the offset
  bool is_bf16_native;
  int max_rows;                   // the best number of rows in a tile
  const TileKernel* int8_tiles;   // by number of rows, from 1 to max_rows
  const TileKernel* bf16_tiles;
};

// Those that this processor can run, the fastest first; the last is plain C++ and runs anywhere.
std::span<const Kernels* const> available_kernels();
// Throws ConfigError naming the available ones.
const Kernels& find_kernels(const std::string& name);

// each compiled where the compiler knows the instructions, else null; the processor is asked before they are used
extern const Kernels* const kAvx512Kernels;
extern const Kernels* const kAvxVnniKernels;
extern const Kernels* const kAvx2Kernels;
extern const Kernels* const kArmI8mmKernels;
extern const Kernels* const kArmDotprodKernels;
extern const Kernels* const kPlainKernels;

}  // namespace wallx::cpu
