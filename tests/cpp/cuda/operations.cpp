// OperationsTest: the CUDA backend's products and norms against plain loops in double precision.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/errors.hpp"
#include "gpu.hpp"

namespace wallx::test {
namespace {

struct ProductCase {
  Format format = Format::int8;
  std::int64_t rows = 1, in = 1, out = 1;
  Activation activation = Activation::none;
  bool has_bias = false, has_gate = false, has_residual = false, is_in_place = false;
  std::int64_t gap = 0;  // columns between the rows of y

  std::string name() const {
    return std::string(format == Format::int8 ? "int8 " : "bf16 ") + std::to_string(rows) + "x" +
           std::to_string(in) + "->" + std::to_string(out) + " activation " +
           std::to_string(static_cast<int>(activation)) + (has_bias ? " bias" : "") +
           (has_gate ? " gate" : "") + (has_residual ? " residual" : "") + (is_in_place ? " in place" : "") +
           (gap ? " gap " + std::to_string(gap) : "");
  }

  void run(std::mt19937& random, Residual& residual) const {
    const auto stream = gpu().make_stream();
    const Floats full = random_floats(random, rows * in);
    const Device from(full);
    const DeviceRows x(format, rows, in);
    gpu().norm(*stream, from.at(), {}, x.rows);
    const DeviceLayer layer(random, format, out, in, has_bias);
    const Floats gate = random_floats(random, out), add = random_floats(random, rows * (out + gap));
    const Device device_gate(gate), device_add(add), y(add);
    Epilogue epilogue;
    epilogue.activation = activation;
    if (has_gate) epilogue.gate = device_gate.at();
    if (has_residual) epilogue.residual = is_in_place ? y.at() : device_add.at();
    epilogue.residual_stride = out + gap;
    gpu().product(*stream, x.rows, layer.linear, epilogue, y.at(), gap ? out + gap : 0);

    const std::vector<Doubles> values = x.read(*stream);
    const Floats scales =
        format == Format::int8 ? x.scales(*stream) : Floats(static_cast<std::size_t>(rows), 1.0f);
    const Floats found = y.read(*stream);
    Doubles expected;
    double largest = 1e-30;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t o = 0; o < out + gap; ++o) {
        const auto i = static_cast<std::size_t>(r * (out + gap) + o);
        double v = static_cast<double>(add[i]);  // what is between rows stays
        if (o < out) {
          v = activate(activation, layer.value(values[static_cast<std::size_t>(r)],
                                               static_cast<double>(scales[static_cast<std::size_t>(r)]), o));
          if (has_gate) v *= static_cast<double>(gate[static_cast<std::size_t>(o)]);
          if (has_residual) v += static_cast<double>(add[i]);
          largest = std::max(largest, std::abs(v));
        } else {
          CHECK_EQ(found[i], add[i]);
        }
        expected.push_back(v);
      }
    for (std::size_t i = 0; i < expected.size(); ++i)
      residual.compare(name(), static_cast<double>(found[i]), expected[i], largest);
  }
};

constexpr double kProductTolerance = 2e-6;

}  // namespace

TEST(product_matches_plain_loops_at_every_tiling) {
  std::mt19937 random(1);
  Residual residual("product, sizes", kProductTolerance);
  for (Format format : {Format::int8, Format::bf16})
    for (std::int64_t rows : {1, 8, 9, 32, 33, 130})
      for (std::int64_t in : {1, 40, 200})
        for (std::int64_t out : {1, 130}) ProductCase{format, rows, in, out}.run(random, residual);
}

TEST(product_matches_plain_loops_over_many_stages) {
  std::mt19937 random(2);
  Residual residual("product, depth", kProductTolerance);
  for (Format format : {Format::int8, Format::bf16})
    for (std::int64_t rows : {1, 32, 65})
      for (std::int64_t in : {1000, 2048}) ProductCase{format, rows, in, 64}.run(random, residual);
}

TEST(product_matches_plain_loops_with_every_epilogue) {
  std::mt19937 random(3);
  Residual residual("product, epilogues", kProductTolerance);
  for (Format format : {Format::int8, Format::bf16})
    for (Activation activation : {Activation::none, Activation::silu, Activation::gelu})
      for (int flags = 0; flags < 16; ++flags) {
        const std::int64_t rows = std::vector<std::int64_t>{3, 32, 70}[static_cast<std::size_t>(flags % 3)];
        ProductCase{format,
                    rows,
                    48,
                    45,
                    activation,
                    (flags & 1) != 0,
                    (flags & 2) != 0,
                    (flags & 4) != 0,
                    (flags & 8) != 0,
                    flags % 5 % 3}
            .run(random, residual);
      }
}

