// Pack: weights given as rows become panels, once; on disk or while loading.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "backend/layout.hpp"

namespace wallx {

// A layer's weights before they are packed.
struct PackSource {
  std::int64_t out = 0;  // rows; of a gated layer those of gate, then those of up
  std::int64_t in = 0;
  bool is_gated = false;
  std::function<void(std::int64_t row, float* to)> read_row;        // (in)
  std::function<float(std::int64_t row)> read_bias = nullptr;       // or null
};

// Where a packed layer's numbers go.
struct PackTarget {
  std::byte* panels = nullptr;     // (num_panels x panel_bytes)
  float* scale = nullptr;          // int8, w8  (num_panels x kPanel)
  std::int32_t* offset = nullptr;  // int8, w8  (num_panels x kPanel)
  float* bias = nullptr;           // with a bias  (num_panels x kPanel)
};

std::int64_t num_panels(const PackSource& source);
// One panel, so that threads can share them out. int8: symmetric, scale = largest magnitude of an output / 127.
void pack_panel(const PackSource& source, Format format, std::int64_t panel, const PackTarget& target);

std::uint16_t bf16_of(float value);  // nearest, ties to even; NaN stays NaN
float float_of_bf16(std::uint16_t bits);

}  // namespace wallx
