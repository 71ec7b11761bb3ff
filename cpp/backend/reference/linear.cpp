// Linear: fp32 matrix products with their epilogues.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/ops.hpp"

// one binary, the widest vectors the processor has
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define WALLX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WALLX_CLONES
#endif

namespace wallx {
namespace {

constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// vectors go by reference: by value their ABI would depend on the processor
inline __attribute__((always_inline)) void load(const float* from, Lanes& lanes) {
  std::memcpy(&lanes, from, sizeof lanes);
}

inline __attribute__((always_inline)) float sum(const Lanes& lanes) {
  float total[kLanes];
  std::memcpy(total, &lanes, sizeof total);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) total[i] += total[i + width];
  return total[0];
}

// out[r][c] = x[r] . w[c] over `depth`; each row of w is read from memory once per block of x rows
template <int Rows, int Columns>
inline __attribute__((always_inline)) void dot_block(const float* x, const float* w, std::int64_t depth,
                                                     float* out, std::int64_t out_stride) {
  Lanes acc[Rows][Columns] = {};
  std::int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    Lanes b[Columns];
    for (int c = 0; c < Columns; ++c) load(w + c * depth + k, b[c]);
    for (int r = 0; r < Rows; ++r) {
      Lanes a;
      load(x + r * depth + k, a);
      for (int c = 0; c < Columns; ++c) acc[r][c] += a * b[c];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Columns; ++c) {
      float total = sum(acc[r][c]);
      for (std::int64_t i = k; i < depth; ++i) total += x[r * depth + i] * w[c * depth + i];
      out[r * out_stride + c] = total;
    }
}

template <int Columns>
inline __attribute__((always_inline)) void dot_columns(const float* x, std::int64_t rows, const float* w,
                                                       std::int64_t depth, float* out,
                                                       std::int64_t out_stride) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    dot_block<4, Columns>(x + r * depth, w, depth, out + r * out_stride, out_stride);
  for (; r < rows; ++r) dot_block<1, Columns>(x + r * depth, w, depth, out + r * out_stride, out_stride);
}

// y = x W^T, columns outermost so that W streams through once
WALLX_CLONES void product(const float* x, std::int64_t rows, const float* weight, std::int64_t out,
                          std::int64_t in, float* y) {
  std::int64_t c = 0;
  for (; c + 4 <= out; c += 4) dot_columns<4>(x, rows, weight + c * in, in, y + c, out);
  for (; c < out; ++c) dot_columns<1>(x, rows, weight + c * in, in, y + c, out);
}

inline float silu(float v) { return v / (1.0f + std::exp(-v)); }
inline float gelu(float v) { return 0.5f * v * (1.0f + std::erf(v * 0.70710678118654752f)); }

// columns of a block of output that stay in cache between the product and its epilogue
constexpr std::int64_t kBlock = 32;

}  // namespace

void linear(const float* x, std::int64_t rows, const Linear& layer, Activation activation,
            const float* residual, float* y, std::int64_t y_stride) {
  if (y_stride == 0) y_stride = layer.out;
  thread_local float block[kBlock * 256];
  for (std::int64_t r0 = 0; r0 < rows; r0 += 256) {
    const std::int64_t num = std::min<std::int64_t>(256, rows - r0);
    for (std::int64_t c0 = 0; c0 < layer.out; c0 += kBlock) {
      const std::int64_t width = std::min(kBlock, layer.out - c0);
      product(x + r0 * layer.in, num, layer.weight + c0 * layer.in, width, layer.in, block);
      for (std::int64_t r = 0; r < num; ++r) {
        float* to = y + (r0 + r) * y_stride + c0;
        const float* add = residual ? residual + (r0 + r) * layer.out + c0 : nullptr;
        for (std::int64_t c = 0; c < width; ++c) {
          float v = block[r * width + c] + (layer.bias ? layer.bias[c0 + c] : 0.0f);
          if (activation == Activation::silu) v = silu(v);
          if (activation == Activation::gelu) v = gelu(v);
          to[c] = add ? v + add[c] : v;
        }
      }
    }
  }
}

void gated_linear(const float* x, std::int64_t rows, const Linear& gate, const Linear& up, float* y) {
  thread_local float block[2][kBlock * 256];
  for (std::int64_t r0 = 0; r0 < rows; r0 += 256) {
    const std::int64_t num = std::min<std::int64_t>(256, rows - r0);
    for (std::int64_t c0 = 0; c0 < gate.out; c0 += kBlock) {
      const std::int64_t width = std::min(kBlock, gate.out - c0);
      product(x + r0 * gate.in, num, gate.weight + c0 * gate.in, width, gate.in, block[0]);
      product(x + r0 * up.in, num, up.weight + c0 * up.in, width, up.in, block[1]);
      for (std::int64_t r = 0; r < num; ++r)
        for (std::int64_t c = 0; c < width; ++c) {
          const float g = block[0][r * width + c] + (gate.bias ? gate.bias[c0 + c] : 0.0f);
          const float u = block[1][r * width + c] + (up.bias ? up.bias[c0 + c] : 0.0f);
          y[(r0 + r) * gate.out + c0 + c] = silu(g) * u;
        }
    }
  }
}

void rms_norm(const float* x, std::int64_t rows, std::int64_t width, const float* weight, float eps,
              float* y) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* from = x + r * width;
    double sum_squares = 0;
    for (std::int64_t i = 0; i < width; ++i) sum_squares += static_cast<double>(from[i]) * from[i];
    const float scale = 1.0f / std::sqrt(static_cast<float>(sum_squares / static_cast<double>(width)) + eps);
    for (std::int64_t i = 0; i < width; ++i) y[r * width + i] = from[i] * scale * weight[i];
  }
}

}  // namespace wallx
