// Pack: sixteen outputs at a time.
// SPDX-License-Identifier: Apache-2.0
#include "backend/pack.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace wallx {
namespace {

constexpr float kSmallest = 1e-36f;  // below it 127 / x is not finite

// the row behind a column of the panels; -1: padding
std::int64_t row_of(const PackSource& source, std::int64_t column) {
  if (!source.is_gated) return column < source.out ? column : -1;
  const std::int64_t panel = column / kPanel, half = source.out / 2;
  const std::int64_t row = panel / 2 * kPanel + column % kPanel;
  return row < half ? panel % 2 * half + row : -1;
}

}  // namespace

std::uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float float_of_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::int64_t num_panels(const PackSource& source) {
  return (source.is_gated ? padded_gated_outputs(source.out / 2) : padded_outputs(source.out)) / kPanel;
}

void pack_panel(const PackSource& source, Format format, std::int64_t panel, const PackTarget& target) {
  const std::int64_t depth = round_up(source.in, kDepth);
  thread_local std::vector<float> values;
  values.assign(static_cast<std::size_t>(kPanel * depth), 0.0f);
  for (std::int64_t c = 0; c < kPanel; ++c) {
    const std::int64_t row = row_of(source, panel * kPanel + c);
    if (row >= 0) source.read_row(row, values.data() + c * depth);
    if (target.bias)
      target.bias[panel * kPanel + c] = row >= 0 && source.read_bias ? source.read_bias(row) : 0.0f;
  }
  std::byte* to = target.panels + panel * panel_bytes(format, source.in);
  if (format == Format::bf16) {
    auto* out = reinterpret_cast<std::uint16_t*>(to);
    for (std::int64_t g = 0; g < depth; g += 2)
      for (std::int64_t c = 0; c < kPanel; ++c)
        for (std::int64_t k = 0; k < 2; ++k)
          *out++ = bf16_of(values[static_cast<std::size_t>(c * depth + g + k)]);
    return;
  }
  float inverse[kPanel];
  std::int32_t total[kPanel] = {};
  for (std::int64_t c = 0; c < kPanel; ++c) {
    float largest = 0;
    bool is_finite = true;
    for (std::int64_t k = 0; k < depth; ++k) {
      const float value = values[static_cast<std::size_t>(c * depth + k)];
      is_finite &= std::isfinite(value);
      largest = std::max(largest, std::abs(value));
    }
    // what is not finite must show in the products
    target.scale[panel * kPanel + c] = is_finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
    inverse[c] = is_finite && largest > kSmallest ? 127.0f / largest : 0.0f;
  }
  auto* out = reinterpret_cast<std::int8_t*>(to);
  for (std::int64_t g = 0; g < depth; g += 4)
    for (std::int64_t c = 0; c < kPanel; ++c)
      for (std::int64_t k = 0; k < 4; ++k) {
        const float value =
            inverse[c] > 0 ? values[static_cast<std::size_t>(c * depth + g + k)] * inverse[c] : 0;
        const auto whole = static_cast<std::int32_t>(std::nearbyint(std::clamp(value, -127.0f, 127.0f)));
        total[c] += whole;
        *out++ = static_cast<std::int8_t>(whole);
      }
  for (std::int64_t c = 0; c < kPanel; ++c) target.offset[panel * kPanel + c] = -128 * total[c];
}

}  // namespace wallx