TEST(gated_product_matches_plain_loops) {
  std::mt19937 random(4);
  Residual plain("gated_product", 2e-6), rounded("gated_product, rounded", 8.1e-3);
  for (Format format : {Format::int8, Format::bf16})
    for (Format to : {Format::f32, Format::bf16, Format::int8})
      for (std::int64_t rows : {1, 32, 40})
        for (std::int64_t in : {16, 130})
          for (std::int64_t out : {5, 75}) {
            const auto stream = gpu().make_stream();
            const Floats full = random_floats(random, rows * in);
            const Device from(full);
            const DeviceRows x(format, rows, in), y(to, rows, out);
            gpu().norm(*stream, from.at(), {}, x.rows);
            const DeviceLayer layer(random, format, 2 * out, in, in == 130, true);
            gpu().gated_product(*stream, x.rows, {layer.linear, {}, out}, y.rows);
            const std::vector<Doubles> values = x.read(*stream), found = y.read(*stream, true);
            const Floats scales =
                format == Format::int8 ? x.scales(*stream) : Floats(static_cast<std::size_t>(rows), 1.0f);
            const Floats y_scales =
                to == Format::int8 ? y.scales(*stream) : Floats(static_cast<std::size_t>(rows), 1.0f);
            const std::string name = "gated " + std::to_string(rows) + "x" + std::to_string(in) + "->" +
                                     std::to_string(out) + " to " + std::to_string(static_cast<int>(to));
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
              Doubles expected;
              double largest = 1e-30;
              for (std::int64_t o = 0; o < out; ++o) {
                const auto scale = static_cast<double>(scales[r]);
                expected.push_back(activate(Activation::silu, layer.value(values[r], scale, o)) *
                                   layer.value(values[r], scale, out + o));
                largest = std::max(largest, std::abs(expected.back()));
              }
              for (std::size_t o = 0; o < expected.size(); ++o)
                (to == Format::f32 ? plain : rounded)
                    .compare(name, found[r][o] * static_cast<double>(y_scales[r]), expected[o], largest);
              for (std::size_t o = expected.size(); o < found[r].size(); ++o) CHECK_EQ(found[r][o], 0.0);
            }
          }
}

TEST(norm_matches_plain_loops) {
  std::mt19937 random(5);
  Residual plain("norm", 5e-7), rounded("norm, rounded", 4e-3);
  for (Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms, Norm::Kind::adaptive})
    for (Format to : {Format::f32, Format::bf16, Format::int8})
      for (std::int64_t rows : {1, 5})
        for (std::int64_t width : {1, 30, 64, 1283}) {
          const auto stream = gpu().make_stream();
          const Floats full = random_floats(random, rows * width, 3.0f),
                       weight = random_floats(random, width),
                       modulation = random_floats(random, 2 * width, 2.0f);
          const Device x(full), device_weight(weight), device_modulation(modulation);
          const DeviceRows y(to, rows, width);
          gpu().norm(*stream, x.at(), {kind, device_weight.at(), device_modulation.at(), 1e-6f}, y.rows);
          const std::vector<Doubles> found = y.read(*stream, true);
          const Floats scales =
              to == Format::int8 ? y.scales(*stream) : Floats(static_cast<std::size_t>(rows), 1.0f);
          for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
            double squares = 0, largest = 1e-30;
            Doubles expected;
            const auto n = static_cast<std::size_t>(width);
            for (std::size_t i = 0; i < n; ++i) {
              expected.push_back(static_cast<double>(full[r * n + i]));
              squares += expected.back() * expected.back();
            }
            const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
            for (std::size_t i = 0; i < n; ++i) {
              double& v = expected[i];
              if (kind == Norm::Kind::rms) v *= scale * static_cast<double>(weight[i]);
              if (kind == Norm::Kind::adaptive)
                v = v * scale * (1 + static_cast<double>(modulation[i])) +
                    static_cast<double>(modulation[n + i]);
              largest = std::max(largest, std::abs(v));
            }
            if (to == Format::int8) CHECK_NEAR(static_cast<double>(scales[r]), largest / 127, largest * 1e-7);
            for (std::size_t i = 0; i < n; ++i)
              (to == Format::f32 ? plain : rounded)
                  .compare("norm", found[r][i] * static_cast<double>(scales[r]), expected[i], largest);
            for (std::size_t i = n; i < found[r].size(); ++i) CHECK_EQ(found[r][i], 0.0);
          }
        }
}

TEST(a_row_of_zeros_stays_zeros_at_every_format) {
  for (Format to : {Format::f32, Format::bf16, Format::int8}) {
    const auto stream = gpu().make_stream();
    const Device x(Floats(20, 0.0f)), weight(Floats(20, 2.0f));
    const DeviceRows y(to, 1, 20);
    gpu().norm(*stream, x.at(), {Norm::Kind::rms, weight.at(), nullptr, 1e-6f}, y.rows);
    const std::vector<Doubles> found = y.read(*stream, true);
    for (double v : found[0]) CHECK_EQ(v, 0.0);
  }
}

TEST(what_is_not_there_is_refused_by_name) {
  const auto stream = gpu().make_stream();
  const Device y(Floats(64));
  const DeviceRows x(Format::bf16, 1, 16);
  Linear layer;
  layer.out = layer.in = 16;
  CHECK_THROWS(gpu().product(*stream, x.rows, layer, {}, y.at()), DeviceError, "product with fp32 weights");
  layer.format = Format::w8;
  CHECK_THROWS(gpu().product(*stream, x.rows, layer, {}, y.at()), DeviceError, "(w8)");
  CHECK_THROWS(gpu().cache_bytes(Format::f32, 2, 128, 16), DeviceError, "cache that is not bf16");
  CHECK_THROWS(gpu().cache_bytes(Format::bf16, 2, 256, 16), DeviceError, "more than 128 dims");
  CHECK_THROWS(gpu().window_attention(*stream, y.at(), {}, {}, Format::bf16, {}, x.rows), DeviceError,
               "window_attention");
  CHECK_THROWS(gpu().euler(*stream, {}), DeviceError, "euler");
  CHECK_THROWS(gpu().embed(*stream, {}, Format::bf16, nullptr, 16, y.at()), DeviceError, "embed");
}

}  // namespace wallx::test
