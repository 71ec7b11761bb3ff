// PackedRows: norms, roundings and epilogues, a row or a tile at a time.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/packed_rows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/vector.hpp"

namespace wallx::cpu {
namespace {

WALLX_INLINE void magnitude(const Lanes& lanes, Lanes& out) {
  WordLanes bits;
  std::memcpy(&bits, &lanes, sizeof bits);
  bits &= 0x7FFFFFFF;
  std::memcpy(&out, &bits, sizeof bits);
}

// of magnitudes. Their bits as integers have their order, with NaN above all: it must not get lost.
WALLX_INLINE float largest_lane(const Lanes& lanes) {
  std::int32_t values[kLanes];
  std::memcpy(values, &lanes, sizeof values);
  return std::bit_cast<float>(*std::max_element(values, values + kLanes));
}

// 0.5 x (1 + erf(x / sqrt 2)); erf to 1.5e-7 by Abramowitz and Stegun, formula 7.1.26
WALLX_INLINE void gelu(Lanes& x) {
  Lanes z = x * 0.70710678118654752f;
  Lanes size;
  magnitude(z, size);
  const Lanes t = 1.0f / (1.0f + 0.3275911f * size);
  Lanes e = -size * size;
  exponential(e);
  Lanes p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Lanes erf = 1.0f - p * t * e;
  x = 0.5f * x * (1.0f + (z < 0.0f ? -erf : erf));
}

WALLX_INLINE void load_sums(const void* sums, bool is_int, std::int64_t at, Lanes& out) {
  if (is_int) {
    IntLanes whole;
    std::memcpy(&whole, static_cast<const std::int32_t*>(sums) + at, sizeof whole);
    out = __builtin_convertvector(whole, Lanes);
  } else {
    load(static_cast<const float*>(sums) + at, out);
  }
}

// sums * scales + bias of one panel of one row
WALLX_INLINE void scaled(const void* sums, const Finish& finish, int row, std::int64_t panel, Lanes& out) {
  load_sums(sums, finish.is_int, row * 2 * kPanel + panel * kPanel, out);
  Lanes other;
  if (finish.scale) {
    load(finish.scale + panel * kPanel, other);
    if (finish.row_scale) other *= finish.row_scale[row];
    out *= other;
  }
  if (finish.bias) {
    load(finish.bias + panel * kPanel, other);
    out += other;
  }
}

}  // namespace

WALLX_CLONES void normalize_row(const float* x, std::int64_t width, const Norm& norm, float* y) {
  Lanes squares{};
  for (std::int64_t i = 0; i < width; i += kLanes) {
    Lanes v;
    load_up_to(x + i, width - i, v);
    squares += v * v;
  }
  const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + norm.eps);
  for (std::int64_t i = 0; i < width; i += kLanes) {
    Lanes v, w;
    load_up_to(x + i, width - i, v);
    v *= scale;
    if (norm.kind == Norm::Kind::rms) {
      load_up_to(norm.weight + i, width - i, w);
      v *= w;
    } else {
      load_up_to(norm.modulation + i, width - i, w);
      v *= 1.0f + w;
      load_up_to(norm.modulation + width + i, width - i, w);
      v += w;
    }
    store_up_to(v, width - i, y + i);
  }
}

float larger_magnitude(float a, float b) {
  return std::bit_cast<float>(std::max(std::bit_cast<std::int32_t>(a), std::bit_cast<std::int32_t>(b)));
}

WALLX_CLONES float largest_magnitude(const float* x, std::int64_t width) {
  IntLanes largest{};
  for (std::int64_t i = 0; i < width; i += kLanes) {
    Lanes v, size;
    load_up_to(x + i, width - i, v);
    magnitude(v, size);
    IntLanes bits;
    std::memcpy(&bits, &size, sizeof bits);
    largest = bits > largest ? bits : largest;
  }
  Lanes lanes;
  std::memcpy(&lanes, &largest, sizeof lanes);
  return largest_lane(lanes);
}

WALLX_CLONES void to_bf16(const float* x, std::int64_t width, std::int64_t padded, std::uint16_t* y) {
  for (std::int64_t i = 0; i < padded; i += kLanes) {
    Lanes v{};
    if (i < width) load_up_to(x + i, width - i, v);
    HalfLanes out;
    round_bf16(v, out);
    std::memcpy(y + i, &out, sizeof out);
  }
}

