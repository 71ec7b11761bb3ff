// Layout: how packed weights and the rows that they meet lie in memory; the same on disk and on every processor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace wallx {

// What a product's weights are, and the rows that it takes.
//   f32   weights as rows (out x in) of fp32; rows of fp32
//   bf16  panels of bf16; rows of bf16
//   int8  panels of int8 with a scale an output; rows of int8 with a scale a row
//   w8    panels as for int8; rows of bf16
enum class Format : std::uint8_t { f32, bf16, int8, w8 };

// A panel holds kPanel outputs for all inputs: [group][output][input of the group], a group being four bytes of
// one output. Inputs are padded with zeros to a multiple of kDepth, outputs to a multiple of 2 kPanel: kernels
// take panels by two. A gated layer's panels alternate: gate, up, gate, up; then each is padded to kPanel.
inline constexpr std::int64_t kPanel = 16;
inline constexpr std::int64_t kDepth = 16;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
constexpr std::int64_t bytes_per_weight(Format format) {
  return format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1;
}
// [bytes]
constexpr std::int64_t panel_bytes(Format format, std::int64_t in) {
  return round_up(in, kDepth) * kPanel * bytes_per_weight(format);
}
constexpr std::int64_t padded_outputs(std::int64_t out) { return round_up(out, 2 * kPanel); }
constexpr std::int64_t padded_gated_outputs(std::int64_t out) { return 2 * round_up(out, kPanel); }

// what rows for weights of a format are made of
constexpr Format row_format(Format format) { return format == Format::w8 ? Format::bf16 : format; }
// [bytes] between rows. An odd number of cache lines for packed formats: rows a power of two apart would share
// cache sets.
constexpr std::int64_t row_stride(Format format, std::int64_t width) {
  if (format == Format::f32) return width * 4;
  const std::int64_t lines = (round_up(width, kDepth) * bytes_per_weight(row_format(format)) + 63) / 64;
  return (lines | 1) * 64;
}

}  // namespace wallx
