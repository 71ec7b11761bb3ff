// Flow: prompts, denoising and text options from Python, checked and owned.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/core/arrays.hpp"
#include "engine/text_decoder.hpp"
#include "runtime/chunk_work.hpp"

namespace wallx {

inline OwnPrompt to_prompt(const py::object& ids_like, const py::object& pixels_like, const py::object& grids,
                           std::int64_t state_token_id, const py::object& state_like,
                           const py::object& mask_like) {
  const auto own = []<class Array>(const Array& array) {
    return std::vector<typename Array::value_type>(array.data(), array.data() + array.size());
  };
  return {own(to_integers("ids", ids_like)),
          own(to_floats("pixels", pixels_like)),
          to_grids(grids),
          state_token_id,
          own(to_floats("state", state_like)),
          own(to_floats("state_mask", mask_like))};
}

// what a Python call says about a flow, besides noise and mask
struct FlowArguments {
  std::int64_t num_steps = 10;
  std::string attention = "checkpoint", time_grid = "intervals";
  py::object padding_action = py::none();
  std::optional<float> time_scale, time_shift;
  py::object previous = py::none(), guidance = py::none();
  std::int64_t num_frozen = 0;
  float max_guidance = 10;
};

// Throws ConfigError: unknown names, wrong shapes.
inline OwnFlow to_flow(const py::object& noise_like, const py::object& mask_like, const FlowArguments& from) {
  OwnFlow flow;
  flow.options.num_steps = from.num_steps;
  if (from.attention == "causal") {
    flow.options.attention = ActionAttention::causal;
  } else if (from.attention == "bidirectional") {
    flow.options.attention = ActionAttention::bidirectional;
  } else if (from.attention != "checkpoint") {
    throw ConfigError("attention is '" + from.attention +
                      "', expected 'checkpoint', 'bidirectional' or 'causal'");
  }
  if (from.time_grid == "legacy") {
    flow.options.time_grid = TimeGrid::legacy;
  } else if (from.time_grid != "intervals") {
    throw ConfigError("time_grid is '" + from.time_grid + "', expected 'intervals' or 'legacy'");
  }
  flow.options.time_scale = from.time_scale;
  flow.options.time_shift = from.time_shift;
  const Floats noise = to_floats("noise", noise_like);
  if (noise.ndim() != 2) throw ConfigError("noise must have shape (horizon, action_dim)");
  flow.horizon = noise.shape(0);
  const auto own = [](const char* name, const py::object& like) {
    if (like.is_none()) return std::vector<float>();
    const Floats array = to_floats(name, like);
    if (array.size() == 0) throw ConfigError(std::string(name) + " has 0 values");
    return std::vector<float>(array.data(), array.data() + array.size());
  };
  flow.noise.assign(noise.data(), noise.data() + noise.size());
  const Floats mask = to_floats("dof_mask", mask_like);
  flow.mask.assign(mask.data(), mask.data() + mask.size());
  flow.padding_action = own("padding_action", from.padding_action);
  flow.previous = own("previous", from.previous);
  flow.guidance = own("guidance", from.guidance);
  flow.options.guide.num_frozen = from.num_frozen;
  flow.options.guide.max_gain = from.max_guidance;
  return flow;
}

inline TextOptions to_text_options(std::int64_t max_new_tokens, std::vector<std::int64_t> stop_ids,
                                   float temperature, float top_p, std::uint64_t seed,
                                   std::optional<std::pair<std::int64_t, std::int64_t>> allowed_ids) {
  TextOptions options{max_new_tokens, std::move(stop_ids), temperature, top_p, seed, 0, {}};
  if (allowed_ids) std::tie(options.first_id, options.end_id) = *allowed_ids;
  return options;
}

}  // namespace wallx
