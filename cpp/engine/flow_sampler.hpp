// FlowSampler: the time grid along which noise becomes actions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace wallx {

enum class ActionAttention {
  bidirectional,  // action tokens see each other both ways; the default
  causal,         // what the reference's sdpa and flash paths computed for one request
};

enum class TimeGrid {
  intervals,  // N Euler steps over N equal intervals of [0, 1]; the default
  legacy,     // the first release: N points, so N - 1 steps
};

struct FlowOptions {
  std::int64_t num_steps = 10;
  ActionAttention attention = ActionAttention::bidirectional;
  TimeGrid time_grid = TimeGrid::intervals;
};

// points of the grid as the reference's linspace gives them; one Euler step between neighbours
std::vector<float> time_points(const FlowOptions& options);

}  // namespace wallx
