// Attention: queries over a cache of bf16, the cache split among blocks and put together with requantisation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "backend/backend.hpp"
#include "backend/cuda/fragments.hpp"
#include "backend/cuda/lane.hpp"
#include "backend/cuda/rows.hpp"

namespace wallx::cuda {

inline constexpr int kMaxSegments = 128;
inline constexpr int kMaxHeadDim = 128;
inline constexpr int kQueries = 64;  // a block: 16 a warp
inline constexpr int kTokens = 32;   // a step of a block

struct CacheArguments {
  float* qkv = nullptr;
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  Rotary rotary;
  std::uint16_t* cache = nullptr;
  int capacity = 0, position = 0;
};

// block (row)
template <class Lane>
WALLX_GPU void rotate_and_cache_kernel(Lane& lane, const CacheArguments& args, std::byte*) {
  const int row = lane.block(0), dim = args.head_dim, half = dim / 2;
  const int heads = args.num_heads + args.num_kv_heads;
  float* qkv = args.qkv + static_cast<std::int64_t>(row) * (heads + args.num_kv_heads) * dim;
  const float *cos = args.rotary.cos + row * dim, *sin = args.rotary.sin + row * dim;
  const int token = args.position + row;
  for (int at = lane.thread(); at < heads * half; at += kRowThreads) {
    const int head = at / half, i = at % half;
    float* x = qkv + head * dim + i;
    const float a = x[0], b = x[half];
    const float first = a * cos[i] - b * sin[i], second = b * cos[i + half] + a * sin[i + half];
    x[0] = first;
    x[half] = second;
    if (head < args.num_heads) continue;
    std::uint16_t* key = args.cache + key_at(args.capacity, dim, head - args.num_heads, token, 0);
    const std::uint32_t both = lane.two_bf16(first, second);
    key[i] = static_cast<std::uint16_t>(both);
    key[i + half] = static_cast<std::uint16_t>(both >> 16);
  }
  for (int at = lane.thread(); at < args.num_kv_heads * dim; at += kRowThreads)
    args.cache[value_at(args.num_kv_heads, args.capacity, dim, at / dim, token, at % dim)] =
        static_cast<std::uint16_t>(lane.two_bf16(qkv[heads * dim + at], 0.0f));
}

struct AttentionArguments {
  const float* qkv = nullptr;
  int rows = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  bool is_causal = false;
  int length = 0;      // [tokens] of all segments
  int num_steps = 0;   // of all segments, kTokens each
  int num_splits = 0;  // of the steps
  int num_segments = 0;
  float* values = nullptr;  // (splits x rows x num_heads * head_dim), each split's own
  float* weight = nullptr;  // (2 x splits x rows x num_heads): largest score, times log2 e; sum of weights
  struct Segment {
    const std::uint16_t* data;
    int capacity, length;
  } segments[kMaxSegments] = {};
};

template <int Dims>
struct AttentionBlock {
  static constexpr int kThreads = kQueries / 16 * kWarp;
  // words between tokens and between pairs of tokens, so that a warp's loads meet all banks
  static constexpr int kKeyPitch = Dims / 2 + (Dims / 2 % 32 == 0 ? 16 : 0);
  static constexpr int kValuePitch = Dims + 8;
  static constexpr int kKeyWords = kTokens * kKeyPitch;
  static constexpr int kStageWords = kKeyWords + kTokens / 2 * kValuePitch;
  static constexpr int kSharedBytes = 2 * kStageWords * 4;
};

// Block (64 queries, kv head, split); a query is a row and one of the heads that share keys. Dims: head_dim
// padded to 64 or 128.
template <int Dims, class Lane>
WALLX_GPU void attention_kernel(Lane& lane, const AttentionArguments& args, std::byte* shared) {
  using Shape = AttentionBlock<Dims>;
  constexpr int kRuns = Dims / 32;       // of 64 bytes of a head
  constexpr int kTiles = kTokens / 8;    // of tokens
  constexpr int kValueTiles = Dims / 8;  // of dims
  const int i = lane.thread() % kWarp / 4, j = lane.thread() % 4;
  const int dim = args.head_dim, padded = static_cast<int>(padded_dims(dim));
  const int group = args.num_heads / args.num_kv_heads, num_queries = args.rows * group;
  const int head = lane.block(1), split = lane.block(2);
  const int width = args.num_heads * dim;
  const std::int64_t stride = width + 2LL * args.num_kv_heads * dim;
  const int first_step = args.num_steps * split / args.num_splits;
  const int end_step = args.num_steps * (split + 1) / args.num_splits;

  // this thread's two queries: rows i and i + 8 of the warp's tile
  int query[2], visible[2];
  std::uint32_t q[kRuns][2][4];  // [run][product][row of i, half of depth]
  WALLX_UNROLL
  for (int u = 0; u < 2; ++u) {
    query[u] = lane.block(0) * kQueries + lane.thread() / kWarp * 16 + i + 8 * u;
    const bool is_there = query[u] < num_queries;
    const int row = is_there ? query[u] / group : 0, column = (head * group + query[u] % group) * dim;
    visible[u] = args.is_causal ? args.length - args.rows + 1 + row : args.length;
    const float* from = args.qkv + row * stride + column;
    WALLX_UNROLL
    for (int r = 0; r < kRuns; ++r) WALLX_UNROLL
    for (int s = 0; s < 2; ++s) WALLX_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int d = (r * kRunWords + word_of_run(j, s, h)) * 2;
      q[r][s][u + 2 * h] =
          lane.two_bf16(is_there && d < dim ? from[d] : 0.0f, is_there && d + 1 < dim ? from[d + 1] : 0.0f);
    }
  }

