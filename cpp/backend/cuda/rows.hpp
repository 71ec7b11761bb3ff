// Rows: norms, and how a block turns one row of numbers into what the next product takes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "backend/backend.hpp"
#include "backend/cuda/lane.hpp"
#include "backend/cuda/product.hpp"

namespace wallx::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowSharedBytes = kRowThreads / kWarp * 4;

// One row by one block: values(column, four) gives four numbers from a column on, zeros beyond the width; it
// is called twice for int8, whose scale needs the largest first.
template <class Lane, class Values>
WALLX_GPU void write_row(Lane& lane, const Rows& y, int row, float* scratch, Values values) {
  const int width = static_cast<int>(y.width);
  std::byte* to = static_cast<std::byte*>(y.data) + row * y.stride;
  float four[4];
  if (y.format == Format::f32) {
    for (int c = lane.thread() * 4; c < width; c += kRowThreads * 4) {
      values(c, four);
      store_four(four, width - c, reinterpret_cast<float*>(to) + c);
    }
    return;
  }
  const int padded =
      (width + static_cast<int>(kDepth) - 1) / static_cast<int>(kDepth) * static_cast<int>(kDepth);
  if (y.format == Format::bf16) {
    for (int c = lane.thread() * 4; c < padded; c += kRowThreads * 4) {
      values(c, four);
      auto* words = reinterpret_cast<std::uint32_t*>(to) + c / 2;
      words[0] = lane.two_bf16(four[0], four[1]);
      words[1] = lane.two_bf16(four[2], four[3]);
    }
    return;
  }
  float largest = 0;
  for (int c = lane.thread() * 4; c < width; c += kRowThreads * 4) {
    values(c, four);
    for (int i = 0; i < 4; ++i) largest = larger_magnitude(largest, fabsf(four[i]));
  }
  largest = block_largest<Lane, kRowThreads>(lane, largest, scratch);
  const float scale = largest / 127.0f;
  const float inverse = scale > 1e-38f ? 1.0f / scale : 0.0f;  // finite; what is not shows in the scale
  if (lane.thread() == 0) y.scale[row] = scale;
  for (int c = lane.thread() * 4; c < padded; c += kRowThreads * 4) {
    values(c, four);
    std::uint32_t word = 0;
    for (int i = 0; i < 4; ++i)
      if (inverse > 0)
        word |= (static_cast<std::uint32_t>(static_cast<int>(rintf(four[i] * inverse))) & 0xFF) << (8 * i);
    reinterpret_cast<std::uint32_t*>(to)[c / 4] = word;
  }
}

struct NormArguments {
  const float* x = nullptr;  // (rows x width)
  Norm norm;
  Rows y;
};

// block (row); shared: kRowSharedBytes
template <class Lane>
WALLX_GPU void norm_kernel(Lane& lane, const NormArguments& args, std::byte* shared) {
  auto* scratch = reinterpret_cast<float*>(shared);
  const int row = lane.block(0), width = static_cast<int>(args.y.width);
  const float* x = args.x + row * args.y.width;
  const Norm& norm = args.norm;
  if (norm.kind == Norm::Kind::none)
    return write_row(lane, args.y, row, scratch,
                     [&](int c, float(&four)[4]) { load_four(x + c, width - c, four); });
  float four[4], squares = 0;
  for (int c = lane.thread() * 4; c < width; c += kRowThreads * 4) {
    load_four(x + c, width - c, four);
    for (int i = 0; i < 4; ++i) squares += four[i] * four[i];
  }
  squares = block_sum<Lane, kRowThreads>(lane, squares, scratch);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(width) + norm.eps);
  write_row(lane, args.y, row, scratch, [&](int c, float(&out)[4]) {
    float first[4], second[4] = {};
    load_four(x + c, width - c, out);
    const bool is_adaptive = norm.kind == Norm::Kind::adaptive;
    load_four((is_adaptive ? norm.modulation : norm.weight) + c, width - c, first);
    if (is_adaptive) load_four(norm.modulation + width + c, width - c, second);
    for (int i = 0; i < 4; ++i)
      out[i] = is_adaptive ? out[i] * scale * (1.0f + first[i]) + second[i] : out[i] * scale * first[i];
  });
}

}  // namespace wallx::cuda
