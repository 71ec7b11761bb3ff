// PackedRows: single rows on their way into and out of packed products.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "backend/backend.hpp"

namespace wallx::cpu {

// one row of backend norms, fp32 sums                                            (width)
void normalize_row(const float* x, std::int64_t width, const Norm& norm, float* y);
// NaN where there is one, so that a row's scale, and with it the row's products, are NaN too
float largest_magnitude(const float* x, std::int64_t width);
float larger_magnitude(float a, float b);  // of magnitudes, not below 0
// round to nearest even; zeros up to `padded`
void to_bf16(const float* x, std::int64_t width, std::int64_t padded, std::uint16_t* y);
// round(x / scale), from -127 to 127, plus `offset`; padding is `offset`
void to_int8(const float* x, std::int64_t width, std::int64_t padded, float scale, std::uint8_t offset,
             std::uint8_t* y);
// into row `index` of y; `largest` is the row's largest magnitude, below 0: not known
void to_row(const float* x, float largest, std::uint8_t offset, std::int64_t index, const Rows& y);

// What becomes of the sums of a tile: y = residual + gate * activation(sums * scales + bias)
struct Finish {
  bool is_int = false;               // sums are int32
  const float* row_scale = nullptr;  // (rows), or null
  const float* scale = nullptr;      // (2 kPanel), or null
  const float* bias = nullptr;       // (2 kPanel), or null
  const float* gate = nullptr;       // (width), or null
  const float* residual = nullptr;   // (rows x residual_stride), or null
  std::int64_t residual_stride = 0;
  Activation activation = Activation::none;
};
// the first `width` of 2 kPanel columns                                          (rows x y_stride)
void finish_tile(const void* sums, int rows, std::int64_t width, const Finish& finish, float* y,
                 std::int64_t y_stride);
// y = silu(first panel) * second panel, `width` of kPanel columns; raises largest (rows x kPanel) to the
// magnitudes of each column
void finish_gated_tile(const void* sums, int rows, std::int64_t width, const Finish& finish, float* y,
                       std::int64_t y_stride, float* largest);
// a pair of int8 panels as bf16 ones, exactly                      (groups of int8, of both panels one after
// the other)
void widen_panels(const std::byte* panels, std::int64_t groups, std::byte* out);

}  // namespace wallx::cpu
