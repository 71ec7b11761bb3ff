// Fp32: products, norms and attention in fp32, the same to the bit however rows, columns and heads are shared out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "backend/backend.hpp"

namespace wallx::cpu {

// y = x W^T + b
struct Dense {
  const float* weight = nullptr;  // (out x in)
  const float* bias = nullptr;    // (out), or null
  std::int64_t out = 0;
  std::int64_t in = 0;
};

// y = residual + gate * activation(x W^T + b); rows of y are y_stride floats apart
void linear(const float* x, std::int64_t rows, const Dense& layer, const Epilogue& epilogue, float* y,
            std::int64_t y_stride);
// y = silu(gate(x)) * up(x); rows of y are y_stride floats apart
void gated_linear(const float* x, std::int64_t rows, const Dense& gate, const Dense& up, float* y,
                  std::int64_t y_stride);
// y = norm(x)                                                                    (rows x width)
void normalize(const float* x, std::int64_t rows, std::int64_t width, const Norm& norm, float* y);

// rotates the first num_heads * head_dim columns of x in place                   (rows x stride)
void apply_rotary(float* x, std::int64_t rows, std::int64_t stride, std::int64_t num_heads,
                  std::int64_t head_dim, const Rotary& rotary);

// one layer's keys and values, (kv_heads x capacity x head_dim) each
struct CacheView {
  float* key = nullptr;
  float* value = nullptr;
};
inline CacheView view(const CacheSegment& segment, const AttentionShape& shape) {
  auto* key = static_cast<float*>(segment.data);
  return {key, key + shape.num_kv_heads * segment.capacity * shape.head_dim};
}
void rotate_and_cache(float* qkv, const AttentionShape& shape, const Rotary& rotary, std::int64_t position,
                      const CacheSegment& segment);

// query rows that scores are held for at a time
inline constexpr std::int64_t kAttentionRows = 16;

// one head of Backend::cache_attention; y (rows x num_heads * head_dim). Where the segments part changes no bit.
void cache_attention(const float* qkv, const AttentionShape& shape, bool is_causal,
                     std::span<const CacheSegment> segments, std::int64_t head, float* y);
// one head of one window of Backend::window_attention, rotated already
void window_attention(const float* qkv, const AttentionShape& shape, std::int64_t begin, std::int64_t end,
                      std::int64_t head, float* y);

}  // namespace wallx::cpu
