// PackedAttention: scores, softmax and weighted sums of a tile of queries.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/packed_attention.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "backend/cpu/packed_rows.hpp"
#include "backend/cpu/vector.hpp"

namespace wallx::cpu {
namespace {

constexpr std::int64_t kPairs = 2 * kPanel;

template <class T>
T* aligned(std::vector<T>& buffer, std::int64_t size) {
  const std::size_t room = static_cast<std::size_t>(size) + 64 / sizeof(T);
  if (buffer.size() < room) buffer.resize(room);
  const auto at = reinterpret_cast<std::uintptr_t>(buffer.data());
  return reinterpret_cast<T*>((at + 63) / 64 * 64);
}

std::uint16_t bf16_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// weights of one query over a part: exp(scale (score - largest)) as bf16, zeros from `seen` to `padded`; returns
// their sum. Scores stand in blocks of `block` floats, 2 kPanel a query.
WALLX_CLONES float exponentials(const float* scores, std::int64_t block, std::int64_t seen,
                                std::int64_t padded, float scale, float largest, std::uint16_t* weights) {
  Lanes total{};
  for (std::int64_t t = 0; t < padded; t += kLanes) {
    Lanes v;
    load(scores + t / kPairs * block + t % kPairs, v);
    v = (v - largest) * scale;
    exponential(v);
    if (seen - t < kLanes)
      for (std::int64_t i = std::max<std::int64_t>(0, seen - t); i < kLanes; ++i) v[i] = 0;
    total += v;
    float values[kLanes];
    store(v, values);
    to_bf16(values, kLanes, kLanes, weights + t);
  }
  return sum(total);
}

WALLX_CLONES float largest_score(const float* scores, std::int64_t block, std::int64_t seen) {
  Lanes largest = Lanes{} - INFINITY;
  float rest = -INFINITY;
  std::int64_t t = 0;
  for (; t + kLanes <= seen; t += kLanes) {
    Lanes v;
    load(scores + t / kPairs * block + t % kPairs, v);
    largest = v > largest ? v : largest;
  }
  for (; t < seen; ++t) rest = std::max(rest, scores[t / kPairs * block + t % kPairs]);
  float values[kLanes];
  store(largest, values);
  return std::max(rest, *std::max_element(values, values + kLanes));
}

WALLX_CLONES void add_columns(const float* sums, std::int64_t width, float factor, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Lanes v, other;
    load(sums + i, v);
    load(y + i, other);
    v = other + v * factor;
    store(v, y + i);
  }
  for (; i < width; ++i) y[i] += sums[i] * factor;
}

}  // namespace

std::int64_t packed_keys_bytes(std::int64_t head_dim, std::int64_t capacity) {
  return capacity / kPanel * panel_bytes(Format::bf16, head_dim);
}

std::int64_t packed_values_bytes(std::int64_t head_dim, std::int64_t capacity) {
  return (head_dim + kPanel - 1) / kPanel * panel_bytes(Format::bf16, capacity);
}

PackedHead packed_head(const CacheSegment& segment, std::int64_t head_dim, std::int64_t head) {
  const std::int64_t keys = packed_keys_bytes(head_dim, segment.capacity);
  const std::int64_t values = packed_values_bytes(head_dim, segment.capacity);
  auto* data = static_cast<std::byte*>(segment.data) + head * (keys + values);
  return {data, data + keys, segment.capacity, segment.length};
}

void write_token(const PackedHead& head, std::int64_t at, std::int64_t head_dim, const float* key,
                 const float* value) {
  auto* panel = reinterpret_cast<std::uint16_t*>(head.keys + at / kPanel * panel_bytes(Format::bf16, head_dim));
  for (std::int64_t d = 0; d < head_dim; ++d)
    panel[(d / 2 * kPanel + at % kPanel) * 2 + d % 2] = bf16_of(key[d]);
  const std::int64_t stride = panel_bytes(Format::bf16, head.capacity);
  for (std::int64_t d = 0; d < head_dim; ++d) {
    auto* values = reinterpret_cast<std::uint16_t*>(head.values + d / kPanel * stride);
    values[(at / 2 * kPanel + d % kPanel) * 2 + at % 2] = bf16_of(value[d]);
  }
}

