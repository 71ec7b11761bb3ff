// Gpu: the backend under test: the GPU of this machine, or the kernels' own source on its processor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "backend/pack.hpp"
#include "check.hpp"

namespace wallx::test {

Backend& gpu();  // made once

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// uniform in [-scale, scale)
inline Floats random_floats(std::mt19937& random, std::int64_t size, float scale = 1.0f) {
  Floats out(static_cast<std::size_t>(size));
  for (float& v : out) v = scale * (static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f);
  return out;
}

// Host data on the device, with a guard behind it that nothing may touch.
class Device {
 public:
  static constexpr std::size_t kGuard = 64;
  Device(const void* from, std::size_t bytes) : bytes_(bytes), memory_(gpu().allocate(bytes + kGuard)) {
    std::vector<std::byte> all(bytes + kGuard, std::byte{0xA5});
    if (from) std::memcpy(all.data(), from, bytes);
    const auto stream = gpu().make_stream();
    gpu().upload(*stream, all.data(), memory_.as<void>(), all.size());
    gpu().synchronize(*stream);
  }
  explicit Device(const Floats& from) : Device(from.data(), from.size() * sizeof(float)) {}
  template <class T = float>
  T* at() const {
    return memory_.as<T>();
  }
  template <class T = float>
  std::vector<T> read(Stream& stream) const {
    std::vector<std::byte> all(bytes_ + kGuard);
    gpu().download(stream, memory_.as<void>(), all.data(), all.size());
    for (std::size_t i = bytes_; i < all.size(); ++i) CHECK(all[i] == std::byte{0xA5});
    std::vector<T> out(bytes_ / sizeof(T));
    std::memcpy(out.data(), all.data(), out.size() * sizeof(T));
    return out;
  }

 private:
  std::size_t bytes_;
  Memory memory_;
};

// rows on the device; what lies behind the padded width is NaN or -1, as reused memory may be
struct DeviceRows {
  Device memory;
  Rows rows;
  DeviceRows(Format format, std::int64_t count, std::int64_t width)
      : memory(std::vector<std::byte>(rows_bytes(format, count, width), std::byte{0xFF}).data(),
               rows_bytes(format, count, width)),
        rows(rows_in(memory.at<void>(), format, count, width)) {}

  // the numbers that a product sees, padding last  (count x padded width)
  std::vector<Doubles> read(Stream& stream, bool with_padding = false) const {
    const auto bytes = memory.read<std::byte>(stream);
    std::vector<Doubles> out;
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::byte* row = bytes.data() + r * rows.stride;
      Doubles values;
      const std::int64_t width =
          with_padding && rows.format != Format::f32 ? round_up(rows.width, kDepth) : rows.width;
      for (std::int64_t i = 0; i < width; ++i) {
        if (rows.format == Format::int8) {
          values.push_back(static_cast<std::int8_t>(row[i]));
        } else if (rows.format == Format::bf16) {
          std::uint16_t bits;
          std::memcpy(&bits, row + i * 2, 2);
          values.push_back(static_cast<double>(float_of_bf16(bits)));
        } else {
          float value;
          std::memcpy(&value, row + i * 4, 4);
          values.push_back(static_cast<double>(value));
        }
      }
      out.push_back(std::move(values));
    }
    return out;
  }
  Floats scales(Stream& stream) const {
    const auto bytes = memory.read<std::byte>(stream);
    Floats out(static_cast<std::size_t>(rows.count));
    std::memcpy(out.data(), bytes.data() + rows.count * rows.stride, out.size() * sizeof(float));
    return out;
  }
};

// A packed layer on the device, and the numbers that its panels stand for.
struct DeviceLayer {
  Floats weight, bias;  // (out x in) as it was rounded, without the scale; (out)
  Floats scale;         // (out); of bf16: ones
  std::vector<Device> memory;
  Linear linear;

  DeviceLayer(std::mt19937& random, Format format, std::int64_t out, std::int64_t in, bool has_bias,
              bool is_gated = false) {
    const Floats full = random_floats(random, out * in);
    if (has_bias) bias = random_floats(random, out);
    PackSource source;
    source.out = out;
    source.in = in;
    source.is_gated = is_gated;
    source.read_row = [&](std::int64_t row, float* to) { std::copy_n(full.data() + row * in, in, to); };
    source.read_bias = [&](std::int64_t row) {
      return has_bias ? bias[static_cast<std::size_t>(row)] : 0.0f;
    };
    const std::int64_t panels = num_panels(source);
    std::vector<std::byte> bytes(static_cast<std::size_t>(panels * panel_bytes(format, in)));
    Floats scales(static_cast<std::size_t>(panels * kPanel)), biases(scales.size());
    std::vector<std::int32_t> offsets(scales.size());
    for (std::int64_t p = 0; p < panels; ++p)
      pack_panel(source, format, p, {bytes.data(), scales.data(), offsets.data(), biases.data()});
    memory.emplace_back(bytes.data(), bytes.size());
    memory.emplace_back(scales);
    memory.emplace_back(biases);
    linear = {format,
              out,
              in,
              memory[0].at<void>(),
              format == Format::int8 ? memory[1].at() : nullptr,
              nullptr,
              has_bias ? memory[2].at() : nullptr};
    for (std::int64_t o = 0; o < out; ++o) {
      float largest = 0;
      for (std::int64_t i = 0; i < in; ++i)
        largest = std::max(largest, std::abs(full[static_cast<std::size_t>(o * in + i)]));
      scale.push_back(format == Format::int8 ? largest / 127.0f : 1.0f);
      for (std::int64_t i = 0; i < in; ++i) {
        const float value = full[static_cast<std::size_t>(o * in + i)];
        weight.push_back(format == Format::int8 ? std::nearbyint(value * (127.0f / largest))
                                                : float_of_bf16(bf16_of(value)));
      }
    }
  }
  double value(const Doubles& row, double row_scale, std::int64_t o) const {
    double total = 0;
    const auto in = static_cast<std::size_t>(linear.in);
    for (std::size_t i = 0; i < in; ++i)
      total += row[i] * static_cast<double>(weight[static_cast<std::size_t>(o) * in + i]);
    total *= row_scale * static_cast<double>(scale[static_cast<std::size_t>(o)]);
    return total + (bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<std::size_t>(o)]));
  }
};

// The worst error of a family, as a share of the largest expected value; printed when it ends.
class Residual {
 public:
  Residual(const char* family, double tolerance) : family_(family), tolerance_(tolerance) {}
  ~Residual() { std::printf("  %s: worst residual %.1e (tolerance %.0e)\n", family_, worst_, tolerance_); }
  void compare(const std::string& name, double found, double expected, double largest) {
    const double error = std::abs(found - expected) / largest;
    if (!(error <= worst_)) worst_ = error;
    if (!(error <= tolerance_)) fail(__FILE__, __LINE__, show((name + " residual").c_str(), found, expected));
  }

 private:
  const char* family_;
  double tolerance_;
  double worst_ = 0;
};

inline double activate(Activation activation, double v) {
  if (activation == Activation::silu) return v / (1.0 + std::exp(-v));
  if (activation == Activation::gelu) return 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0)));
  return v;
}

}  // namespace wallx::test