WALLX_CLONES void to_int8(const float* x, std::int64_t width, std::int64_t padded, float scale,
                          std::uint8_t offset, std::uint8_t* y) {
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to nearest even
  for (std::int64_t i = 0; i < padded; i += kLanes) {
    Lanes v{};
    if (i < width) load_up_to(x + i, width - i, v);
    const Lanes shifted = v * inverse + to_integer;
    WordLanes bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const ByteLanes out = __builtin_convertvector(bits + offset, ByteLanes);
    std::memcpy(y + i, &out, sizeof out);
  }
}

void to_row(const float* x, float largest, std::uint8_t offset, std::int64_t index, const Rows& y) {
  auto* to = static_cast<std::byte*>(y.data) + index * y.stride;
  const std::int64_t padded = round_up(y.width, kDepth);
  if (y.format == Format::f32) {
    std::copy_n(x, y.width, reinterpret_cast<float*>(to));
  } else if (y.format == Format::bf16) {
    to_bf16(x, y.width, padded, reinterpret_cast<std::uint16_t*>(to));
  } else {
    if (largest < 0) largest = largest_magnitude(x, y.width);
    const float scale = largest / 127.0f;
    to_int8(x, y.width, padded, scale, offset, reinterpret_cast<std::uint8_t*>(to));
    y.scale[index] = scale;
  }
}

WALLX_CLONES void finish_tile(const void* sums, int rows, std::int64_t width, const Finish& finish, float* y,
                              std::int64_t y_stride) {
  for (int r = 0; r < rows; ++r)
    for (std::int64_t panel = 0; panel < 2 && panel * kPanel < width; ++panel) {
      const std::int64_t at = panel * kPanel, count = width - at;
      Lanes v, other;
      scaled(sums, finish, r, panel, v);
      if (finish.activation == Activation::silu) silu(v);
      if (finish.activation == Activation::gelu) gelu(v);
      if (finish.gate) {
        load_up_to(finish.gate + at, count, other);
        v *= other;
      }
      if (finish.residual) {
        load_up_to(finish.residual + r * finish.residual_stride + at, count, other);
        v += other;
      }
      store_up_to(v, count, y + r * y_stride + at);
    }
}

WALLX_CLONES void finish_gated_tile(const void* sums, int rows, std::int64_t width, const Finish& finish,
                                    float* y, std::int64_t y_stride, float* largest) {
  for (int r = 0; r < rows; ++r) {
    Lanes gate, up, size;
    scaled(sums, finish, r, 0, gate);
    scaled(sums, finish, r, 1, up);
    silu(gate);
    gate *= up;
    store_up_to(gate, width, y + r * y_stride);
    magnitude(gate, size);
    // compared as integers, which keeps NaN: it is the largest
    IntLanes bits, most;
    std::memcpy(&bits, &size, sizeof bits);
    std::memcpy(&most, largest + r * kLanes, sizeof most);
    most = bits > most ? bits : most;
    std::memcpy(largest + r * kLanes, &most, sizeof most);
  }
}

WALLX_CLONES void widen_panels(const std::byte* panels, std::int64_t groups, std::byte* out) {
  // integers up to 256 are exact in bf16: the upper half of fp32
  for (std::int64_t g = 0; g < 2 * groups; ++g) {
    IntLanes inputs;  // four of each output
    std::memcpy(&inputs, panels + g * 64, sizeof inputs);
    // a group of four inputs becomes two of two
    for (int shift = 0; shift < 32; shift += 16) {
      const Lanes first = __builtin_convertvector((inputs << (24 - shift)) >> 24, Lanes);
      const Lanes second = __builtin_convertvector((inputs << (16 - shift)) >> 24, Lanes);
      WordLanes lower, upper;
      std::memcpy(&lower, &first, sizeof lower);
      std::memcpy(&upper, &second, sizeof upper);
      const WordLanes pairs = lower >> 16 | (upper & 0xFFFF0000u);
      std::memcpy(out + g * 128 + shift * 4, &pairs, sizeof pairs);
    }
  }
}

}  // namespace wallx::cpu
