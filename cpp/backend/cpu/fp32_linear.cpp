// Fp32: matrix products with their epilogues, and the norm before them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "backend/cpu/fp32.hpp"
#include "backend/cpu/vector.hpp"

namespace wallx::cpu {
namespace {

float silu_scalar(float v) { return v / (1.0f + std::exp(-v)); }
float gelu(float v) { return 0.5f * v * (1.0f + std::erf(v * 0.70710678118654752f)); }

// a block of output stays in cache between the product and its epilogue
constexpr std::int64_t kColumns = 32;
constexpr std::int64_t kRows = 256;

// to = add + gate * activation(from + bias) over one row of a block
WALLX_CLONES void finish(const float* from, std::int64_t width, const float* bias, Activation activation,
                         const float* gate, const float* add, float* to) {
  std::int64_t c = 0;
  if (activation != Activation::gelu)
    for (; c + kLanes <= width; c += kLanes) {
      Lanes v, other;
      load(from + c, v);
      if (bias) {
        load(bias + c, other);
        v += other;
      }
      if (activation == Activation::silu) silu(v);
      if (gate) {
        load(gate + c, other);
        v *= other;
      }
      if (add) {
        load(add + c, other);
        v += other;
      }
      store(v, to + c);
    }
  for (; c < width; ++c) {
    float v = from[c] + (bias ? bias[c] : 0.0f);
    if (activation == Activation::silu) v = silu_scalar(v);
    if (activation == Activation::gelu) v = gelu(v);
    if (gate) v *= gate[c];
    to[c] = add ? v + add[c] : v;
  }
}

// to = silu(gate + gate_bias) * (up + up_bias) over one row of a block
WALLX_CLONES void finish_gated(const float* gate, const float* up, std::int64_t width, const float* gate_bias,
                               const float* up_bias, float* to) {
  std::int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    Lanes g, u, other;
    load(gate + c, g);
    load(up + c, u);
    if (gate_bias) {
      load(gate_bias + c, other);
      g += other;
    }
    if (up_bias) {
      load(up_bias + c, other);
      u += other;
    }
    silu(g);
    store(g * u, to + c);
  }
  for (; c < width; ++c) {
    const float g = gate[c] + (gate_bias ? gate_bias[c] : 0.0f);
    const float u = up[c] + (up_bias ? up_bias[c] : 0.0f);
    to[c] = silu_scalar(g) * u;
  }
}

const float* at(const float* bias, std::int64_t column) { return bias ? bias + column : nullptr; }

float inverse_rms(const float* row, std::int64_t width, float eps) {
  double sum_squares = 0;
  for (std::int64_t i = 0; i < width; ++i) sum_squares += static_cast<double>(row[i]) * row[i];
  return 1.0f / std::sqrt(static_cast<float>(sum_squares / static_cast<double>(width)) + eps);
}

}  // namespace

void linear(const float* x, std::int64_t rows, const Dense& layer, const Epilogue& epilogue, float* y,
            std::int64_t y_stride) {
  const std::int64_t residual_stride = epilogue.residual_stride ? epilogue.residual_stride : layer.out;
  thread_local float block[kColumns * kRows];
  for (std::int64_t r0 = 0; r0 < rows; r0 += kRows) {
    const std::int64_t num = std::min(kRows, rows - r0);
    for (std::int64_t c0 = 0; c0 < layer.out; c0 += kColumns) {
      const std::int64_t width = std::min(kColumns, layer.out - c0);
      product(x + r0 * layer.in, layer.in, num, layer.weight + c0 * layer.in, layer.in, width, layer.in,
              block, kColumns);
      for (std::int64_t r = 0; r < num; ++r)
        finish(block + r * kColumns, width, at(layer.bias, c0), epilogue.activation, at(epilogue.gate, c0),
               at(epilogue.residual, (r0 + r) * residual_stride + c0), y + (r0 + r) * y_stride + c0);
    }
  }
}

void gated_linear(const float* x, std::int64_t rows, const Dense& gate, const Dense& up, float* y,
                  std::int64_t y_stride) {
  thread_local float block[2][kColumns * kRows];
  for (std::int64_t r0 = 0; r0 < rows; r0 += kRows) {
    const std::int64_t num = std::min(kRows, rows - r0);
    for (std::int64_t c0 = 0; c0 < gate.out; c0 += kColumns) {
      const std::int64_t width = std::min(kColumns, gate.out - c0);
      const Dense* layers[2] = {&gate, &up};
      for (int i = 0; i < 2; ++i)
        product(x + r0 * gate.in, gate.in, num, layers[i]->weight + c0 * gate.in, gate.in, width, gate.in,
                block[i], kColumns);
      for (std::int64_t r = 0; r < num; ++r)
        finish_gated(block[0] + r * kColumns, block[1] + r * kColumns, width, at(gate.bias, c0),
                     at(up.bias, c0), y + (r0 + r) * y_stride + c0);
    }
  }
}

void normalize(const float* x, std::int64_t rows, std::int64_t width, const Norm& norm, float* y) {
  const float *weight = norm.weight, *scale_by = norm.modulation;
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    if (norm.kind == Norm::Kind::none) {
      std::copy_n(x, width, y);
      continue;
    }
    const float scale = inverse_rms(x, width, norm.eps);
    if (norm.kind == Norm::Kind::rms) {
      for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
    } else {
      for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * (1.0f + scale_by[i]) + scale_by[width + i];
    }
  }
}

}  // namespace wallx::cpu
