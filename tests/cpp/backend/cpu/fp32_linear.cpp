// Fp32LinearTest: products, their epilogues, and the norm, against loops in double precision.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend/naive.hpp"

namespace wallx::test {
namespace {

using cpu::Dense;

enum class Residue { none, separate, in_place };  // where the residual stands

struct LinearCase {
  std::int64_t rows = 1, in = 1, out = 1;
  Activation activation = Activation::none;
  bool has_bias = false;
  Residue residual = Residue::none;
  std::int64_t gap = 0;  // columns between the rows of y

  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(in) + "->" + std::to_string(out) + " activation " +
           std::to_string(static_cast<int>(activation)) + (has_bias ? " bias" : "") +
           (residual == Residue::separate   ? " residual"
            : residual == Residue::in_place ? " residual in place"
                                            : "") +
           (gap ? " gap " + std::to_string(gap) : "");
  }

  void run(std::mt19937& random, Residual& residue) const {
    const Floats x = random_floats(random, rows * in);
    const Floats weight = random_floats(random, out * in, 1.0f / std::sqrt(static_cast<float>(in)));
    const Floats bias = random_floats(random, out);
    const Floats add = random_floats(random, rows * out);
    const Dense layer{weight.data(), has_bias ? bias.data() : nullptr, out, in};
    const std::int64_t stride = out + gap;
    // in place: residual rows are layer.out apart, so y's must be too
    Floats y(static_cast<std::size_t>(rows * stride + 7), kSentinel);
    if (residual == Residue::in_place) std::copy(add.begin(), add.end(), y.begin());
    const float* from = residual == Residue::none       ? nullptr
                        : residual == Residue::separate ? add.data()
                                                        : y.data();
    cpu::linear(x.data(), rows, layer, {activation, nullptr, from, 0}, y.data(), stride);

    Doubles expected = naive_linear(x, rows, layer);
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = activate(activation, expected[i]) + (from ? add[i] : 0.0f);
    Floats found;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(y.size()); ++i) {
      const float v = y[static_cast<std::size_t>(i)];
      if (i < rows * stride && i % stride < out) {
        found.push_back(v);
      } else {
        CHECK_EQ(v, kSentinel);
      }
    }
    residue.compare(name(), found, expected);
  }
};

}  // namespace

TEST(linear_matches_plain_loops_at_every_row_count) {
  std::mt19937 random(1);
  Residual residue("linear, 1..300 rows", 2e-6);
  for (std::int64_t rows = 1; rows <= 300; ++rows)
    LinearCase{rows, 19, 37, Activation::none, true, Residue::in_place, 0}.run(random, residue);
}

TEST(linear_matches_plain_loops_at_every_small_size) {
  std::mt19937 random(2);
  Residual residue("linear, odd sizes", 2e-6);
  for (std::int64_t in : {1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 1176})
    for (std::int64_t out : {1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 70})
      for (std::int64_t rows : {1, 3, 4, 5})
        LinearCase{rows, in, out, Activation::none, false, Residue::none, 0}.run(random, residue);
}

TEST(linear_matches_plain_loops_with_every_epilogue) {
  std::mt19937 random(3);
  Residual residue("linear, epilogues", 2e-6);
  for (Activation activation : {Activation::none, Activation::silu, Activation::gelu})
    for (bool has_bias : {false, true})
      for (Residue residual : {Residue::none, Residue::separate, Residue::in_place})
        for (std::int64_t gap : {0, 1, 40})
          for (std::int64_t rows : {1, 6, 257, 260})
            if (residual != Residue::in_place || gap == 0)
              LinearCase{rows, 40, 35, activation, has_bias, residual, gap}.run(random, residue);
}

TEST(linear_keeps_its_precision_at_model_sizes) {
  std::mt19937 random(4);
  Residual residue("linear, model sizes", 2e-6);
  LinearCase{3, 2048, 256, Activation::none, true, Residue::none, 0}.run(random, residue);
  LinearCase{2, 11008, 65, Activation::none, false, Residue::in_place, 0}.run(random, residue);
  LinearCase{5, 5120, 130, Activation::gelu, true, Residue::none, 0}.run(random, residue);
}

// a token's numbers must not depend on how many others are computed with it
TEST(linear_gives_a_row_the_same_bits_in_any_company) {
  std::mt19937 random(5);
  const std::int64_t in = 83, out = 45, rows = 9;
  const Floats x = random_floats(random, rows * in), weight = random_floats(random, out * in);
  const Dense layer{weight.data(), nullptr, out, in};
  Floats together(static_cast<std::size_t>(rows * out)), alone(static_cast<std::size_t>(out));
  cpu::linear(x.data(), rows, layer, {Activation::silu}, together.data(), out);
  for (std::int64_t r = 0; r < rows; ++r) {
    cpu::linear(x.data() + r * in, 1, layer, {Activation::silu}, alone.data(), out);
    CHECK(std::equal(alone.begin(), alone.end(), together.begin() + r * out));
  }
}

TEST(activations_stay_finite_far_out) {
  const Floats x{-1e30f, -200.0f, -88.8f, -0.0f, 0.0f, 1e-30f, 88.8f, 200.0f, 1e30f};
  const float one = 1.0f;
  const Dense layer{&one, nullptr, 1, 1};
  for (Activation activation : {Activation::silu, Activation::gelu}) {
    Floats y(x.size());
    cpu::linear(x.data(), static_cast<std::int64_t>(x.size()), layer, {activation}, y.data(), 1);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(std::isfinite(y[i]));
      if (x[i] >= 88.0f) CHECK_EQ(y[i], x[i]);
      if (x[i] <= -200.0f) CHECK_NEAR(y[i], 0.0f, 1e-30f);
    }
  }
}

