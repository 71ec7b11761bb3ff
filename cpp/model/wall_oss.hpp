// WallOss: the whole network of one checkpoint: weights and graph, immutable after loading.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "model/action_head.hpp"
#include "model/config.hpp"
#include "model/language.hpp"
#include "model/vision.hpp"
#include "model/weights.hpp"

namespace wallx {

class WallOss {
 public:
  // Loads a checkpoint folder; slots and state as for ModelConfig::load. Throws CheckpointError naming what
  // is missing, surplus or wrong; ConfigError: impossible slots.
  static std::shared_ptr<const WallOss> load(const std::string& directory, const Slots& dof = {},
                                             const Slots& agent_pos = {},
                                             std::optional<bool> is_state_text = {});

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  const Vision& vision() const { return vision_; }
  const Language& language() const { return language_; }
  const ActionHead& action_head() const { return action_head_; }

 private:
  WallOss(const std::string& directory, ModelConfig config);

  ModelConfig config_;
  Weights weights_;
  Vision vision_;
  Language language_;
  ActionHead action_head_;
};

}  // namespace wallx
