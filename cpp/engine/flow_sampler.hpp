// FlowSampler: the time grid along which noise becomes actions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/realtime_chunking.hpp"

namespace wallx {

enum class ActionAttention {
  checkpoint,     // as config.json says, and where it says nothing bidirectional; the default
  bidirectional,  // action tokens see each other both ways
  causal,         // what the reference's sdpa and flash paths computed for one request
};

enum class TimeGrid {
  intervals,  // N Euler steps over N equal intervals of [0, 1]; the default
  legacy,     // the first release: N points, so N - 1 steps
};

struct FlowOptions {
  std::int64_t num_steps = 10;
  ActionAttention attention = ActionAttention::checkpoint;
  TimeGrid time_grid = TimeGrid::intervals;
  std::optional<float> time_scale = {};  // the last time point, in (0, 1]; the checkpoint's own by default
  std::optional<float> time_shift =
      {};  // k of k t / (1 + (k - 1) t), above 0; the checkpoint's own by default
  std::span<const float> padding_action =
      {};                 // where dims that the mask leaves out move to, normalised  (action_dim);
                          // needed where the checkpoint pads and the mask has zeros
  ChunkGuide guide = {};  // rows of the chunk before that this one follows; none by default
};

// points of the grid as the reference's linspace gives them, shifted and scaled; one Euler step between
// neighbours. Throws ConfigError: num_steps, time_scale or time_shift out of bounds.
std::vector<float> time_points(const FlowOptions& options, float own_scale = 1, float own_shift = 1);

}  // namespace wallx
