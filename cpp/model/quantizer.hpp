// Quantizer: a checkpoint's layers packed one after the other, for a file that loads as a map.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "model/wall_oss.hpp"

namespace wallx {

// A tensor of the file that is to be written.
struct PackedTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
};

// Knows every step: first one for each packed layer, whose tensors lie one after the other and are multiples
// of 64 bytes, then one for each tensor that keeps its name and shape. Steps may be made in any order.
class Quantizer {
 public:
  // wide: patterns as of a shell, of layers that stay 16-bit whatever the precision says. Errors are those of
  // WallOss::load.
  Quantizer(const std::string& directory, const Slots& dof, const Slots& agent_pos,
            std::optional<bool> is_state_text, const std::string& precision,
            const std::vector<std::string>& wide);

  std::size_t num_steps() const { return plan_.packs.size() + plan_.copies.size(); }
  bool is_layer(std::size_t step) const { return step < plan_.packs.size(); }
  const std::string& name(std::size_t step) const;
  Format format(std::size_t step) const;
  std::vector<PackedTensor> tensors(std::size_t step) const;
  // Writes a step's tensors one after the other. Blocks; throws CheckpointError: a weight that is not finite.
  void make(std::size_t step, std::byte* to) const;

  // What a layer's weights, or a vector, are multiplied with before they are packed; each may be given once.
  // Throws ConfigError: no such layer or vector, another length.
  void scale_inputs(const std::string& layer, std::vector<float> scale);   // (in)
  void scale_outputs(const std::string& layer, std::vector<float> scale);  // (out), the bias too; or (vector)

  const ModelConfig& config() const { return model_.config(); }

 private:
  void make_layer(const PackJob& job, std::byte* to) const;
  void make_copy(const std::string& name, Format format, std::byte* to) const;

  PackPlan plan_;
  WallOss model_;
  std::map<std::string, std::vector<float>> inputs_, outputs_;
};

}  // namespace wallx
