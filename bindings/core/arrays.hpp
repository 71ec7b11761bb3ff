// Arrays: numbers from Python, checked, and numbers to Python.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "model/positions.hpp"

namespace wallx {

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

// any array or nested list of numbers; a conversion that would lose more than precision is refused
template <class Array>
Array to_numbers(const char* name, const py::object& object, const char* kinds, const char* wanted) {
  const py::array array = py::array::ensure(object);
  if (!array) throw ConfigError(std::string(name) + " is not an array");
  const char kind = array.dtype().kind();
  if (array.size() > 0 && !std::strchr(kinds, kind))
    throw ConfigError(std::string(name) + " has dtype " + std::string(py::str(array.dtype())) +
                      ", expected " + wanted);
  return Array::ensure(array);
}
inline Floats to_floats(const char* name, const py::object& object) {
  return to_numbers<Floats>(name, object, "fiub", "floats");
}
inline Integers to_integers(const char* name, const py::object& object) {
  return to_numbers<Integers>(name, object, "iub", "whole numbers");
}

inline std::span<const float> view(const Floats& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}
inline std::span<const std::int64_t> view(const Integers& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
py::array_t<T> to_array(const std::vector<T>& data, const std::vector<py::ssize_t>& shape) {
  py::array_t<T> out(shape);
  std::copy(data.begin(), data.end(), out.mutable_data());
  return out;
}

inline std::vector<Grid> to_grids(const py::object& object) {
  const Integers array = to_integers("grids", object);
  if (array.size() == 0) return {};
  if (array.ndim() != 2 || array.shape(1) != 3) throw ConfigError("grids must have shape (pictures, 3)");
  std::vector<Grid> grids;
  for (py::ssize_t i = 0; i < array.shape(0); ++i)
    grids.push_back({array.at(i, 0), array.at(i, 1), array.at(i, 2)});
  return grids;
}

inline RopeLayout to_layout(const std::string& name) {
  if (name == "hf") return RopeLayout::hf;
  if (name == "contiguous") return RopeLayout::contiguous;
  throw ConfigError("rope_layout is '" + name + "', expected 'hf' or 'contiguous'");
}

}  // namespace wallx
