// WallOss: loading.
// SPDX-License-Identifier: Apache-2.0
#include "model/wall_oss.hpp"

#include <algorithm>

#include "backend/cpu/cpu_backend.hpp"
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

Precision precision_of(const std::string& directory, const std::string& packed, const std::string& asked,
                       bool is_planned) {
  if (packed.empty()) return Precision::find(asked.empty() ? "fp32" : asked);
  if (is_planned)
    throw CheckpointError(directory + " is packed as " + packed +
                          " already; quantize the checkpoint that it was made of");
  if (!asked.empty() && asked != packed && Precision::find(asked).name != packed)
    throw ConfigError(directory + " is packed as " + packed + " and cannot be loaded as " + asked +
                      "; load the checkpoint that it was made of");
  const std::vector<std::string> known = Precision::names();
  if (std::ranges::find(known, packed) == known.end())
    throw CheckpointError(directory + ": its metadata says wallx_precision '" + packed +
                          "', which this version does not know; quantize the checkpoint again");
  return Precision::find(packed);
}

}  // namespace

WallOss::WallOss(const std::string& directory, ModelConfig config, const LoadOptions& options, PackPlan* plan)
    : config_(require_slots(directory, std::move(config))),
      backend_(options.backend ? options.backend : std::make_shared<CpuBackend>(CpuOptions{})),
      weights_(directory),
      layers_(weights_, *backend_,
              precision_of(directory, weights_.packed_precision(), options.precision, plan != nullptr), plan),
      vision_(config_.vision, layers_, backend_),
      language_(config_, layers_, backend_),
      action_head_(config_, layers_, backend_) {
  // the normalizer's statistics belong to Python, which reads them by name
  for (const std::string& name : weights_.names())
    if (name.find(".normalizer_") != std::string::npos) {
      weights_.skip(name);
      if (plan) plan->copies.emplace_back(name, Format::f32);
    }
  weights_.require_all_used();
}

std::shared_ptr<const WallOss> WallOss::load(const std::string& directory, const Slots& dof,
                                             const Slots& agent_pos, std::optional<bool> is_state_text,
                                             const LoadOptions& options) {
  return std::shared_ptr<const WallOss>(
      new WallOss(directory, ModelConfig::load(directory, dof, agent_pos, is_state_text), options, nullptr));
}

}  // namespace wallx
