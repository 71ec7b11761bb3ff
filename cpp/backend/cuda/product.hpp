// Product: rows times packed weights on tensor cores, with the epilogue on the sums.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "backend/backend.hpp"
#include "backend/cuda/fragments.hpp"
#include "backend/cuda/lane.hpp"

namespace wallx::cuda {

struct ProductArguments {
  const std::byte* panels = nullptr;
  std::int64_t panel_stride = 0;  // [bytes]
  int num_panels = 0;
  const std::byte* rows = nullptr;
  std::int64_t row_stride = 0;  // [bytes]
  int num_rows = 0;
  int depth = 0;  // [bytes] of a row, padded
  int out = 0;
  const float* row_scale = nullptr;  // int8  (rows)
  const float* scale = nullptr;      // int8  (padded outputs)
  const float* bias = nullptr;
  Activation activation = Activation::none;
  const float* gate = nullptr;
  const float* residual = nullptr;
  std::int64_t residual_stride = 0;  // [floats]
  void* y = nullptr;                 // fp32, or bf16 of a gated product
  std::int64_t y_stride = 0;         // [numbers]
  bool is_bf16 = false;
};

// What a block computes, and how its warps share that out. Warps that share a tile each take a part of the
// depth: few rows have too few tiles to keep a GPU busy otherwise.
template <int Pairs, int Tiles, int WarpsOut, int WarpsRows, int WarpsDepth, int Stages, int Blocks>
struct TilingOf {
  static constexpr int kPairs = Pairs;  // of panels, a warp
  static constexpr int kTiles = Tiles;  // of 8 rows, a warp
  static constexpr int kWarpsOut = WarpsOut, kWarpsRows = WarpsRows, kWarpsDepth = WarpsDepth;
  static constexpr int kStages = Stages;
  static constexpr int kBlocks = Blocks;  // that registers leave room for, a multiprocessor
  static constexpr int kThreads = kWarp * WarpsOut * WarpsRows * WarpsDepth;
  static constexpr int kBlockPairs = Pairs * WarpsOut;
  static constexpr int kBlockOutputs = kBlockPairs * kPairOutputs;
  static constexpr int kBlockRows = Tiles * kRowsOfTile * WarpsRows;
  static constexpr int kPanelBytes = kBlockPairs * kPairRunBytes;  // of one run
  static constexpr int kRowBytes = kBlockRows * kRunBytes;
  static constexpr int kStageBytes = WarpsDepth * (kPanelBytes + kRowBytes);
  static constexpr int kSumBytes = WarpsDepth > 1 ? kThreads* Pairs* Tiles * 2 * 4 * 4 : 0;
  static constexpr int kSharedBytes = Stages * kStageBytes > kSumBytes ? Stages* kStageBytes : kSumBytes;
};
using OneRow = TilingOf<1, 1, 1, 1, 8, 3, 2>;    // up to 8 rows: a text token
using FewRows = TilingOf<1, 4, 1, 1, 4, 4, 3>;   // up to 32: an action step
using ManyRows = TilingOf<2, 4, 2, 4, 1, 4, 1>;  // 128 outputs x 128 rows: prefill, pictures

WALLX_GPU float activated(Activation activation, float v) {
  if (activation == Activation::silu) return v / (1.0f + expf(-v));
  if (activation == Activation::gelu) return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
  return v;
}

WALLX_GPU bool is_aligned(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; }

// four numbers of which `count` are there, at once where that may be
WALLX_GPU void load_four(const float* from, int count, float (&to)[4]) {
  if (count >= 4 && is_aligned(from)) {
    const Four all = *reinterpret_cast<const Four*>(from);
    for (int i = 0; i < 4; ++i) to[i] = all.v[i];
    return;
  }
  for (int i = 0; i < 4; ++i) to[i] = i < count ? from[i] : 0.0f;
}

WALLX_GPU void store_four(const float (&from)[4], int count, float* to) {
  if (count >= 4 && is_aligned(to)) {
    *reinterpret_cast<Four*>(to) = {from[0], from[1], from[2], from[3]};
    return;
  }
  for (int i = 0; i < 4; ++i)
    if (i < count) to[i] = from[i];
}

// one stage of the pipeline: runs [first, first + warps of depth) of the block's panels and rows; zeros
// beyond
template <class Tiling, class Lane>
WALLX_GPU void load_stage(Lane& lane, const ProductArguments& args, int first_panel, int first_row,
                          int first_run, std::byte* stage) {
  constexpr int kPanelChunks = Tiling::kPanelBytes / 16, kRowChunks = Tiling::kRowBytes / 16;
  constexpr int kChunks = Tiling::kWarpsDepth * (kPanelChunks + kRowChunks);
  static_assert(kChunks % Tiling::kThreads == 0);
  WALLX_UNROLL
  for (int k = 0; k < kChunks / Tiling::kThreads; ++k) {
    const int at = k * Tiling::kThreads + lane.thread();
    const int run = at / (kPanelChunks + kRowChunks), chunk = at % (kPanelChunks + kRowChunks);
    const int depth = (first_run + run) * kRunBytes;
    std::byte* to = stage + run * (Tiling::kPanelBytes + Tiling::kRowBytes);
    if (chunk < kPanelChunks) {
      const int panel = chunk / 64, word = chunk / 4 % 16, quad = chunk % 4;
      const bool is_there = depth + word * 4 < args.depth && first_panel + panel < args.num_panels;
      const std::byte* from =
          is_there ? args.panels + (first_panel + panel) * args.panel_stride + depth * 16LL + chunk % 64 * 16
                   : args.panels;
      lane.copy(to + panel * 1024 + panel_chunk(word, quad) * 16, from, is_there);
    } else {
      const int row = (chunk - kPanelChunks) / 4, j = chunk % 4;
      const bool is_there = depth + j * 16 < args.depth && first_row + row < args.num_rows;
      const std::byte* from =
          is_there ? args.rows + (first_row + row) * args.row_stride + depth + j * 16 : args.rows;
      lane.copy(to + Tiling::kPanelBytes + row_chunk(row, j) * 16, from, is_there);
    }
  }
}

// one run: sums[pair][tile][product of the pair] += panels rows^T
template <class Tiling, class Sum, class Lane>
WALLX_GPU void multiply_run(Lane& lane, const std::byte* panels, const std::byte* rows,
                            Sum (&sums)[Tiling::kPairs][Tiling::kTiles][2][4]) {
  const int i = lane.thread() % kWarp / 4, j = lane.thread() % 4;
  Words second[Tiling::kTiles];
  WALLX_UNROLL
  for (int t = 0; t < Tiling::kTiles; ++t)
    second[t] = *reinterpret_cast<const Words*>(rows + row_chunk(t * kRowsOfTile + i, j) * 16);
  WALLX_UNROLL
  for (int s = 0; s < 2; ++s) {
    WALLX_UNROLL
    for (int p = 0; p < Tiling::kPairs; ++p) {
      Words first[2];
      WALLX_UNROLL
      for (int h = 0; h < 2; ++h)
        first[h] = *reinterpret_cast<const Words*>(panels + p * kPairRunBytes + panel_of(i) * 1024 +
                                                   panel_chunk(word_of_run(j, s, h), quad_of(i)) * 16);
      WALLX_UNROLL
      for (int tile = 0; tile < 2; ++tile) {
        const std::uint32_t a[4] = {first[0].v[2 * tile], first[0].v[2 * tile + 1], first[1].v[2 * tile],
                                    first[1].v[2 * tile + 1]};
        WALLX_UNROLL
        for (int t = 0; t < Tiling::kTiles; ++t) {
          const std::uint32_t b[2] = {second[t].v[2 * s], second[t].v[2 * s + 1]};
          lane.multiply(sums[p][t][tile], a, b);
        }
      }
    }
  }
}

// A thread's sums of one pair and one tile of rows: four outputs next to each other of rows 2 j and 2 j + 1.
template <bool kGated, class Sum, class Lane>
WALLX_GPU void finish(Lane& lane, const ProductArguments& args, int pair, int row, const Sum (&sums)[2][4]) {
  const int i = lane.thread() % kWarp / 4, j = lane.thread() % 4;
  const int column = pair * kPairOutputs + output_of(i, 0, 0);
  if (pair * 2 >= args.num_panels) return;  // the whole warp's
  float scale[4] = {}, bias[4] = {}, v[2][4];
  if (args.scale) load_four(args.scale + column, 4, scale);
  if (args.bias) load_four(args.bias + column, 4, bias);
  WALLX_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int at = row + 2 * j + r;
    const float row_scale = args.row_scale && at < args.num_rows ? args.row_scale[at] : 1.0f;
    WALLX_UNROLL
    for (int o = 0; o < 4; ++o) {
      float value = static_cast<float>(sums[o / 2][o % 2 * 2 + r]);
      if (args.scale) value *= scale[o] * row_scale;
      if (args.bias) value += bias[o];
      v[r][o] = value;
    }
  }
  if constexpr (kGated) {
    // the pair's first panel is gate, its second up: thread i and i ^ 4 have the two of the same outputs, and
    // each finishes one of the two rows
    const bool is_up = i >= 4;
    float value[4];
    WALLX_UNROLL
    for (int o = 0; o < 4; ++o) {
      const float other = lane.exchange(is_up ? v[0][o] : v[1][o], kWarp / 2);
      const float gate = is_up ? other : v[0][o], up = is_up ? v[1][o] : other;
      value[o] = activated(Activation::silu, gate) * up;
    }
    const int at = row + 2 * j + (is_up ? 1 : 0), first = pair * (kPairOutputs / 2) + quad_of(i) * 4;
    if (at >= args.num_rows) return;
    if (args.is_bf16) {
      auto* y =
          static_cast<std::uint32_t*>(args.y) + (at * args.y_stride + first) / 2;  // padded: all are there
      y[0] = lane.two_bf16(value[0], value[1]);
      y[1] = lane.two_bf16(value[2], value[3]);
    } else if (first < args.out) {
      store_four(value, args.out - first, static_cast<float*>(args.y) + at * args.y_stride + first);
    }
  } else {
    const int count = args.out - column;
    if (count <= 0) return;
    float gate[4] = {}, residual[4] = {};
    if (args.gate) load_four(args.gate + column, count, gate);
    WALLX_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int at = row + 2 * j + r;
      if (at >= args.num_rows) return;
      if (args.residual) load_four(args.residual + at * args.residual_stride + column, count, residual);
      WALLX_UNROLL
      for (int o = 0; o < 4; ++o) {
        v[r][o] = activated(args.activation, v[r][o]);
        if (args.gate) v[r][o] *= gate[o];
        if (args.residual) v[r][o] += residual[o];
      }
      store_four(v[r], count, static_cast<float*>(args.y) + at * args.y_stride + column);
    }
  }
}

