// TilesAvx: tiles of 256-bit vectors; included where the compiler's target is set, with the dot product as a type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <immintrin.h>

#include "backend/cpu/tiles.hpp"

namespace wallx::cpu {
namespace {  // one copy for each target

constexpr int kRows = 3;  // by four vectors of eight outputs: twelve of sixteen registers are sums

void ask_for(const Tile& tile, std::int64_t group) {
  const std::byte* next = tile.next + group / 4 * 64 * tile.lines;
  for (int i = 0; i < tile.lines; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(next + 64 * i), _MM_HINT_T1);
}

template <class Dot>
struct Int8 {
  template <int Rows>
  struct Kernel {
    static void run(const Tile& tile) {
      __m256i sums[Rows][4];
      for (int c = 0; c < 4; ++c) {
        const __m256i begin =
            Dot::kHasOffset ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.offset + 8 * c))
                            : _mm256_setzero_si256();
        for (int r = 0; r < Rows; ++r) sums[r][c] = begin;
      }
      for (std::int64_t g = 0; g < tile.groups; ++g) {
        if (g % 4 == 0) ask_for(tile, g);
        __m256i x[Rows];
        for (int r = 0; r < Rows; ++r) x[r] = _mm256_set1_epi32(group_of(tile.rows + r * tile.stride + 4 * g));
        for (int c = 0; c < 4; ++c) {
          const std::byte* panel = c < 2 ? tile.first : tile.second;
          const __m256i w =
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 64 * g + 32 * (c % 2)));
          for (int r = 0; r < Rows; ++r) sums[r][c] = Dot::add(sums[r][c], x[r], w);
        }
      }
      auto* out = static_cast<std::int32_t*>(tile.sums);
      for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 4; ++c)
          _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * 2 * kPanel + 8 * c), sums[r][c]);
    }
  };
};

// bf16 is the upper half of fp32
template <int Rows>
struct Bf16 {
  static void run(const Tile& tile) {
    __m256 sums[Rows][4];
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < 4; ++c) sums[r][c] = _mm256_setzero_ps();
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    for (std::int64_t g = 0; g < tile.groups; ++g) {
      if (g % 4 == 0) ask_for(tile, g);
      for (int c = 0; c < 4; ++c) {
        const std::byte* panel = c < 2 ? tile.first : tile.second;
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 64 * g + 32 * (c % 2)));
        const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
        const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(w, upper));
        for (int r = 0; r < Rows; ++r) {
          const __m256i x = _mm256_set1_epi32(group_of(tile.rows + r * tile.stride + 4 * g));
          sums[r][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), even, sums[r][c]);
          sums[r][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(x, upper)), odd, sums[r][c]);
        }
      }
    }
    auto* out = static_cast<float*>(tile.sums);
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < 4; ++c) _mm256_store_ps(out + r * 2 * kPanel + 8 * c, sums[r][c]);
  }
};

constexpr std::make_integer_sequence<int, kRows> kCounts;
template <class Dot>
constexpr auto kInt8Tiles = tile_table<Int8<Dot>::template Kernel>(kCounts);
constexpr auto kBf16Tiles = tile_table<Bf16>(kCounts);

}  // namespace
}  // namespace wallx::cpu
