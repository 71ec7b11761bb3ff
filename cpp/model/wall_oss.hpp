// WallOss: the whole network of one checkpoint: weights and graph, immutable after loading.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "model/action_head.hpp"
#include "model/config.hpp"
#include "model/language.hpp"
#include "model/layers.hpp"
#include "model/vision.hpp"
#include "model/weights.hpp"

namespace wallx {

// How a checkpoint is loaded.
struct LoadOptions {
  std::string precision;             // of Precision::names(); empty: as the folder is packed, else fp32
  std::shared_ptr<Backend> backend;  // null: this processor, all cores
};

class WallOss {
 public:
  // Loads a checkpoint folder; slots and state as for ModelConfig::load. Throws CheckpointError naming what
  // is missing, surplus or wrong; ConfigError: impossible slots, an unknown precision, or another one than the
  // folder is packed in.
  static std::shared_ptr<const WallOss> load(const std::string& directory, const Slots& dof = {},
                                             const Slots& agent_pos = {},
                                             std::optional<bool> is_state_text = {},
                                             const LoadOptions& options = {});

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  const Precision& precision() const { return layers_.precision(); }
  const std::shared_ptr<Backend>& backend() const { return backend_; }
  std::size_t packed_bytes() const { return layers_.packed_bytes(); }
  std::size_t mapped_bytes() const { return weights_.mapped_bytes() + layers_.mapped_bytes(); }
  const Vision& vision() const { return vision_; }
  const Language& language() const { return language_; }
  const ActionHead& action_head() const { return action_head_; }

 private:
  friend class Quantizer;
  WallOss(const std::string& directory, ModelConfig config, const LoadOptions& options, PackPlan* plan);

  ModelConfig config_;
  std::shared_ptr<Backend> backend_;
  Weights weights_;
  Layers layers_;  // keeps what was packed
  Vision vision_;
  Language language_;
  ActionHead action_head_;
};

}  // namespace wallx
