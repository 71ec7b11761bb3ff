// Product: dot products of many rows with many columns.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/vector.hpp"

namespace wallx::cpu {
namespace {

struct Operands {
  const float* x;
  std::int64_t x_stride;
  const float* w;
  std::int64_t w_stride;
  std::int64_t depth;
  float* y;
  std::int64_t y_stride;
};

template <int Rows, int Columns>
WALLX_INLINE void block(const Operands& o, std::int64_t row, std::int64_t column) {
  const float* x = o.x + row * o.x_stride;
  const float* w = o.w + column * o.w_stride;
  Lanes acc[Rows][Columns] = {};
  std::int64_t k = 0;
  for (; k + kLanes <= o.depth; k += kLanes) {
    Lanes b[Columns];
    for (int c = 0; c < Columns; ++c) load(w + c * o.w_stride + k, b[c]);
    for (int r = 0; r < Rows; ++r) {
      Lanes a;
      load(x + r * o.x_stride + k, a);
      for (int c = 0; c < Columns; ++c) acc[r][c] += a * b[c];
    }
  }
  if (k < o.depth) {  // in lanes too: the bits of a sum must not depend on the block that it stands in
    Lanes b[Columns];
    for (int c = 0; c < Columns; ++c) load_part(w + c * o.w_stride + k, o.depth - k, b[c]);
    for (int r = 0; r < Rows; ++r) {
      Lanes a;
      load_part(x + r * o.x_stride + k, o.depth - k, a);
      for (int c = 0; c < Columns; ++c) acc[r][c] += a * b[c];
    }
  }
  float totals[Rows * Columns];
  if constexpr (Rows * Columns == kLanes) {
    Lanes parts[kLanes], sums;
    for (int i = 0; i < kLanes; ++i) parts[i] = acc[i / Columns][i % Columns];
    sum_all(parts, sums);
    store(sums, totals);
  } else {
    for (int i = 0; i < Rows * Columns; ++i) totals[i] = sum(acc[i / Columns][i % Columns]);
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Columns; ++c) o.y[(row + r) * o.y_stride + column + c] = totals[r * Columns + c];
}

template <int Columns>
WALLX_INLINE void all_rows(const Operands& o, std::int64_t rows, std::int64_t column) {
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) block<4, Columns>(o, r, column);
  for (; r < rows; ++r) block<1, Columns>(o, r, column);
}

}  // namespace

// columns outermost, so that w streams through once
WALLX_CLONES void product(const float* x, std::int64_t x_stride, std::int64_t rows, const float* w,
                          std::int64_t w_stride, std::int64_t columns, std::int64_t depth, float* y,
                          std::int64_t y_stride) {
  const Operands o{x, x_stride, w, w_stride, depth, y, y_stride};
  std::int64_t c = 0;
  for (; c + 4 <= columns; c += 4) all_rows<4>(o, rows, c);
  for (; c < columns; ++c) all_rows<1>(o, rows, c);
}

}  // namespace wallx::cpu
