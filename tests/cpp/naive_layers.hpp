// NaiveLayers: a checkpoint's layers as plain loops in double precision, one token at a time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "model/weights.hpp"

namespace wallx::test {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

inline Row to_row(const float* from, std::int64_t size) { return {from, from + size}; }

inline Row silu(Row v) {
  for (double& one : v) one /= 1 + std::exp(-one);
  return v;
}
inline Row gelu(Row v) {
  for (double& one : v) one *= 0.5 * (1 + std::erf(one / std::sqrt(2.0)));
  return v;
}
inline void add(Row& to, const Row& from) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}
inline Row rms_norm(const Row& x, const Row& weight) {
  double squares = 0;
  for (double v : x) squares += v * v;
  Row y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-6) * weight[i];
  return y;
}
// one head: pair (i, i + half) turned by angles[i]
inline Row rotate(const Row& x, const Row& angles) {
  const std::size_t half = angles.size();
  Row y(x.size());
  for (std::size_t i = 0; i < half; ++i) {
    y[i] = x[i] * std::cos(angles[i]) - x[half + i] * std::sin(angles[i]);
    y[half + i] = x[half + i] * std::cos(angles[i]) + x[i] * std::sin(angles[i]);
  }
  return y;
}
// one head of one token over the tokens that it sees
inline Row attend(const Row& q, const Rows& keys, const Rows& values) {
  Row y(q.size(), 0.0);
  double total = 0;
  for (std::size_t t = 0; t < keys.size(); ++t) {
    double score = 0;
    for (std::size_t i = 0; i < q.size(); ++i) score += q[i] * keys[t][i];
    const double weight = std::exp(score / std::sqrt(static_cast<double>(q.size())));
    total += weight;
    for (std::size_t i = 0; i < q.size(); ++i) y[i] += weight * values[t][i];
  }
  for (double& v : y) v /= total;
  return y;
}
// head `index` of a row of heads
inline Row head_of(const Row& row, std::size_t index, std::size_t dim) {
  const double* from = row.data() + index * dim;
  return {from, from + dim};
}

class NaiveLayers {
 public:
  explicit NaiveLayers(const Weights& weights) : weights_(weights) {}

  Row tensor(const std::string& name) const {
    const std::vector<float> values = weights_.read(name);
    return {values.begin(), values.end()};
  }
  Row product(const std::string& prefix, const Row& x) const {
    const Row weight = tensor(prefix + ".weight");
    Row y(weight.size() / x.size(), 0.0);
    for (std::size_t o = 0; o < y.size(); ++o)
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
    if (weights_.contains(prefix + ".bias")) add(y, tensor(prefix + ".bias"));
    return y;
  }
  Row norm(const std::string& prefix, const Row& x) const { return rms_norm(x, tensor(prefix + ".weight")); }
  Row feed_forward(const std::string& prefix, const Row& x) const {
    Row gated = silu(product(prefix + "gate_proj", x));
    const Row up = product(prefix + "up_proj", x);
    for (std::size_t i = 0; i < gated.size(); ++i) gated[i] *= up[i];
    return product(prefix + "down_proj", gated);
  }

 private:
  const Weights& weights_;
};

}  // namespace wallx::test
