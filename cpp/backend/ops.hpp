// Ops: the fused operations that the model's graph is written in; fp32 on the CPU for now.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace wallx {

// All buffers are row-major fp32. `rows` counts tokens. Outputs never alias inputs unless a comment allows
// it.

// y = x W^T + b
struct Linear {
  const float* weight = nullptr;  // (out x in)
  const float* bias = nullptr;    // (out), or null
  std::int64_t out = 0;
  std::int64_t in = 0;
};

enum class Activation { none, silu, gelu };  // gelu: the exact one, with erf

// y = activation(x W^T + b) + residual; residual (rows x out) may be null and may be y itself;
// rows of y are y_stride apart (0: layer.out), those of residual layer.out
void linear(const float* x, std::int64_t rows, const Linear& layer, Activation activation,
            const float* residual, float* y, std::int64_t y_stride = 0);

// y = silu(gate(x)) * up(x)                                                      (rows x gate.out)
void gated_linear(const float* x, std::int64_t rows, const Linear& gate, const Linear& up, float* y);

// y = x / sqrt(mean(x^2) + eps) * weight                                         (rows x width)
void rms_norm(const float* x, std::int64_t rows, std::int64_t width, const float* weight, float eps,
              float* y);

// the same without a weight, but scaled and shifted: y = x / rms(x) * (1 + scale) + shift
// modulation (2 x width): scale, shift
void adaptive_rms_norm(const float* x, std::int64_t rows, std::int64_t width, const float* modulation,
                       float eps, float* y);

// y += x * gate, column by column                                                (rows x width), gate (width)
void add_gated(const float* x, std::int64_t rows, std::int64_t width, const float* gate, float* y);

// rotates each head of x in place: (a, b) -> (a cos - b sin, b cos + a sin) with a the first, b the second
// half
struct Rotary {
  const float* cos = nullptr;  // (rows x head_dim)
  const float* sin = nullptr;  // (rows x head_dim)
};
// x (rows x stride), its first num_heads * head_dim columns
void apply_rotary(float* x, std::int64_t rows, std::int64_t stride, std::int64_t num_heads,
                  std::int64_t head_dim, const Rotary& rotary);

// key/value cache of one layer, (kv_heads x capacity x head_dim) each
struct CacheView {
  float* key = nullptr;
  float* value = nullptr;
  std::int64_t capacity = 0;  // [tokens]
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
};

// rotates q in place, rotates k and writes k and v into the cache at [position, position + rows)
// qkv (rows x (num_heads + 2 kv_heads) * head_dim), order q | k | v
void rotate_and_cache(float* qkv, std::int64_t rows, std::int64_t num_heads, const Rotary& rotary,
                      std::int64_t position, const CacheView& cache);

// query rows that an attention op holds scores for at a time
inline constexpr std::int64_t kAttentionRows = 16;

// a run of one layer's cache; heads of key and value are capacity * head_dim apart
struct CacheSegment {
  const float* key = nullptr;
  const float* value = nullptr;
  std::int64_t capacity = 0;  // [tokens]
  std::int64_t length = 0;    // [tokens] in use
};

// softmax(q k^T / sqrt(head_dim)) v over a cache whose last `rows` entries are the query rows' own; query row
// i sees all before them and itself (causal) or all (block: the rows see each other both ways). Where the
// segments part changes no bit.
struct CacheAttention {
  std::int64_t rows = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool is_causal = true;
};
// scratch (kAttentionRows x entries of all segments)
void cache_attention(const float* qkv, const CacheAttention& shape, std::span<const CacheSegment> segments,
                     float* scratch, float* y);

// softmax(q k^T / sqrt(head_dim)) v inside each segment [offsets[i], offsets[i + 1]) of the rows, all see all
// qkv (rows x 3 * num_heads * head_dim), order q | k | v; scratch (kAttentionRows x longest segment)
void segment_attention(const float* qkv, const std::int32_t* offsets, std::int64_t num_segments,
                       std::int64_t num_heads, std::int64_t head_dim, float* scratch, float* y);

}  // namespace wallx
