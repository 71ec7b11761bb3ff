// ReferenceBackend: one loop for each operation.
// SPDX-License-Identifier: Apache-2.0
#include "backend/reference/reference_backend.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "backend/pack.hpp"

namespace wallx {
namespace {

using Values = std::vector<double>;

double read(Format format, const std::byte* at) {
  if (format == Format::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (format == Format::bf16) {
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return float_of_bf16(bits);
  }
  return static_cast<std::int8_t>(*at);
}

// row `index` as numbers
Values row_of(const Rows& rows, std::int64_t index) {
  const auto* at = static_cast<const std::byte*>(rows.data) + index * rows.stride;
  Values values;
  for (std::int64_t i = 0; i < rows.width; ++i)
    values.push_back(read(rows.format, at + i * bytes_per_weight(rows.format)) *
                     (rows.scale ? rows.scale[index] : 1.0f));
  return values;
}

void set_row(const Rows& rows, std::int64_t index, const Values& values) {
  auto* at = static_cast<std::byte*>(rows.data) + index * rows.stride;
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v));
  if (rows.format == Format::int8) rows.scale[index] = static_cast<float>(largest / 127);
  for (std::int64_t i = 0; i < rows.width; ++i) {
    const double value = values[static_cast<std::size_t>(i)];
    if (rows.format == Format::f32) {
      const auto rounded = static_cast<float>(value);
      std::memcpy(at + i * 4, &rounded, 4);
    } else if (rows.format == Format::bf16) {
      const std::uint16_t rounded = bf16_of(static_cast<float>(value));
      std::memcpy(at + i * 2, &rounded, 2);
    } else {
      at[i] = static_cast<std::byte>(
          static_cast<std::int8_t>(largest > 0 ? std::nearbyint(value * 127 / largest) : 0.0));
    }
  }
}

// weight of output `out` and input `in`; outputs are those of the panels
double weight(const Linear& layer, std::int64_t out, std::int64_t in) {
  const auto* data = static_cast<const std::byte*>(layer.weight);
  if (layer.format == Format::f32) return read(Format::f32, data + (out * layer.in + in) * 4);
  const std::int64_t size = bytes_per_weight(layer.format), group = 4 / size;
  const std::byte* panel = data + out / kPanel * panel_bytes(layer.format, layer.in);
  const std::byte* at = panel + (in / group * kPanel + out % kPanel) * 4 + in % group * size;
  return read(layer.format, at) * (layer.scale ? layer.scale[out] : 1.0f);
}

// x W^T + b for one output
double dot(const Values& x, const Linear& layer, std::int64_t out) {
  double total = layer.bias ? layer.bias[out] : 0.0f;
  for (std::int64_t i = 0; i < layer.in; ++i) total += x[static_cast<std::size_t>(i)] * weight(layer, out, i);
  return total;
}

double silu(double v) { return v / (1 + std::exp(-v)); }

double activate(Activation activation, double v) {
  if (activation == Activation::silu) return silu(v);
  if (activation == Activation::gelu) return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
  return v;
}

void rotate(float* head, std::int64_t head_dim, const float* cos, const float* sin) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const double a = head[i], b = head[i + half];
    head[i] = static_cast<float>(a * cos[i] - b * sin[i]);
    head[i + half] = static_cast<float>(b * cos[i + half] + a * sin[i + half]);
  }
}

struct Token {
  const float* key;
  const float* value;
};

// softmax(q k^T / sqrt(head_dim)) v for one query
void attend(const float* query, const std::vector<Token>& tokens, std::int64_t head_dim, double* y) {
  Values weights;
  double largest = -INFINITY, total = 0;
  for (const Token& token : tokens) {
    double score = 0;
    for (std::int64_t d = 0; d < head_dim; ++d) score += static_cast<double>(query[d]) * token.key[d];
    weights.push_back(score / std::sqrt(static_cast<double>(head_dim)));
    largest = std::max(largest, weights.back());
  }
  for (double& one : weights) total += one = std::exp(one - largest);
  std::fill_n(y, head_dim, 0.0);
  for (std::size_t t = 0; t < tokens.size(); ++t)
    for (std::int64_t d = 0; d < head_dim; ++d) y[d] += weights[t] / total * tokens[t].value[d];
}

