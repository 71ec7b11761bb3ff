// Attention: rotary embedding, the cache, and softmax attention over a cache or inside segments.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "backend/ops.hpp"

namespace wallx {
namespace {

void rotate_head(float* head, std::int64_t head_dim, const float* cos, const float* sin) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

// eight partial sums let the compiler use vectors without reordering a float sum by itself
float dot(const float* a, const float* b, std::int64_t n) {
  float partial[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int lane = 0; lane < 8; ++lane) partial[lane] += a[i + lane] * b[i + lane];
  float total = 0;
  for (float lane : partial) total += lane;
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

// y = softmax(scale * q k^T) v for one query and one head; k and v rows are `stride` apart
void attend(const float* q, const float* key, const float* value, std::int64_t stride, std::int64_t length,
            std::int64_t head_dim, float scale, float* scores, float* y) {
  float largest = -INFINITY;
  for (std::int64_t t = 0; t < length; ++t) {
    scores[t] = scale * dot(q, key + t * stride, head_dim);
    largest = std::max(largest, scores[t]);
  }
  float total = 0;
  for (std::int64_t t = 0; t < length; ++t) {
    scores[t] = std::exp(scores[t] - largest);
    total += scores[t];
  }
  const float inverse = 1.0f / total;
  std::fill_n(y, head_dim, 0.0f);
  for (std::int64_t t = 0; t < length; ++t) {
    const float weight = scores[t] * inverse;
    const float* from = value + t * stride;
    for (std::int64_t i = 0; i < head_dim; ++i) y[i] += weight * from[i];
  }
}

}  // namespace

void apply_rotary(float* x, std::int64_t rows, std::int64_t stride, std::int64_t num_heads,
                  std::int64_t head_dim, const Rotary& rotary) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t h = 0; h < num_heads; ++h)
      rotate_head(x + r * stride + h * head_dim, head_dim, rotary.cos + r * head_dim,
                  rotary.sin + r * head_dim);
}

void rotate_and_cache(float* qkv, std::int64_t rows, std::int64_t num_heads, const Rotary& rotary,
                      std::int64_t position, const CacheView& cache) {
  const std::int64_t dim = cache.head_dim;
  const std::int64_t stride = (num_heads + 2 * cache.num_kv_heads) * dim;
  apply_rotary(qkv, rows, stride, num_heads + cache.num_kv_heads, dim, rotary);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t h = 0; h < cache.num_kv_heads; ++h) {
      const float* key = qkv + r * stride + (num_heads + h) * dim;
      const float* value = key + cache.num_kv_heads * dim;
      const std::int64_t at = (h * cache.capacity + position + r) * dim;
      std::copy_n(key, dim, cache.key + at);
      std::copy_n(value, dim, cache.value + at);
    }
}

void cache_attention(const float* qkv, const CacheAttention& shape, const CacheView& cache, float* scratch,
                     float* y) {
  const std::int64_t dim = cache.head_dim;
  const std::int64_t stride = (shape.num_heads + 2 * cache.num_kv_heads) * dim;
  const std::int64_t heads_per_kv = shape.num_heads / cache.num_kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (std::int64_t h = 0; h < shape.num_heads; ++h) {
    const std::int64_t base = h / heads_per_kv * cache.capacity * dim;
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      const std::int64_t length = shape.position + (shape.is_causal ? r + 1 : shape.rows);
      attend(qkv + r * stride + h * dim, cache.key + base, cache.value + base, dim, length, dim, scale,
             scratch, y + (r * shape.num_heads + h) * dim);
    }
  }
}

void segment_attention(const float* qkv, const std::int32_t* offsets, std::int64_t num_segments,
                       std::int64_t num_heads, std::int64_t head_dim, float* scratch, float* y) {
  const std::int64_t width = num_heads * head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (std::int64_t s = 0; s < num_segments; ++s) {
    const std::int64_t begin = offsets[s], length = offsets[s + 1] - offsets[s];
    for (std::int64_t h = 0; h < num_heads; ++h)
      for (std::int64_t r = begin; r < begin + length; ++r) {
        const float* first = qkv + begin * 3 * width + h * head_dim;
        attend(qkv + r * 3 * width + h * head_dim, first + width, first + 2 * width, 3 * width, length,
               head_dim, scale, scratch, y + r * width + h * head_dim);
      }
  }
}

}  // namespace wallx
