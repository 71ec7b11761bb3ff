// Op: an operation as a struct of dims, formats and tolerance, to compare with the reference and to time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "backend/naive.hpp"
#include "backend/pack.hpp"

namespace wallx::test {

inline const char* name_of(Format format) {
  constexpr const char* kNames[] = {"f32", "bf16", "int8", "w8"};
  return kNames[static_cast<int>(format)];
}

// One operation's buffers on one backend.
class Device {
 public:
  explicit Device(Backend& on) : backend(on), stream(on.make_stream()) {}

  std::byte* room(std::size_t bytes) { return memory_.emplace_back(backend.allocate(bytes)).as<std::byte>(); }
  template <class T>
  T* put(const std::vector<T>& values) {
    std::byte* to = room(values.size() * sizeof(T));
    backend.upload(*stream, values.data(), to, values.size() * sizeof(T));
    return reinterpret_cast<T*>(to);
  }
  Floats get(const float* from, std::int64_t count) {
    Floats values(static_cast<std::size_t>(count));
    backend.download(*stream, from, values.data(), values.size() * sizeof(float));
    return values;
  }
  Rows rows(Format format, std::int64_t count, std::int64_t width) {
    return rows_in(room(rows_bytes(format, count, width)), format, count, width);
  }
  // x as rows
  Rows rows(Format format, const Floats& x, std::int64_t width) {
    const Rows to = rows(format, std::ssize(x) / width, width);
    backend.norm(*stream, put(x), {}, to);
    return to;
  }
  // What rows hold: how is the backend's own affair, so they are read through a product with ones on the
  // diagonal.
  Floats get(const Rows& rows) {
    if (rows.format == Format::f32) return get(static_cast<const float*>(rows.data), rows.count * rows.width);
    Floats identity(static_cast<std::size_t>(rows.width * rows.width), 0.0f);
    for (std::size_t i = 0; i < identity.size(); i += static_cast<std::size_t>(rows.width) + 1)
      identity[i] = 1;
    auto* y =
        reinterpret_cast<float*>(room(static_cast<std::size_t>(rows.count * rows.width) * sizeof(float)));
    backend.product(*stream, rows, layer(rows.format, rows.width, rows.width, identity, {}), {}, y);
    return get(y, rows.count * rows.width);
  }

  // weight (out x in); bias (out) or empty
  Linear layer(Format format, std::int64_t out, std::int64_t in, const Floats& weight, const Floats& bias) {
    if (format != Format::f32) return packed(format, out, in, weight, bias, false);
    return {format, out, in, put(weight), nullptr, nullptr, bias.empty() ? nullptr : put(bias)};
  }
  // weight (2 out x in): gate, then up; bias (2 out) or empty
  GatedLinear gated(Format format, std::int64_t out, std::int64_t in, const Floats& weight,
                    const Floats& bias) {
    if (format != Format::f32) return {packed(format, 2 * out, in, weight, bias, true), {}, out};
    const auto part = [&](std::int64_t first) {
      const Floats rows(weight.begin() + first * in, weight.begin() + (first + out) * in);
      return layer(format, out, in, rows,
                   bias.empty() ? bias : Floats(bias.begin() + first, bias.begin() + first + out));
    };
    return {part(0), part(out), out};
  }

  Backend& backend;
  std::unique_ptr<Stream> stream;

 private:
  Linear packed(Format format, std::int64_t out, std::int64_t in, const Floats& weight, const Floats& bias,
                bool is_gated) {
    PackSource source;
    source.out = out;
    source.in = in;
    source.is_gated = is_gated;
    source.read_row = [&](std::int64_t row, float* to) { std::copy_n(weight.begin() + row * in, in, to); };
    if (!bias.empty())
      source.read_bias = [&](std::int64_t row) { return bias[static_cast<std::size_t>(row)]; };
    const std::int64_t panels = num_panels(source);
    const auto columns = static_cast<std::size_t>(panels * kPanel);
    std::vector<std::byte> bytes(static_cast<std::size_t>(panels * panel_bytes(format, in)));
    Floats scale(columns), padded_bias(columns);
    std::vector<std::int32_t> offset(columns);
    for (std::int64_t p = 0; p < panels; ++p)
      pack_panel(source, format, p,
                 {bytes.data(), scale.data(), offset.data(), bias.empty() ? nullptr : padded_bias.data()});
    Linear layer{format, out, in, put(bytes)};
    if (format != Format::bf16) {
      layer.scale = put(scale);
      layer.offset = put(offset);
    }
    if (!bias.empty()) layer.bias = put(padded_bias);
    return layer;
  }