  // where the step that is loaded next begins
  int segment = 0, base = 0, local = 0;  // base: tokens before the segment
  const auto skip = [&](int steps) {
    for (; steps > 0; --steps) {
      local += kTokens;
      while (segment < args.num_segments && local >= args.segments[segment].length) {
        base += args.segments[segment++].length;
        local = 0;
      }
    }
  };
  while (segment < args.num_segments && args.segments[segment].length == 0) ++segment;
  skip(first_step);
  int base_of[2] = {}, local_of[2] = {}, length_of[2] = {};  // of the two stages
  const auto load = [&](int step) {
    if (step < end_step) {
      const auto from = args.segments[segment];
      const int stage = (step - first_step) % 2;
      (stage ? base_of[1] : base_of[0]) = base;
      (stage ? local_of[1] : local_of[0]) = local;
      (stage ? length_of[1] : length_of[0]) = from.length;
      auto* to = reinterpret_cast<std::uint32_t*>(shared) + stage * Shape::kStageWords;
      for (int c = lane.thread(); c < kTokens * Dims / 8; c += Shape::kThreads) {
        const int token = c / (Dims / 8), d = c % (Dims / 8) * 8;
        const bool is_there = d < padded && local + token < from.length;
        lane.copy(to + token * Shape::kKeyPitch + d / 2,
                  is_there ? from.data + key_at(from.capacity, dim, head, local + token, d) : from.data,
                  is_there);
      }
      for (int c = lane.thread(); c < kTokens / 2 * Dims / 4; c += Shape::kThreads) {
        const int pair = c / (Dims / 4), d = c % (Dims / 4) * 4;
        const bool is_there = d < padded && local + 2 * pair < from.length;
        lane.copy(to + Shape::kKeyWords + pair * Shape::kValuePitch + d,
                  is_there
                      ? from.data + value_at(args.num_kv_heads, from.capacity, dim, head, local + 2 * pair, d)
                      : from.data,
                  is_there);
      }
      skip(1);
    }
    lane.commit();
  };

