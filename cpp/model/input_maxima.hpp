// InputMaxima: a processor's backend that also keeps the largest magnitude of every input of every layer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"

namespace wallx {

// For fp32 weights and one context at a time.
class InputMaxima : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;

  void product(Stream& stream, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
               std::int64_t y_stride = 0) override {
    observe(x, layer);
    CpuBackend::product(stream, x, layer, epilogue, y, y_stride);
  }
  void gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) override {
    observe(x, layer.gate);
    CpuBackend::gated_product(stream, x, layer, y);
  }
  // weights -> of each input  (in)
  const std::map<const void*, std::vector<float>>& found() const { return found_; }

 private:
  void observe(const Rows& x, const Linear& layer) {
    if (x.format != Format::f32) return;
    std::vector<float>& largest = found_[layer.weight];
    largest.resize(static_cast<std::size_t>(layer.in));
    for (std::int64_t r = 0; r < x.count; ++r) {
      const auto* row = reinterpret_cast<const float*>(static_cast<const std::byte*>(x.data) + r * x.stride);
      for (std::size_t i = 0; i < largest.size(); ++i) largest[i] = std::max(largest[i], std::abs(row[i]));
    }
  }

  std::map<const void*, std::vector<float>> found_;
};

}  // namespace wallx