void clear_values(const PackedHead& head, std::int64_t begin, std::int64_t head_dim) {
  constexpr std::int64_t kPair = kPanel * 4;  // bytes of two tokens
  const std::int64_t stride = panel_bytes(Format::bf16, head.capacity);
  const std::int64_t pair = (begin + 1) / 2, end = round_up(begin, kPanel) / 2;
  for (std::int64_t d = 0; d < head_dim; d += kPanel) {
    std::byte* values = head.values + d / kPanel * stride;
    if (begin % 2)
      for (std::int64_t c = 0; c < kPanel; ++c) std::memset(values + begin / 2 * kPair + 4 * c + 2, 0, 2);
    std::memset(values + pair * kPair, 0, static_cast<std::size_t>((end - pair) * kPair));
  }
}

WALLX_CLONES void rotate_head(const float* head, std::int64_t head_dim, const float* cos, const float* sin,
                              float* out) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    out[i] = a * cos[i] - b * sin[i];
    out[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

void attend(const Kernels& kernels, const QueryTile& tile, std::int64_t head_dim,
            std::span<const PackedHead> parts) {
  thread_local std::vector<std::uint16_t> query_buffer, weight_buffer;
  thread_local std::vector<float> score_buffer, sum_buffer;
  const std::int64_t depth = round_up(head_dim, kDepth), most = tile.visible[tile.rows - 1];
  const int rows = tile.rows;
  const std::int64_t block = rows * kPairs;  // scores of one pair of panels
  std::int64_t num_blocks = 0, num_weights = 0;
  for (const PackedHead& part : parts) {
    num_blocks += (part.length + kPairs - 1) / kPairs;
    num_weights += round_up(part.length, kPanel);
  }
  std::uint16_t* queries = aligned(query_buffer, rows * depth);
  std::uint16_t* weights = aligned(weight_buffer, rows * num_weights);
  float* scores = aligned(score_buffer, num_blocks * block);
  float* sums = aligned(sum_buffer, block);
  for (int r = 0; r < rows; ++r) to_bf16(tile.queries[r], head_dim, depth, queries + r * depth);

  Tile product;
  product.rows = reinterpret_cast<const std::byte*>(queries);
  product.stride = depth * 2;
  product.groups = depth / 2;
  const std::int64_t key_panel = panel_bytes(Format::bf16, head_dim);
  std::int64_t first = 0;
  float* to = scores;
  for (const PackedHead& part : parts) {
    const std::int64_t seen = std::clamp<std::int64_t>(most - first, 0, part.length);
    for (std::int64_t t = 0; t < seen; t += kPairs, to += block) {
      product.first = part.keys + t / kPanel * key_panel;
      product.second = t + kPanel < part.capacity ? product.first + key_panel : product.first;
      product.sums = to;
      kernels.bf16_tiles[rows](product);
    }
    first += part.length;
  }

  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  float inverse[kMaxTileRows];
  for (int r = 0; r < rows; ++r) {
    float largest = -INFINITY, total = 0;
    for (const bool is_second : {false, true}) {
      first = 0;
      const float* from = scores + r * kPairs;
      std::uint16_t* weight = weights + r * num_weights;
      for (const PackedHead& part : parts) {
        const std::int64_t all = std::clamp<std::int64_t>(most - first, 0, part.length);
        const std::int64_t seen = std::clamp<std::int64_t>(tile.visible[r] - first, 0, part.length);
        if (!is_second) {
          largest = std::max(largest, largest_score(from, block, seen));
        } else {
          total += exponentials(from, block, seen, round_up(all, kPanel), scale, largest, weight);
        }
        from += (all + kPairs - 1) / kPairs * block;
        weight += round_up(part.length, kPanel);
        first += part.length;
      }
    }
    inverse[r] = 1.0f / total;
    std::fill_n(tile.outputs[r], head_dim, 0.0f);
  }

  product.stride = num_weights * 2;
  product.sums = sums;
  first = 0;
  std::int64_t weight = 0;
  for (const PackedHead& part : parts) {
    const std::int64_t all = std::clamp<std::int64_t>(most - first, 0, part.length);
    const std::int64_t value_panel = panel_bytes(Format::bf16, part.capacity);
    product.rows = reinterpret_cast<const std::byte*>(weights + weight);
    product.groups = round_up(all, kPanel) / 2;
    for (std::int64_t d = 0; d < head_dim && all > 0; d += kPairs) {
      product.first = part.values + d / kPanel * value_panel;
      product.second = d + kPanel < head_dim ? product.first + value_panel : product.first;
      kernels.bf16_tiles[rows](product);
      for (int r = 0; r < rows; ++r)
        add_columns(sums + r * kPairs, std::min(kPairs, head_dim - d), inverse[r], tile.outputs[r] + d);
    }
    weight += round_up(part.length, kPanel);
    first += part.length;
  }
}

}  // namespace wallx::cpu
