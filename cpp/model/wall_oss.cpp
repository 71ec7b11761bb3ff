// WallOss: loading.
// SPDX-License-Identifier: Apache-2.0
#include "model/wall_oss.hpp"

#include "base/errors.hpp"

namespace wallx {
namespace {

// the network cannot be built without the widths that the slots add up to
ModelConfig require_slots(const std::string& directory, ModelConfig config) {
  const auto require = [&](const char* key, const char* argument, const Slots& slots) {
    if (slots.empty())
      throw CheckpointError(directory + "/config.json: " + key + ": missing; " + config.architecture +
                            " checkpoints may have it in config.yml: give it as " + argument);
  };
  require("dof_config", "dof", config.dof);
  if (!config.is_state_text) require("agent_pos_config", "agent_pos", config.agent_pos);
  return config;
}

}  // namespace

WallOss::WallOss(const std::string& directory, ModelConfig config)
    : config_(require_slots(directory, std::move(config))),
      weights_(directory),
      vision_(config_.vision, weights_),
      language_(config_, weights_),
      action_head_(config_, weights_) {
  // the normalizer's statistics belong to Python, which reads them by name
  for (const std::string& name : weights_.names())
    if (name.find(".normalizer_") != std::string::npos) weights_.skip(name);
  weights_.require_all_used();
}

std::shared_ptr<const WallOss> WallOss::load(const std::string& directory, const Slots& dof,
                                             const Slots& agent_pos, std::optional<bool> is_state_text) {
  return std::shared_ptr<const WallOss>(
      new WallOss(directory, ModelConfig::load(directory, dof, agent_pos, is_state_text)));
}

}  // namespace wallx