// Sum is std::int32_t for int8 and float for bf16. Block (outputs, rows); shared: Tiling::kSharedBytes.
template <class Tiling, class Sum, bool kGated, class Lane>
WALLX_GPU void product_kernel(Lane& lane, const ProductArguments& args, std::byte* shared) {
  const int warp = lane.thread() / kWarp;
  const int warp_depth = warp % Tiling::kWarpsDepth;
  const int warp_out = warp / Tiling::kWarpsDepth % Tiling::kWarpsOut;
  const int warp_rows = warp / Tiling::kWarpsDepth / Tiling::kWarpsOut;
  const int first_pair = lane.block(0) * Tiling::kBlockPairs, first_row = lane.block(1) * Tiling::kBlockRows;
  const int num_runs = (args.depth + kRunBytes - 1) / kRunBytes;
  const int num_steps = (num_runs + Tiling::kWarpsDepth - 1) / Tiling::kWarpsDepth;
  const auto load = [&](int step) {
    if (step < num_steps)
      load_stage<Tiling>(lane, args, first_pair * 2, first_row, step * Tiling::kWarpsDepth,
                         shared + step % Tiling::kStages * Tiling::kStageBytes);
    lane.commit();
  };
  WALLX_UNROLL
  for (int step = 0; step < Tiling::kStages - 1; ++step) load(step);

  Sum sums[Tiling::kPairs][Tiling::kTiles][2][4] = {};
  for (int step = 0; step < num_steps; ++step) {
    lane.template wait<Tiling::kStages - 2>();
    lane.barrier();  // also: everybody is done with the stage that comes next
    load(step + Tiling::kStages - 1);
    const std::byte* stage = shared + step % Tiling::kStages * Tiling::kStageBytes +
                             warp_depth * (Tiling::kPanelBytes + Tiling::kRowBytes);
    multiply_run<Tiling>(lane, stage + warp_out * Tiling::kPairs * kPairRunBytes,
                         stage + Tiling::kPanelBytes + warp_rows * Tiling::kTiles * kRowsOfTile * kRunBytes,
                         sums);
  }
  const int pair = first_pair + warp_out * Tiling::kPairs;
  const int row = first_row + warp_rows * Tiling::kTiles * kRowsOfTile;
  if constexpr (Tiling::kWarpsDepth == 1) {
    WALLX_UNROLL
    for (int p = 0; p < Tiling::kPairs; ++p) WALLX_UNROLL
    for (int t = 0; t < Tiling::kTiles; ++t)
      finish<kGated>(lane, args, pair + p, row + t * kRowsOfTile, sums[p][t]);
  } else {
    // always in the same order, so that results are the same every time
    static_assert(Tiling::kPairs == 1 && Tiling::kWarpsOut == 1 && Tiling::kWarpsRows == 1);
    lane.template wait<0>();
    lane.barrier();
    auto* parts = reinterpret_cast<Sum*>(shared);  // (tile, warp, 8, lane)
    const int place = lane.thread() % kWarp;
    WALLX_UNROLL
    for (int t = 0; t < Tiling::kTiles; ++t) WALLX_UNROLL
    for (int k = 0; k < 8; ++k)
      parts[((t * Tiling::kWarpsDepth + warp_depth) * 8 + k) * kWarp + place] = sums[0][t][k / 4][k % 4];
    lane.barrier();
    for (int t = warp_depth; t < Tiling::kTiles; t += Tiling::kWarpsDepth) {
      Sum total[2][4] = {};
      for (int w = 0; w < Tiling::kWarpsDepth; ++w) WALLX_UNROLL
      for (int k = 0; k < 8; ++k)
        total[k / 4][k % 4] += parts[((t * Tiling::kWarpsDepth + w) * 8 + k) * kWarp + place];
      finish<kGated>(lane, args, pair, row + t * kRowsOfTile, total);
    }
  }
}

}  // namespace wallx::cuda
