// Naive: the ops as plain loops in double precision, and the measure by which results are compared.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/fp32.hpp"
#include "check.hpp"

namespace wallx::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr float kSentinel = 1234.5f;  // around and between outputs: nobody may write there

// uniform in [-scale, scale)
inline Floats random_floats(std::mt19937& random, std::int64_t size, float scale = 1.0f) {
  Floats out(static_cast<std::size_t>(size));
  for (float& v : out) v = scale * (static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f);
  return out;
}

// WALLX_TOL_SCALE multiplies every tolerance: 0 fails every case that has a residual, and prints it
inline double scaled(double tolerance) {
  const char* scale = std::getenv("WALLX_TOL_SCALE");
  return scale ? tolerance * std::atof(scale) : tolerance;
}

// The worst error of a family of cases, as a share of the largest expected value; printed when it ends.
class Residual {
 public:
  Residual(std::string family, double tolerance)
      : family_(std::move(family)), tolerance_(scaled(tolerance)) {}
  void set_tolerance(double tolerance) { tolerance_ = scaled(tolerance); }
  ~Residual() {
    std::printf("  %s: worst residual %.1e in %s (tolerance %.1e)\n", family_.c_str(), worst_,
                worst_case_.c_str(), tolerance_);
  }
  void compare(const std::string& name, const Floats& found, const Doubles& expected) {
    if (found.size() != expected.size())
      return fail(__FILE__, __LINE__, show("size", found.size(), expected.size()));
    double largest = 1e-30, error = 0;
    for (double v : expected) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double e = std::abs(static_cast<double>(found[i]) - expected[i]) / largest;
      if (!(e <= error)) error = e;  // NaN stays
    }
    if (!(error <= worst_)) {
      worst_ = error;
      worst_case_ = name;
    }
    if (!(error <= tolerance_))
      fail(__FILE__, __LINE__, family_ + " " + name + ": residual " + std::to_string(error * 1e6) + "e-6");
  }

 private:
  std::string family_;
  double tolerance_;
  double worst_ = 0;
  std::string worst_case_ = "none";
};

inline double activate(Activation activation, double v) {
  if (activation == Activation::silu) return v / (1.0 + std::exp(-v));
  if (activation == Activation::gelu) return 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0)));
  return v;
}

inline Doubles naive_linear(const Floats& x, std::int64_t rows, const cpu::Dense& layer) {
  Doubles y;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < layer.out; ++o) {
      double total = layer.bias ? layer.bias[o] : 0.0;
      for (std::int64_t i = 0; i < layer.in; ++i)
        total += static_cast<double>(x[static_cast<std::size_t>(r * layer.in + i)]) *
                 layer.weight[o * layer.in + i];
      y.push_back(total);
    }
  return y;
}

// softmax(scale * q . keys) over `values`, one query
inline Doubles naive_attend(const Doubles& q, const std::vector<Doubles>& keys,
                            const std::vector<Doubles>& values) {
  Doubles weights, y(q.size(), 0.0);
  double largest = -INFINITY, total = 0;
  for (const Doubles& key : keys) {
    double score = 0;
    for (std::size_t i = 0; i < q.size(); ++i) score += q[i] * key[i];
    weights.push_back(score / std::sqrt(static_cast<double>(q.size())));
    largest = std::max(largest, weights.back());
  }
  for (double& w : weights) total += w = std::exp(w - largest);
  for (std::size_t t = 0; t < keys.size(); ++t)
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += weights[t] / total * values[t][i];
  return y;
}

inline Doubles naive_rotate(const Doubles& head, const double* cos, const double* sin) {
  const std::size_t half = head.size() / 2;
  Doubles out(head.size());
  for (std::size_t i = 0; i < head.size(); ++i)  // x cos + rotate_half(x) sin
    out[i] = head[i] * cos[i] + (i < half ? -head[i + half] : head[i - half]) * sin[i];
  return out;
}

inline Doubles slice(const Floats& from, std::int64_t at, std::int64_t size) {
  return {from.begin() + at, from.begin() + at + size};
}

}  // namespace wallx::test
