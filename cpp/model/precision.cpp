// Precision: the table of names.
// SPDX-License-Identifier: Apache-2.0
#include "model/precision.hpp"

#include "base/errors.hpp"

namespace wallx {
namespace {

using enum Format;
// name, vision, attention, feed_forward, head, edge, cache
const Precision kPrecisions[] = {
    {"fp32", f32, f32, f32, f32, f32, f32},
    {"bf16", bf16, bf16, bf16, bf16, bf16, bf16},
    {"fp16", bf16, bf16, bf16, bf16, bf16, bf16},
    {"int8", int8, int8, int8, int8, bf16, bf16},
    {"mixed", bf16, bf16, int8, int8, bf16, bf16},
    {"w8", w8, w8, w8, w8, bf16, bf16},
};

}  // namespace

Precision Precision::find(const std::string& name) {
  std::string all;
  for (const Precision& precision : kPrecisions) {
    if (precision.name == name) return precision;
    all += (all.empty() ? "" : ", ") + precision.name;
  }
  throw ConfigError("precision is '" + name + "', expected one of " + all);
}

std::vector<std::string> Precision::names() {
  std::vector<std::string> all;
  for (const Precision& precision : kPrecisions) all.push_back(precision.name);
  return all;
}

}  // namespace wallx