TEST(gated_linear_matches_plain_loops) {
  std::mt19937 random(6);
  Residual residue("gated_linear", 2e-6);
  for (std::int64_t rows : {1, 2, 4, 7, 255, 256, 257, 300})
    for (std::int64_t in : {1, 16, 41})
      for (std::int64_t out : {1, 5, 32, 61})
        for (bool has_bias : {false, true}) {
          const Floats x = random_floats(random, rows * in), bias = random_floats(random, 2 * out);
          const Floats weight = random_floats(random, 2 * out * in);
          const Dense gate{weight.data(), has_bias ? bias.data() : nullptr, out, in};
          const Dense up{weight.data() + out * in, has_bias ? bias.data() + out : nullptr, out, in};
          Floats y(static_cast<std::size_t>(rows * out + 3), kSentinel);
          cpu::gated_linear(x.data(), rows, gate, up, y.data(), out);
          for (std::size_t i = y.size() - 3; i < y.size(); ++i) CHECK_EQ(y[i], kSentinel);
          y.resize(y.size() - 3);
          Doubles expected = naive_linear(x, rows, gate);
          const Doubles factor = naive_linear(x, rows, up);
          for (std::size_t i = 0; i < expected.size(); ++i)
            expected[i] = activate(Activation::silu, expected[i]) * factor[i];
          residue.compare(std::to_string(rows) + "x" + std::to_string(in) + "->" + std::to_string(out), y,
                          expected);
        }
}

TEST(rms_norm_matches_plain_loops) {
  std::mt19937 random(7);
  Residual residue("rms_norm", 5e-7);
  for (std::int64_t rows : {1, 3, 300})
    for (std::int64_t width : {1, 2, 31, 64, 1280})
      for (float scale : {1e-4f, 1.0f, 1e4f}) {
        const Floats x = random_floats(random, rows * width, scale), weight = random_floats(random, width);
        const float eps = 1e-6f;
        Floats y(static_cast<std::size_t>(rows * width + 1), kSentinel);
        cpu::normalize(x.data(), rows, width, {Norm::Kind::rms, weight.data(), nullptr, eps}, y.data());
        CHECK_EQ(y.back(), kSentinel);
        y.pop_back();
        Doubles expected;
        for (std::int64_t r = 0; r < rows; ++r) {
          double squares = 0;
          for (double v : slice(x, r * width, width)) squares += v * v;
          for (std::int64_t i = 0; i < width; ++i)
            expected.push_back(x[static_cast<std::size_t>(r * width + i)] /
                               std::sqrt(squares / static_cast<double>(width) + static_cast<double>(eps)) *
                               weight[static_cast<std::size_t>(i)]);
        }
        residue.compare(std::to_string(rows) + "x" + std::to_string(width), y, expected);
      }
}

TEST(rms_norm_of_zeros_is_zeros) {
  const Floats x(8, 0.0f), weight(8, 2.0f);
  Floats y(8, kSentinel);
  cpu::normalize(x.data(), 1, 8, {Norm::Kind::rms, weight.data(), nullptr, 1e-6f}, y.data());
  for (float v : y) CHECK_EQ(v, 0.0f);
}

TEST(adaptive_rms_norm_matches_plain_loops) {
  std::mt19937 random(15);
  Residual residue("adaptive_rms_norm", 1e-6);
  for (std::int64_t rows : {1, 5})
    for (std::int64_t width : {2, 30, 1024}) {
      const Floats x = random_floats(random, rows * width, 3.0f),
                   modulation = random_floats(random, 2 * width, 2.0f);
      Floats y(x.size() + 1, kSentinel);
      cpu::normalize(x.data(), rows, width, {Norm::Kind::adaptive, nullptr, modulation.data(), 1e-6f},
                     y.data());
      CHECK_EQ(y.back(), kSentinel);
      y.pop_back();
      Doubles expected;
      for (std::int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (double v : slice(x, r * width, width)) squares += v * v;
        for (std::int64_t i = 0; i < width; ++i)
          expected.push_back(x[static_cast<std::size_t>(r * width + i)] /
                                 std::sqrt(squares / static_cast<double>(width) + 1e-6) *
                                 (1.0 + modulation[static_cast<std::size_t>(i)]) +
                             modulation[static_cast<std::size_t>(width + i)]);
      }
      residue.compare(std::to_string(width), y, expected);
    }
}

TEST(gates_scale_each_column_before_it_is_added) {
  std::mt19937 random(16);
  Residual residue("linear, gates", 2e-6);
  for (std::int64_t rows : {1, 5})
    for (std::int64_t out : {1, 33}) {
      constexpr std::int64_t kIn = 24, kResidualStride = 40;
      const Floats x = random_floats(random, rows * kIn), weight = random_floats(random, out * kIn),
                   gate = random_floats(random, out, 2.0f), bias = random_floats(random, out);
      const Dense layer{weight.data(), bias.data(), out, kIn};
      const Floats add = random_floats(random, rows * kResidualStride);
      Floats y(static_cast<std::size_t>(rows * out + 1), kSentinel);
      const Epilogue epilogue{Activation::silu, gate.data(), add.data(), kResidualStride};
      cpu::linear(x.data(), rows, layer, epilogue, y.data(), out);
      CHECK_EQ(y.back(), kSentinel);
      y.pop_back();
      Doubles expected = naive_linear(x, rows, layer);
      for (std::int64_t i = 0; i < rows * out; ++i) {
        double& value = expected[static_cast<std::size_t>(i)];
        value = add[static_cast<std::size_t>(i / out * kResidualStride + i % out)] +
                activate(Activation::silu, value) * gate[static_cast<std::size_t>(i % out)];
      }
      residue.compare(std::to_string(out), y, expected);
    }
}

}  // namespace wallx::test
