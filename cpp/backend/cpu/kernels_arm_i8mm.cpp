// KernelsArmI8mm: NEON's products of 2 x 2 sums: SMMLA for int8, BFMMLA for bf16.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend/cpu/tiles.hpp"

#if defined(__aarch64__)
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm+bf16")
#include <arm_neon.h>

namespace wallx::cpu {
namespace {

constexpr int kRows = 6;

// two rows by two outputs, of eight bytes each
struct Int8Sums {
  using Vector = int32x4_t;
  using Number = std::int32_t;
  static Vector zero() { return vdupq_n_s32(0); }
  static Vector add(Vector sums, uint32x4_t x, uint32x4_t w) {
    return vmmlaq_s32(sums, vreinterpretq_s8_u32(x), vreinterpretq_s8_u32(w));
  }
  static void store(Vector sums, Number* first, Number* second) {
    vst1_s32(first, vget_low_s32(sums));
    vst1_s32(second, vget_high_s32(sums));
  }
};
struct Bf16Sums {
  using Vector = float32x4_t;
  using Number = float;
  static Vector zero() { return vdupq_n_f32(0); }
  static Vector add(Vector sums, uint32x4_t x, uint32x4_t w) {
    return vbfmmlaq_f32(sums, vreinterpretq_bf16_u32(x), vreinterpretq_bf16_u32(w));
  }
  static void store(Vector sums, Number* first, Number* second) {
    vst1_f32(first, vget_low_f32(sums));
    vst1_f32(second, vget_high_f32(sums));
  }
};

// Of an odd number of rows the last one is its own neighbour.
template <class Sums>
struct Products {
  template <int Rows>
  struct Kernel {
    static constexpr int kPairs = (Rows + 1) / 2;
    static const std::byte* row(const Tile& tile, int r) {
      return tile.rows + std::min(r, Rows - 1) * tile.stride;
    }

    static void run(const Tile& tile) {
      for (int half = 0; half < 2; ++half) {
        const std::byte* panel = half ? tile.second : tile.first;
        typename Sums::Vector sums[kPairs][8];
        for (int p = 0; p < kPairs; ++p)
          for (int c = 0; c < 8; ++c) sums[p][c] = Sums::zero();
        for (std::int64_t g = 0; g < tile.groups; g += 2) {
          if (half == 0 && g % 4 == 0)
            for (int i = 0; i < tile.lines; ++i)
              __builtin_prefetch(tile.next + (g / 4 * tile.lines + i) * 64);
          uint32x4_t x[kPairs];
#pragma GCC unroll 3
          for (int p = 0; p < kPairs; ++p)
            x[p] =
                vcombine_u32(vld1_u32(reinterpret_cast<const std::uint32_t*>(row(tile, 2 * p) + 4 * g)),
                             vld1_u32(reinterpret_cast<const std::uint32_t*>(row(tile, 2 * p + 1) + 4 * g)));
          const auto* w = reinterpret_cast<const std::uint32_t*>(panel + 64 * g);
#pragma GCC unroll 4
          for (int c = 0; c < 4; ++c) {
            // two groups of four outputs become two outputs of two groups, twice
            const uint32x4_t a = vld1q_u32(w + 4 * c), b = vld1q_u32(w + kPanel + 4 * c);
            const uint32x4_t lower = vzip1q_u32(a, b), upper = vzip2q_u32(a, b);
#pragma GCC unroll 3
            for (int p = 0; p < kPairs; ++p) {
              sums[p][2 * c] = Sums::add(sums[p][2 * c], x[p], lower);
              sums[p][2 * c + 1] = Sums::add(sums[p][2 * c + 1], x[p], upper);
            }
          }
        }
        auto* out = static_cast<typename Sums::Number*>(tile.sums) + half * kPanel;
        for (int p = 0; p < kPairs; ++p)
          for (int c = 0; c < 8; ++c)
            Sums::store(sums[p][c], out + 2 * p * 2 * kPanel + 2 * c,
                        out + std::min(2 * p + 1, Rows - 1) * 2 * kPanel + 2 * c);
      }
    }
  };
};

constexpr std::make_integer_sequence<int, kRows> kCounts;
constexpr auto kInt8 = tile_table<Products<Int8Sums>::Kernel>(kCounts);
constexpr auto kBf16 = tile_table<Products<Bf16Sums>::Kernel>(kCounts);
constexpr Kernels kKernels{"arm-i8mm", false, true, kRows, kInt8.data(), kBf16.data()};

}  // namespace

const Kernels* const kArmI8mmKernels = &kKernels;

}  // namespace wallx::cpu
#pragma GCC pop_options
#else
namespace wallx::cpu {
const Kernels* const kArmI8mmKernels = nullptr;
}
#endif