  std::vector<Memory> memory_;
};

// An operation with its buffers filled: run it any number of times, then read.
struct Ready {
  std::function<void()> run;
  std::function<Floats()> result;
};

// Numbers that rows of the format hold without rounding: then backends differ by the rounding of sums only.
inline Floats exact_rows(std::mt19937& random, Format format, std::int64_t rows, std::int64_t width) {
  Floats x = random_floats(random, rows * width);
  if (row_format(format) == Format::bf16)
    for (float& v : x) v = float_of_bf16(bf16_of(v));
  if (format == Format::int8)
    for (std::int64_t r = 0; r < rows; ++r) {
      // the largest is 127 steps, so that a step is a power of two
      const float step = std::ldexp(1.0f, -7 - static_cast<int>(r % 3));
      float* row = x.data() + r * width;
      for (std::int64_t i = 0; i < width; ++i) row[i] = std::nearbyint(row[i] * 127) * step;
      row[random() % static_cast<std::size_t>(width)] = (r % 2 ? -127 : 127) * step;
    }
  return x;
}

// half a step of the format, as a share of the largest value, on top of a backend's own rounding
inline double rounding_of(Format rows) {
  return rows == Format::f32 ? 0 : rows == Format::bf16 ? 0x1p-8 : 0.5 / 127;
}

// bf16: of the weights, and of queries and keys where rotation leaves them between two numbers
inline double rounding_of_attention(Format format, bool is_right_angled) {
  return format == Format::f32 ? 3e-6 : is_right_angled ? 6e-3 : 8e-3;
}

// --- the operations ---

enum class Residue { none, separate, in_place };  // where the residual stands

struct ProductOp {
  std::int64_t rows = 1, in = 1, out = 1;
  Format format = Format::f32;
  Activation activation = Activation::none;
  bool has_bias = false, has_gate = false;
  Residue residual = Residue::none;
  std::int64_t gap = 0;  // columns between the rows of y

  std::string name() const;
  double tolerance() const { return 3e-6; }
  ProductOp exact() const { return *this; }
  double work() const { return 2e-9 * static_cast<double>(rows * in * out); }  // [G operations]
  Ready on(Backend& backend) const;
};

struct GatedOp {
  std::int64_t rows = 1, in = 1, out = 1;
  Format format = Format::f32, to = Format::f32;  // of the weights, of the rows that come out
  bool has_bias = false;

  std::string name() const;
  double tolerance() const { return 5e-6 + rounding_of(to); }
  GatedOp exact() const;
  double work() const { return 4e-9 * static_cast<double>(rows * in * out); }
  Ready on(Backend& backend) const;
};

struct NormOp {
  std::int64_t rows = 1, width = 1;
  Norm::Kind kind = Norm::Kind::none;
  Format to = Format::f32;
  float scale = 1.0f;  // of x

  std::string name() const;
  double tolerance() const { return 1e-6 + rounding_of(to); }
  NormOp exact() const;
  double work() const { return 1e-9 * static_cast<double>(rows * width); }
  Ready on(Backend& backend) const;
};

// Fills a cache, forgets what stands behind `segments`, appends the query rows' own tokens, attends.
struct CacheOp {
  std::int64_t rows = 1, num_heads = 1, num_kv_heads = 1, head_dim = 8;
  std::vector<std::int64_t> segments;  // [tokens], in order; the last has the query rows' own at its end
  bool is_causal = true;
  Format format = Format::f32, to = Format::f32;
  float scale = 1.0f;           // of queries and keys
  bool is_right_angled = true;  // rotation by quarters of a turn, exact in every format
  bool is_of_rotation = false;  // the result is queries, keys and values after rotation

  std::string name() const;
  double tolerance() const {
    return is_of_rotation ? 3e-7 : rounding_of_attention(format, is_right_angled) + rounding_of(to);
  }
  CacheOp exact() const;
  double work() const;
  Ready on(Backend& backend) const;
};

struct WindowOp {
  std::int64_t num_heads = 1, head_dim = 8;
  std::vector<std::int32_t> offsets{0, 1};
  Format format = Format::f32, to = Format::f32;
  bool is_right_angled = true;

  std::string name() const;
  double tolerance() const { return rounding_of_attention(format, is_right_angled) + rounding_of(to); }
  WindowOp exact() const;
  double work() const;
  Ready on(Backend& backend) const;
};

struct EulerOp {
  std::int64_t rows = 1, dim = 1, gap = 0;
  bool has_padding = false, does_predict_actions = false;
  float time = 0.5f;

  std::string name() const;
  double tolerance() const { return 5e-7; }
  EulerOp exact() const { return *this; }
  double work() const { return 1e-9 * static_cast<double>(rows * dim); }
  Ready on(Backend& backend) const;
};

struct EmbedOp {
  std::vector<std::int64_t> ids;
  std::int64_t width = 1;
  Format format = Format::f32;

  std::string name() const;
  double tolerance() const { return 0; }
  EmbedOp exact() const { return *this; }
  double work() const { return 1e-9 * static_cast<double>(width) * static_cast<double>(ids.size()); }
  Ready on(Backend& backend) const;
};

}  // namespace wallx::test
