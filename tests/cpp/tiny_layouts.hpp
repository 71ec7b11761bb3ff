// TinyLayouts: the same weights in the other layouts that published files have.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "tiny_checkpoint.hpp"

namespace wallx::test {

inline std::size_t index_of(const std::vector<RawTensor>& tensors, const std::string& name) {
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].name == name) return i;
  return tensors.size();
}

// rows of several layers as one matrix: q, k, v of every expert, gate and up of every feed-forward
inline std::vector<RawTensor> fused(std::vector<RawTensor> tensors) {
  const auto fuse = [&](const std::string& first, const std::vector<std::string>& rest, const char* from,
                        const std::string& to) {
    const std::size_t at = index_of(tensors, first);
    for (const std::string& name : rest) {
      const std::size_t other = index_of(tensors, name);
      if (other == tensors.size()) throw std::runtime_error("no tensor " + name);
      tensors[at].shape[0] += tensors[other].shape[0];
      tensors[at].bytes += tensors[other].bytes;
    }
    for (const std::string& name : rest)
      tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(index_of(tensors, name)));
    RawTensor& whole = tensors[index_of(tensors, first)];
    whole.name.replace(whole.name.find(from), std::strlen(from), to);
  };
  std::vector<std::string> names;
  for (const RawTensor& tensor : tensors) names.push_back(tensor.name);
  const auto with = [](std::string name, const char* from, const char* to) {
    return name.replace(name.find(from), std::strlen(from), to);
  };
  for (const std::string& name : names) {
    if (name.find(".gate_proj.") != std::string::npos)
      fuse(name, {with(name, "gate_proj", "up_proj")}, "gate_proj", "gate_up_proj");
    if (name.find(".q_proj_experts.") != std::string::npos)
      fuse(name, {with(name, "q_proj", "k_proj"), with(name, "q_proj", "v_proj")}, "q_proj", "qkv_proj");
  }
  return tensors;
}

// the vision feed-forward with zeros up to a multiple of 128; down_proj too, or only the rows
inline std::vector<RawTensor> padded(std::vector<RawTensor> tensors, bool is_down_padded = true) {
  for (RawTensor& tensor : tensors) {
    if (tensor.name.rfind("visual.blocks.", 0) != 0) continue;
    const auto is = [&](const char* part) { return tensor.name.find(part) != std::string::npos; };
    if (is("mlp.gate_proj") || is("mlp.up_proj")) {
      const std::int64_t rows = (tensor.shape[0] + 127) / 128 * 128;
      tensor.bytes.resize(tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]) *
                          static_cast<std::size_t>(rows));
      tensor.shape[0] = rows;
    } else if (is_down_padded && is("mlp.down_proj.weight")) {
      const auto from = static_cast<std::size_t>(tensor.shape[1]) * 4;
      tensor.shape[1] = (tensor.shape[1] + 127) / 128 * 128;
      std::string wide;
      for (std::size_t row = 0; row < static_cast<std::size_t>(tensor.shape[0]); ++row) {
        wide += tensor.bytes.substr(row * from, from);
        wide.resize((row + 1) * static_cast<std::size_t>(tensor.shape[1]) * 4);
      }
      tensor.bytes = wide;
    }
  }
  return tensors;
}

}  // namespace wallx::test
