// FlowSampler: the grid.
// SPDX-License-Identifier: Apache-2.0
#include "engine/flow_sampler.hpp"

#include <string>

#include "base/errors.hpp"

namespace wallx {

std::vector<float> time_points(const FlowOptions& options) {
  const bool is_legacy = options.time_grid == TimeGrid::legacy;
  if (options.num_steps < (is_legacy ? 2 : 1) || options.num_steps > 1000)
    throw ConfigError("num_steps is " + std::to_string(options.num_steps) + ", expected " +
                      (is_legacy ? "2" : "1") + " to 1000");
  const std::int64_t points = options.num_steps + (is_legacy ? 0 : 1);
  std::vector<float> out;
  const float step = 1.0f / static_cast<float>(points - 1);
  // from both ends to the middle, as torch.linspace rounds
  for (std::int64_t i = 0; i < points; ++i)
    out.push_back(i < points / 2 ? step * static_cast<float>(i)
                                 : 1.0f - step * static_cast<float>(points - 1 - i));
  return out;
}

}  // namespace wallx