float rounded_to(Format format, float value) {
  return format == Format::f32 ? value : float_of_bf16(bf16_of(value));
}

}  // namespace

Memory ReferenceBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!data) throw std::bad_alloc();
  std::memset(data, 0, bytes);
  return {data, bytes, [](void* at, std::size_t) { std::free(at); }};
}

std::unique_ptr<Stream> ReferenceBackend::make_stream() { return std::make_unique<Stream>(); }

void ReferenceBackend::upload(Stream&, const void* host, void* device, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}

void ReferenceBackend::download(Stream&, const void* device, void* host, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}

void ReferenceBackend::copy(Stream&, const void* from, void* to, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

void ReferenceBackend::norm(Stream&, const float* x, const Norm& norm, const Rows& y) {
  for (std::int64_t r = 0; r < y.count; ++r, x += y.width) {
    Values values(x, x + y.width);
    double squares = 0;
    for (const double v : values) squares += v * v;
    const double rms = std::sqrt(squares / static_cast<double>(y.width) + static_cast<double>(norm.eps));
    for (std::int64_t i = 0; i < y.width; ++i) {
      double& v = values[static_cast<std::size_t>(i)];
      if (norm.kind == Norm::Kind::rms) v = v / rms * norm.weight[i];
      if (norm.kind == Norm::Kind::adaptive)
        v = v / rms * (1.0 + norm.modulation[i]) + norm.modulation[y.width + i];
    }
    set_row(y, r, values);
  }
}

void ReferenceBackend::product(Stream&, const Rows& x, const Linear& layer, const Epilogue& epilogue,
                               float* y, std::int64_t y_stride) {
  if (y_stride == 0) y_stride = layer.out;
  const std::int64_t residual_stride = epilogue.residual_stride ? epilogue.residual_stride : layer.out;
  for (std::int64_t r = 0; r < x.count; ++r) {
    const Values row = row_of(x, r);
    for (std::int64_t o = 0; o < layer.out; ++o) {
      double v = activate(epilogue.activation, dot(row, layer, o));
      if (epilogue.gate) v *= epilogue.gate[o];
      if (epilogue.residual) v += epilogue.residual[r * residual_stride + o];
      y[r * y_stride + o] = static_cast<float>(v);
    }
  }
}

void ReferenceBackend::gated_product(Stream&, const Rows& x, const GatedLinear& layer, const Rows& y) {
  const bool is_packed = layer.gate.format != Format::f32;
  for (std::int64_t r = 0; r < x.count; ++r) {
    const Values row = row_of(x, r);
    Values values;
    for (std::int64_t o = 0; o < layer.out; ++o) {
      // panels alternate: gate, up
      const std::int64_t column = o / kPanel * 2 * kPanel + o % kPanel;
      const double gate = dot(row, layer.gate, is_packed ? column : o);
      const double up = is_packed ? dot(row, layer.gate, column + kPanel) : dot(row, layer.up, o);
      values.push_back(silu(gate) * up);
    }
    set_row(y, r, values);
  }
}

std::size_t ReferenceBackend::cache_bytes(Format, std::int64_t num_kv_heads, std::int64_t head_dim,
                                          std::int64_t capacity) const {
  return static_cast<std::size_t>(2 * num_kv_heads * capacity * head_dim) * sizeof(float);
}

void ReferenceBackend::rotate_and_cache(Stream&, float* qkv, const AttentionShape& shape,
                                        const Rotary& rotary, Format cache, std::int64_t position,
                                        const CacheSegment& segment) {
  const std::int64_t dim = shape.head_dim, heads = shape.num_heads + shape.num_kv_heads;
  auto* keys = static_cast<float*>(segment.data);
  float* values = keys + shape.num_kv_heads * segment.capacity * dim;
  for (std::int64_t r = 0; r < shape.rows; ++r, qkv += (heads + shape.num_kv_heads) * dim) {
    for (std::int64_t h = 0; h < heads; ++h)
      rotate(qkv + h * dim, dim, rotary.cos + r * dim, rotary.sin + r * dim);
    for (std::int64_t h = 0; h < shape.num_kv_heads; ++h)
      for (std::int64_t d = 0; d < dim; ++d) {
        const std::int64_t to = (h * segment.capacity + position + r) * dim + d;
        keys[to] = rounded_to(cache, qkv[(shape.num_heads + h) * dim + d]);
        values[to] = rounded_to(cache, qkv[(heads + h) * dim + d]);
      }
  }
}

void ReferenceBackend::cache_attention(Stream&, const float* qkv, const AttentionShape& shape, bool is_causal,
                                       Format, std::span<const CacheSegment> segments, const Rows& y) {
  const std::int64_t dim = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  for (std::int64_t r = 0; r < shape.rows; ++r, qkv += (shape.num_heads + 2 * shape.num_kv_heads) * dim) {
    Values attended(static_cast<std::size_t>(y.width));
    for (std::int64_t h = 0; h < shape.num_heads; ++h) {
      std::vector<Token> tokens;
      for (const CacheSegment& segment : segments)
        for (std::int64_t t = 0; t < segment.length; ++t) {
          const auto* key =
              static_cast<const float*>(segment.data) + (h / group * segment.capacity + t) * dim;
          tokens.push_back({key, key + shape.num_kv_heads * segment.capacity * dim});
        }
      if (is_causal) tokens.resize(tokens.size() - static_cast<std::size_t>(shape.rows - 1 - r));
      attend(qkv + h * dim, tokens, dim, attended.data() + h * dim);
    }
    set_row(y, r, attended);
  }
}

void ReferenceBackend::window_attention(Stream&, float* qkv, const AttentionShape& shape,
                                        const Rotary& rotary, Format format,
                                        std::span<const std::int32_t> offsets, const Rows& y) {
  const std::int64_t dim = shape.head_dim, width = shape.num_heads * dim;
  for (std::int64_t r = 0; r < shape.rows; ++r)
    for (std::int64_t h = 0; h < 2 * shape.num_heads; ++h)
      rotate(qkv + r * 3 * width + h * dim, dim, rotary.cos + r * dim, rotary.sin + r * dim);
  for (std::int64_t r = 0; r < shape.rows; ++r)
    for (std::int64_t i = width; i < 3 * width; ++i)
      qkv[r * 3 * width + i] = rounded_to(format, qkv[r * 3 * width + i]);
  for (std::size_t w = 1; w < offsets.size(); ++w)
    for (std::int64_t r = offsets[w - 1]; r < offsets[w]; ++r) {
      Values attended(static_cast<std::size_t>(width));
      for (std::int64_t h = 0; h < shape.num_heads; ++h) {
        std::vector<Token> tokens;
        for (std::int64_t t = offsets[w - 1]; t < offsets[w]; ++t) {
          const float* key = qkv + t * 3 * width + width + h * dim;
          tokens.push_back({key, key + width});
        }
        attend(qkv + r * 3 * width + h * dim, tokens, dim, attended.data() + h * dim);
      }
      set_row(y, r, attended);
    }
}

void ReferenceBackend::euler(Stream&, const EulerStep& step) {
  for (std::int64_t r = 0; r < step.rows; ++r)
    for (std::int64_t d = 0; d < step.dim; ++d) {
      const std::int64_t i = r * step.dim + d;
      float& x = step.x[r * step.x_stride + d];
      double v = step.velocity[i];
      if (step.does_predict_actions) v = (v - x) / std::max(1 - static_cast<double>(step.time), 0.05);
      if (step.padding) {
        const double straight = static_cast<double>(step.padding[d]) - step.noise[i];
        v = v * step.mask[i] + straight * (1.0 - step.mask[i]);
      }
      step.velocity[i] = static_cast<float>(v);
      x = static_cast<float>(x + v * step.dt);
    }
}

void ReferenceBackend::embed(Stream&, std::span<const std::int64_t> ids, Format format, const void* table,
                             std::int64_t width, float* y) {
  const std::int64_t size = bytes_per_weight(format);
  for (const std::int64_t id : ids)
    for (std::int64_t d = 0; d < width; ++d)
      *y++ = static_cast<float>(read(format, static_cast<const std::byte*>(table) + (id * width + d) * size));
}

}  // namespace wallx
