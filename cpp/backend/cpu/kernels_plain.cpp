// KernelsPlain: the same sums in plain C++, for any processor.
// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "backend/cpu/tiles.hpp"

namespace wallx::cpu {
namespace {

float upper(std::uint32_t pair) { return std::bit_cast<float>(pair & 0xFFFF0000u); }
float lower(std::uint32_t pair) { return std::bit_cast<float>(pair << 16); }

template <int Rows>
struct Int8 {
  static void run(const Tile& tile) {
    std::int32_t sums[Rows][2 * kPanel] = {};
    for (std::int64_t g = 0; g < tile.groups; ++g)
      for (int half = 0; half < 2; ++half) {
        const auto* w = reinterpret_cast<const std::int8_t*>((half ? tile.second : tile.first) + 64 * g);
        for (int r = 0; r < Rows; ++r) {
          const auto* x = reinterpret_cast<const std::int8_t*>(tile.rows + r * tile.stride + 4 * g);
          for (int c = 0; c < kPanel; ++c) {
            std::int32_t sum = 0;
            for (int k = 0; k < 4; ++k) sum += x[k] * w[4 * c + k];
            sums[r][half * kPanel + c] += sum;
          }
        }
      }
    std::memcpy(tile.sums, sums, sizeof sums);
  }
};

template <int Rows>
struct Bf16 {
  static void run(const Tile& tile) {
    float sums[Rows][2 * kPanel] = {};
    for (std::int64_t g = 0; g < tile.groups; ++g)
      for (int half = 0; half < 2; ++half) {
        std::uint32_t w[kPanel];
        std::memcpy(w, (half ? tile.second : tile.first) + 64 * g, sizeof w);
        for (int r = 0; r < Rows; ++r) {
          const auto x = static_cast<std::uint32_t>(group_of(tile.rows + r * tile.stride + 4 * g));
          for (int c = 0; c < kPanel; ++c)
            sums[r][half * kPanel + c] += lower(x) * lower(w[c]) + upper(x) * upper(w[c]);
        }
      }
    std::memcpy(tile.sums, sums, sizeof sums);
  }
};

constexpr int kRows = 4;
constexpr std::make_integer_sequence<int, kRows> kCounts;
constexpr auto kInt8 = tile_table<Int8>(kCounts);
constexpr auto kBf16 = tile_table<Bf16>(kCounts);
constexpr Kernels kKernels{"plain", false, false, kRows, kInt8.data(), kBf16.data()};

}  // namespace

const Kernels* const kPlainKernels = &kKernels;

}  // namespace wallx::cpu
