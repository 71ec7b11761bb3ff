// Fp32: rotary embedding, the cache, and softmax attention over a cache or inside segments.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/fp32.hpp"
#include "backend/cpu/vector.hpp"

namespace wallx::cpu {
namespace {

void rotate_head(float* head, std::int64_t head_dim, const float* cos, const float* sin) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

// one head's keys and values in one place, rows `stride` apart
struct Keys {
  const float* key;
  const float* value;
  std::int64_t stride;
  std::int64_t length;
};

// scores[0, length) = softmax(scale * scores)
WALLX_CLONES void softmax(float* scores, std::int64_t length, float scale) {
  float largest = -INFINITY;
  for (std::int64_t t = 0; t < length; ++t) largest = std::max(largest, scores[t]);
  const float shift = largest * scale;
  Lanes totals{};
  std::int64_t t = 0;
  for (; t + kLanes <= length; t += kLanes) {
    Lanes v;
    load(scores + t, v);
    v = v * scale - shift;
    exponential(v);
    totals += v;
    store(v, scores + t);
  }
  float total = sum(totals);
  for (; t < length; ++t) {
    scores[t] = std::exp(scores[t] * scale - shift);
    total += scores[t];
  }
  const float inverse = 1.0f / total;
  for (t = 0; t < length; ++t) scores[t] *= inverse;
}

// y[r] = sum over t of weight[r][t] value[t], Rows rows at a time so that a value is loaded once for them
template <int Rows>
WALLX_INLINE void weigh(const float* weights, std::int64_t length, std::span<const Keys> parts,
                        std::int64_t head_dim, float* y, std::int64_t y_stride) {
  for (std::int64_t d = 0; d < head_dim; d += kLanes) {
    const std::int64_t width = std::min(kLanes, head_dim - d);
    Lanes acc[Rows] = {};
    std::int64_t first = 0;
    for (const Keys& part : parts) {
      const std::int64_t num = std::min(part.length, length - first);
      for (std::int64_t t = 0; t < num; ++t) {
        Lanes v;
        const float* value = part.value + t * part.stride + d;
        if (width == kLanes) {
          load(value, v);
        } else {
          load_part(value, width, v);
        }
        for (int r = 0; r < Rows; ++r) acc[r] += weights[r * length + first + t] * v;
      }
      first += num;
    }
    for (int r = 0; r < Rows; ++r) {
      float sums[kLanes];
      store(acc[r], sums);
      std::copy_n(sums, width, y + r * y_stride + d);
    }
  }
}

WALLX_CLONES void weigh_all(const float* weights, std::int64_t rows, std::int64_t length, const Keys* parts,
                            std::size_t num_parts, std::int64_t head_dim, float* y, std::int64_t y_stride) {
  const std::span<const Keys> all(parts, num_parts);
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    weigh<4>(weights + r * length, length, all, head_dim, y + r * y_stride, y_stride);
  for (; r < rows; ++r) weigh<1>(weights + r * length, length, all, head_dim, y + r * y_stride, y_stride);
}

// softmax(q k^T / sqrt(head_dim)) v of one head; row r sees the first `visible` keys, or with is_causal
// visible + r. scratch (kAttentionRows x all keys)
void attend(const float* q, std::int64_t q_stride, std::int64_t rows, std::span<const Keys> parts,
            std::int64_t head_dim, std::int64_t visible, bool is_causal, float* scratch, float* y,
            std::int64_t y_stride) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (std::int64_t first = 0; first < rows; first += kAttentionRows) {
    const std::int64_t num = std::min(kAttentionRows, rows - first);
    const std::int64_t length = visible + (is_causal ? first + num - 1 : 0);
    std::int64_t at = 0;
    for (const Keys& part : parts) {
      const std::int64_t seen = std::min(part.length, length - at);
      product(q + first * q_stride, q_stride, num, part.key, part.stride, seen, head_dim, scratch + at,
              length);
      at += seen;
    }
    for (std::int64_t r = 0; r < num; ++r) {
      const std::int64_t seen = is_causal ? visible + first + r : length;
      softmax(scratch + r * length, seen, scale);
      std::fill(scratch + r * length + seen, scratch + (r + 1) * length, 0.0f);
    }
    weigh_all(scratch, num, length, parts.data(), parts.size(), head_dim, y + first * y_stride, y_stride);
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

void rotate_and_cache(float* qkv, const AttentionShape& shape, const Rotary& rotary, std::int64_t position,
                      const CacheSegment& segment) {
  const std::int64_t dim = shape.head_dim;
  const std::int64_t stride = (shape.num_heads + 2 * shape.num_kv_heads) * dim;
  const CacheView cache = view(segment, shape);
  apply_rotary(qkv, shape.rows, stride, shape.num_heads + shape.num_kv_heads, dim, rotary);
  for (std::int64_t r = 0; r < shape.rows; ++r)
    for (std::int64_t h = 0; h < shape.num_kv_heads; ++h) {
      const float* key = qkv + r * stride + (shape.num_heads + h) * dim;
      const float* value = key + shape.num_kv_heads * dim;
      const std::int64_t at = (h * segment.capacity + position + r) * dim;
      std::copy_n(key, dim, cache.key + at);
      std::copy_n(value, dim, cache.value + at);
    }
}

void cache_attention(const float* qkv, const AttentionShape& shape, bool is_causal,
                     std::span<const CacheSegment> segments, std::int64_t head, float* y) {
  const std::int64_t dim = shape.head_dim;
  const std::int64_t stride = (shape.num_heads + 2 * shape.num_kv_heads) * dim;
  thread_local std::vector<Keys> parts;
  thread_local std::vector<float> scores;
  parts.clear();
  std::int64_t length = 0;
  for (const CacheSegment& segment : segments) {
    const std::int64_t plane = head / (shape.num_heads / shape.num_kv_heads) * segment.capacity * dim;
    const CacheView cache = view(segment, shape);
    parts.push_back({cache.key + plane, cache.value + plane, dim, segment.length});
    length += segment.length;
  }
  scores.resize(static_cast<std::size_t>(kAttentionRows * length));
  attend(qkv + head * dim, stride, shape.rows, parts, dim, is_causal ? length - shape.rows + 1 : length,
         is_causal, scores.data(), y + head * dim, shape.num_heads * dim);
}

void window_attention(const float* qkv, const AttentionShape& shape, std::int64_t begin, std::int64_t end,
                      std::int64_t head, float* y) {
  const std::int64_t width = shape.num_heads * shape.head_dim, length = end - begin;
  thread_local std::vector<float> scores;
  scores.resize(static_cast<std::size_t>(kAttentionRows * length));
  const float* q = qkv + begin * 3 * width + head * shape.head_dim;
  const Keys keys{q + width, q + 2 * width, 3 * width, length};
  attend(q, 3 * width, length, {&keys, 1}, shape.head_dim, length, false, scores.data(),
         y + begin * width + head * shape.head_dim, width);
}

}  // namespace wallx::cpu
