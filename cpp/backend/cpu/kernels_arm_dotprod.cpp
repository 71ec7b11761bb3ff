// KernelsArmDotprod: NEON with SDOT for int8; bf16 as the upper half of fp32.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/tiles.hpp"

#if defined(__aarch64__)
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#include <arm_neon.h>

namespace wallx::cpu {
namespace {

constexpr int kRows = 6;

void ask_for(const Tile& tile, std::int64_t group) {
  const std::byte* next = tile.next + group / 4 * 64 * tile.lines;
  for (int i = 0; i < tile.lines; ++i) __builtin_prefetch(next + 64 * i);
}

// four groups of every row in a register: each is a lane, multiplied with the same group of sixteen outputs
template <int Rows>
struct Int8 {
  template <int Group>
  static void add(const std::byte* panel, const int8x16_t (&x)[Rows], int32x4_t (&sums)[Rows][4]) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int8x16_t w = vld1q_s8(reinterpret_cast<const std::int8_t*>(panel) + 64 * Group + 16 * c);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) sums[r][c] = vdotq_laneq_s32(sums[r][c], w, x[r], Group);
    }
  }

  static void run(const Tile& tile) {
    for (int half = 0; half < 2; ++half) {
      const std::byte* panel = half ? tile.second : tile.first;
      int32x4_t sums[Rows][4];
      for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 4; ++c) sums[r][c] = vdupq_n_s32(0);
      for (std::int64_t g = 0; g < tile.groups; g += 4) {
        if (half == 0) ask_for(tile, g);
        int8x16_t x[Rows];
        for (int r = 0; r < Rows; ++r)
          x[r] = vld1q_s8(reinterpret_cast<const std::int8_t*>(tile.rows + r * tile.stride + 4 * g));
        const std::byte* at = panel + 64 * g;
        add<0>(at, x, sums);
        add<1>(at, x, sums);
        add<2>(at, x, sums);
        add<3>(at, x, sums);
      }
      auto* out = static_cast<std::int32_t*>(tile.sums) + half * kPanel;
      for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 4; ++c) vst1q_s32(out + r * 2 * kPanel + 4 * c, sums[r][c]);
    }
  }
};

// eight outputs at a time: the rows take two registers each, for even and odd inputs
template <int Rows>
struct Bf16 {
  template <int Group>
  static void add(const std::byte* panel, const float32x4_t (&even)[Rows], const float32x4_t (&odd)[Rows],
                  float32x4_t (&sums)[Rows][2]) {
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const uint32x4_t w = vld1q_u32(reinterpret_cast<const std::uint32_t*>(panel + 64 * Group + 16 * c));
      const float32x4_t w_even = lower(w), w_odd = upper(w);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        sums[r][c] = vfmaq_laneq_f32(sums[r][c], w_even, even[r], Group);
        sums[r][c] = vfmaq_laneq_f32(sums[r][c], w_odd, odd[r], Group);
      }
    }
  }
  static float32x4_t lower(uint32x4_t pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)); }
  static float32x4_t upper(uint32x4_t pairs) {
    return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF0000u)));
  }

  static void run(const Tile& tile) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const std::byte* panel = (quarter < 2 ? tile.first : tile.second) + quarter % 2 * 32;
      float32x4_t sums[Rows][2];
      for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = vdupq_n_f32(0);
      for (std::int64_t g = 0; g < tile.groups; g += 4) {
        if (quarter == 0) ask_for(tile, g);
        float32x4_t even[Rows], odd[Rows];
        for (int r = 0; r < Rows; ++r) {
          const uint32x4_t x =
              vld1q_u32(reinterpret_cast<const std::uint32_t*>(tile.rows + r * tile.stride + 4 * g));
          even[r] = lower(x);
          odd[r] = upper(x);
        }
        const std::byte* at = panel + 64 * g;
        add<0>(at, even, odd, sums);
        add<1>(at, even, odd, sums);
        add<2>(at, even, odd, sums);
        add<3>(at, even, odd, sums);
      }
      auto* out = static_cast<float*>(tile.sums) + quarter * 8;
      for (int r = 0; r < Rows; ++r)
        for (int c = 0; c < 2; ++c) vst1q_f32(out + r * 2 * kPanel + 4 * c, sums[r][c]);
    }
  }
};

constexpr std::make_integer_sequence<int, kRows> kCounts;
constexpr auto kInt8 = tile_table<Int8>(kCounts);
constexpr auto kBf16 = tile_table<Bf16>(kCounts);
constexpr Kernels kKernels{"arm-dotprod", false, false, kRows, kInt8.data(), kBf16.data()};

}  // namespace

const Kernels* const kArmDotprodKernels = &kKernels;

}  // namespace wallx::cpu
#pragma GCC pop_options
#else
namespace wallx::cpu {
const Kernels* const kArmDotprodKernels = nullptr;
}
#endif