  const float scale = 1.4426950408889634f / sqrtf(static_cast<float>(dim));  // weights are powers of two
  float out[kValueTiles][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  load(first_step);
  for (int step = first_step; step < end_step; ++step) {
    load(step + 1);
    lane.template wait<1>();
    lane.barrier();
    const int stage = (step - first_step) % 2;
    const int first = stage ? local_of[1] : local_of[0], before = stage ? base_of[1] : base_of[0];
    const int length = stage ? length_of[1] : length_of[0];
    auto* keys = reinterpret_cast<std::uint32_t*>(shared) + stage * Shape::kStageWords;
    std::uint32_t* values = keys + Shape::kKeyWords;
    if (length - first < kTokens && length % 2 != 0) {
      // the last token's partner was forgotten, and may have been NaN: no weight of zero makes that zero
      for (int d = lane.thread(); d < Dims; d += Shape::kThreads)
        values[(length - first) / 2 * Shape::kValuePitch + d] &= 0xFFFF;
      lane.barrier();
    }

    float scores[kTiles][4] = {};
    WALLX_UNROLL
    for (int r = 0; r < kRuns; ++r) WALLX_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const Words key =
          *reinterpret_cast<const Words*>(keys + (t * 8 + i) * Shape::kKeyPitch + r * kRunWords + 4 * j);
      WALLX_UNROLL
      for (int s = 0; s < 2; ++s) {
        const std::uint32_t b[2] = {key.v[2 * s], key.v[2 * s + 1]};
        lane.multiply(scores[t], q[r][s], b);
      }
    }
    float highest[2] = {-INFINITY, -INFINITY};
    WALLX_UNROLL
    for (int t = 0; t < kTiles; ++t) WALLX_UNROLL
    for (int k = 0; k < 4; ++k) {
      const int at = first + t * 8 + 2 * j + k % 2;
      const bool is_seen = at < length && before + at < visible[k / 2];
      scores[t][k] = is_seen ? scores[t][k] * scale : -INFINITY;
      highest[k / 2] = fmaxf(highest[k / 2], scores[t][k]);
    }
    float shrink[2], add[2] = {};
    WALLX_UNROLL
    for (int u = 0; u < 2; ++u) {
      highest[u] = fmaxf(highest[u], lane.exchange(highest[u], 1));
      highest[u] = fmaxf(highest[u], lane.exchange(highest[u], 2));
      highest[u] = fmaxf(highest[u], largest[u]);
      // nothing seen yet: any finite number does
      const float origin = highest[u] == -INFINITY ? 0.0f : highest[u];
      shrink[u] = exp2f(largest[u] - origin);
      largest[u] = highest[u];
      highest[u] = origin;
    }
    std::uint32_t weights[kTiles][2];  // [tile][row of i]
    WALLX_UNROLL
    for (int t = 0; t < kTiles; ++t) WALLX_UNROLL
    for (int u = 0; u < 2; ++u) {
      const float a = exp2f(scores[t][2 * u] - highest[u]), b = exp2f(scores[t][2 * u + 1] - highest[u]);
      add[u] += a + b;
      weights[t][u] = lane.two_bf16(a, b);
    }
    WALLX_UNROLL
    for (int u = 0; u < 2; ++u) total[u] = total[u] * shrink[u] + add[u];
    WALLX_UNROLL
    for (int d = 0; d < kValueTiles; ++d) {
      WALLX_UNROLL
      for (int k = 0; k < 4; ++k) out[d][k] *= shrink[k / 2];
      WALLX_UNROLL
      for (int t = 0; t < kTiles; t += 2) {  // scores as they lie in threads are the first operand: 16 tokens
        const std::uint32_t a[4] = {weights[t][0], weights[t][1], weights[t + 1][0], weights[t + 1][1]};
        const std::uint32_t* pair = values + (t * 4 + j) * Shape::kValuePitch + d * 8 + i;
        const std::uint32_t b[2] = {pair[0], pair[4 * Shape::kValuePitch]};
        lane.multiply(out[d], a, b);
      }
    }
    lane.barrier();  // the stage is free
  }
  WALLX_UNROLL
  for (int u = 0; u < 2; ++u) {
    total[u] += lane.exchange(total[u], 1);
    total[u] += lane.exchange(total[u], 2);
    if (query[u] >= num_queries) continue;
    const int row = query[u] / group, one = head * group + query[u] % group;
    const std::int64_t at = (static_cast<std::int64_t>(split) * args.rows + row) * args.num_heads + one;
    float* to = args.values + at * dim;
    WALLX_UNROLL
    for (int d = 0; d < kValueTiles; ++d) WALLX_UNROLL
    for (int k = 0; k < 2; ++k)
      if (d * 8 + 2 * j + k < dim) to[d * 8 + 2 * j + k] = out[d][2 * u + k];
    if (j == 0) {
      args.weight[at] = largest[u];
      args.weight[at + static_cast<std::int64_t>(args.num_splits) * args.rows * args.num_heads] = total[u];
    }
  }
}

struct CombineArguments {
  const float* values = nullptr;  // as of AttentionArguments
  const float* weight = nullptr;
  int num_splits = 0, num_heads = 0, head_dim = 0;
  Rows y;
};

// block (row); shared: kRowSharedBytes and a float for each split and head
template <class Lane>
WALLX_GPU void combine_kernel(Lane& lane, const CombineArguments& args, std::byte* shared) {
  auto* scratch = reinterpret_cast<float*>(shared);
  float* factors = scratch + kRowSharedBytes / 4;  // (splits x num_heads)
  const int row = lane.block(0), width = static_cast<int>(args.y.width);
  const std::int64_t rows = args.y.count;
  for (int head = lane.thread(); head < args.num_heads; head += kRowThreads) {
    const auto at = [&](int split) { return (split * rows + row) * args.num_heads + head; };
    const float* sums = args.weight + args.num_splits * rows * args.num_heads;
    float largest = -INFINITY, total = 0;
    for (int s = 0; s < args.num_splits; ++s) largest = fmaxf(largest, args.weight[at(s)]);
    for (int s = 0; s < args.num_splits; ++s) total += sums[at(s)] * exp2f(args.weight[at(s)] - largest);
    for (int s = 0; s < args.num_splits; ++s)
      factors[s * args.num_heads + head] = exp2f(args.weight[at(s)] - largest) / total;
  }
  lane.barrier();
  write_row(lane, args.y, row, scratch, [&](int c, float(&four)[4]) {
    for (int k = 0; k < 4; ++k) {
      four[k] = 0;
      if (c + k >= width) continue;
      for (int s = 0; s < args.num_splits; ++s)
        four[k] += args.values[(s * rows + row) * width + c + k] *
                   factors[s * args.num_heads + (c + k) / args.head_dim];
    }
  });
}

}  // namespace wallx::cuda
