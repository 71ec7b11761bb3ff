// Trace: named copies of intermediate tensors, for `verify` and tests; a null trace costs nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.hpp"

namespace wallx {

class Trace {
 public:
  struct Array {
    std::int64_t width = 0;
    std::vector<float> data;  // (rows x width)
  };

  // Appends rows under a name: prefill and the first denoising step together give a whole sequence.
  void append(const std::string& name, const float* data, std::int64_t rows, std::int64_t width) {
    Array& array = arrays_[name];
    array.width = width;
    array.data.insert(array.data.end(), data, data + rows * width);
  }
  // the same from device memory
  void append(const std::string& name, Backend& backend, Stream& stream, const float* data, std::int64_t rows,
              std::int64_t width) {
    std::vector<float> host(static_cast<std::size_t>(rows * width));
    backend.download(stream, data, host.data(), host.size() * sizeof(float));
    append(name, host.data(), rows, width);
  }
  const std::map<std::string, Array>& arrays() const { return arrays_; }

 private:
  std::map<std::string, Array> arrays_;
};

}  // namespace wallx
