// PackTest: where every weight lands in the panels, how it is rounded, and what fills the rest.
// SPDX-License-Identifier: Apache-2.0
#include "backend/pack.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "backend/naive.hpp"

namespace wallx::test {
namespace {

struct Packed {
  std::vector<std::byte> panels;
  Floats scale, bias;
  std::vector<std::int32_t> offset;
  std::int64_t in = 0;

  // of the panels' column `out`, for one input
  float at(Format format, std::int64_t out, std::int64_t input) const {
    const std::int64_t size = bytes_per_weight(format), group = 4 / size;
    const std::byte* from = panels.data() + out / 16 * panel_bytes(format, in) +
                            (input / group * 16 + out % 16) * 4 + input % group * size;
    if (format == Format::bf16) {
      std::uint16_t bits;
      std::memcpy(&bits, from, sizeof bits);
      return float_of_bf16(bits);
    }
    return static_cast<std::int8_t>(*from);
  }
};

Packed packed(Format format, std::int64_t out, std::int64_t in, bool is_gated, const Floats& weight,
              const Floats& bias) {
  PackSource source;
  source.out = out;
  source.in = in;
  source.is_gated = is_gated;
  source.read_row = [&](std::int64_t row, float* to) { std::copy_n(weight.begin() + row * in, in, to); };
  if (!bias.empty()) source.read_bias = [&](std::int64_t row) { return bias[static_cast<std::size_t>(row)]; };
  const std::int64_t panels = num_panels(source);
  const auto columns = static_cast<std::size_t>(panels * kPanel);
  Packed to;
  to.in = in;
  // everything is written, padding too
  to.panels.assign(static_cast<std::size_t>(panels * panel_bytes(format, in)), std::byte{0x77});
  to.scale.assign(columns, kSentinel);
  to.bias.assign(columns, kSentinel);
  to.offset.assign(columns, 12345);
  for (std::int64_t p = panels; p-- > 0;)  // in any order
    pack_panel(source, format, p, {to.panels.data(), to.scale.data(), to.offset.data(), to.bias.data()});
  return to;
}

// the row behind a column of the panels, -1 for padding: the layout's text as a loop
std::int64_t row_behind(std::int64_t column, std::int64_t out, bool is_gated) {
  if (!is_gated) return column < out ? column : -1;
  std::int64_t at = 0;
  for (std::int64_t first = 0; first < out / 2; first += 16)
    for (const bool is_up : {false, true})
      for (std::int64_t c = 0; c < 16; ++c, ++at)
        if (at == column) return first + c < out / 2 ? first + c + (is_up ? out / 2 : 0) : -1;
  return -1;
}

}  // namespace

TEST(bf16_rounds_to_nearest_even_and_keeps_what_is_not_finite) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = float_of_bf16(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      CHECK(std::isnan(float_of_bf16(bf16_of(value))));
    } else {
      CHECK_EQ(bf16_of(value), bits);
    }
  }
  CHECK_EQ(float_of_bf16(bf16_of(1.0f + 0x1p-8f)), 1.0f);            // a tie, to even
  CHECK_EQ(float_of_bf16(bf16_of(1.0f + 0x3p-8f)), 1.0f + 0x1p-6f);  // a tie, to even
  CHECK_EQ(float_of_bf16(bf16_of(1.0f + 0x1.01p-8f)), 1.0f + 0x1p-7f);
  CHECK_EQ(float_of_bf16(bf16_of(-1.0f - 0x1.01p-8f)), -1.0f - 0x1p-7f);
  CHECK(std::isinf(float_of_bf16(bf16_of(std::numeric_limits<float>::max()))));
  // NaN whose upper half alone would be infinity, and one that rounding would carry into the sign
  for (const std::uint32_t bits : {0x7F800001u, 0xFF800001u, 0x7FFFFFFFu, 0xFFFFFFFFu})
    CHECK(std::isnan(float_of_bf16(bf16_of(std::bit_cast<float>(bits)))));
}

TEST(every_weight_lands_in_its_place) {
  std::mt19937 random(8);
  for (const Format format : {Format::bf16, Format::int8, Format::w8})
    for (const bool is_gated : {false, true})
      for (const std::int64_t half : {1, 8, 16, 17, 24, 33})
        for (const std::int64_t in : {1, 3, 16, 50}) {
          const std::int64_t out = 2 * half;
          const Floats weight = random_floats(random, out * in), bias = random_floats(random, out);
          const Packed to = packed(format, out, in, is_gated, weight, bias);
          const std::int64_t columns = std::ssize(to.scale);
          CHECK_EQ(columns % 32, 0);
          std::int64_t num_rows = 0;
          for (std::int64_t c = 0; c < columns; ++c) {
            const std::int64_t row = row_behind(c, out, is_gated);
            num_rows += row >= 0;
            CHECK_EQ(to.bias[static_cast<std::size_t>(c)],
                     row < 0 ? 0.0f : bias[static_cast<std::size_t>(row)]);
            float largest = 0;
            std::int32_t total = 0;
            for (std::int64_t i = 0; i < in && row >= 0; ++i)
              largest = std::max(largest, std::abs(weight[static_cast<std::size_t>(row * in + i)]));
            for (std::int64_t i = 0; i < round_up(in, 16); ++i) {
              const float found = to.at(format, c, i);
              const float value = row >= 0 && i < in ? weight[static_cast<std::size_t>(row * in + i)] : 0.0f;
              if (format == Format::bf16) {
                CHECK_EQ(found, float_of_bf16(bf16_of(value)));
              } else {
                CHECK(std::abs(found) <= 127);
                CHECK_NEAR(found * largest / 127, value, largest / 127 * 0.5001f);
                total += static_cast<std::int32_t>(found);
              }
            }
            if (format == Format::bf16) continue;
            CHECK_EQ(to.scale[static_cast<std::size_t>(c)], largest / 127);
            CHECK_EQ(to.offset[static_cast<std::size_t>(c)], -128 * total);
          }
          CHECK_EQ(num_rows, out);
        }
}

TEST(a_layer_without_a_bias_has_none_to_read) {
  const Packed to = packed(Format::bf16, 3, 2, false, Floats(6, 1.0f), {});
  for (const float one : to.bias) CHECK_EQ(one, 0.0f);
}

TEST(weights_that_int8_cannot_hold_show_in_the_scale) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  Floats weight(4 * 20, 0.5f);
  weight[3] = NAN;
  weight[20 + 5] = -INFINITY;
  std::fill_n(weight.begin() + 40, 20, tiny);
  weight[60] = std::numeric_limits<float>::max();
  const Packed to = packed(Format::int8, 4, 20, false, weight, {});
  CHECK(std::isnan(to.scale[0]) && std::isnan(to.scale[1]));
  CHECK(to.scale[2] < 1e-37f && to.at(Format::int8, 2, 0) == 0);
  CHECK_EQ(to.at(Format::int8, 3, 0), 127.0f);
  CHECK_EQ(to.at(Format::int8, 3, 1), 0.0f);
}

}  // namespace wallx::test
