// KernelsAvx512: VNNI and BF16 on 512-bit vectors: sums of up to 14 rows by 32 outputs stay in registers.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/tiles.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")
#include <immintrin.h>

namespace wallx::cpu {
namespace {

// two instructions a cycle need their operands in registers: one broadcast serves both panels
template <int Rows>
struct Int8 {
  static void run(const Tile& tile) {
    __m512i sums[Rows][2];
    const __m512i first_offset = _mm512_loadu_si512(tile.offset);
    const __m512i second_offset = _mm512_loadu_si512(tile.offset + kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      sums[r][0] = first_offset;
      sums[r][1] = second_offset;
    }
    const std::byte *rows = tile.rows, *first = tile.first, *second = tile.second, *next = tile.next;
    const std::int64_t stride = tile.stride;
    const int lines = tile.lines;
    for (std::int64_t g = 0; g < tile.groups; g += 4) {
      for (int i = 0; i < lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(next + 64 * i), _MM_HINT_T1);
      next += 64 * lines;
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const __m512i a = _mm512_loadu_si512(first + 64 * (g + u));
        const __m512i b = _mm512_loadu_si512(second + 64 * (g + u));
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
          const __m512i x = _mm512_set1_epi32(group_of(rows + r * stride + 4 * (g + u)));
          sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], x, a);
          sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], x, b);
        }
      }
    }
    auto* out = static_cast<std::int32_t*>(tile.sums);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      _mm512_store_si512(out + r * 2 * kPanel, sums[r][0]);
      _mm512_store_si512(out + r * 2 * kPanel + kPanel, sums[r][1]);
    }
  }
};

template <int Rows>
struct Bf16 {
  static void run(const Tile& tile) {
    __m512 sums[Rows][2];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    const std::byte *rows = tile.rows, *first = tile.first, *second = tile.second, *next = tile.next;
    const std::int64_t stride = tile.stride;
    const int lines = tile.lines;
    for (std::int64_t g = 0; g < tile.groups; g += 4) {
      for (int i = 0; i < lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(next + 64 * i), _MM_HINT_T1);
      next += 64 * lines;
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const auto a = reinterpret_cast<__m512bh>(_mm512_loadu_si512(first + 64 * (g + u)));
        const auto b = reinterpret_cast<__m512bh>(_mm512_loadu_si512(second + 64 * (g + u)));
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
          const auto x =
              reinterpret_cast<__m512bh>(_mm512_set1_epi32(group_of(rows + r * stride + 4 * (g + u))));
          sums[r][0] = _mm512_dpbf16_ps(sums[r][0], x, a);
          sums[r][1] = _mm512_dpbf16_ps(sums[r][1], x, b);
        }
      }
    }
    auto* out = static_cast<float*>(tile.sums);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      _mm512_store_ps(out + r * 2 * kPanel, sums[r][0]);
      _mm512_store_ps(out + r * 2 * kPanel + kPanel, sums[r][1]);
    }
  }
};

constexpr auto kInt8 = tile_table<Int8>(std::make_integer_sequence<int, 14>());
constexpr auto kBf16 = tile_table<Bf16>(std::make_integer_sequence<int, 14>());
constexpr Kernels kKernels{"avx512", true, true, 12, kInt8.data(), kBf16.data()};

}  // namespace

const Kernels* const kAvx512Kernels = &kKernels;

}  // namespace wallx::cpu
#pragma GCC pop_options
#else
namespace wallx::cpu {
const Kernels* const kAvx512Kernels = nullptr;
}
#endif
