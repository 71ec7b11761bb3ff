// FlowSampler: the grid.
// SPDX-License-Identifier: Apache-2.0
#include "engine/flow_sampler.hpp"

#include <string>

#include "base/errors.hpp"

namespace wallx {

std::vector<float> time_points(const FlowOptions& options, float own_scale, float own_shift) {
  const float scale = options.time_scale.value_or(own_scale), shift = options.time_shift.value_or(own_shift);
  if (!(scale > 0 && scale <= 1))
    throw ConfigError("time_scale is " + std::to_string(scale) + ", expected more than 0 and at most 1");
  if (!(shift >= 1e-3f && shift <= 1e3f))
    throw ConfigError("time_shift is " + std::to_string(shift) + ", expected 0.001 to 1000");
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
  for (float& t : out) {
    if (shift != 1) t = shift * t / (1 + (shift - 1) * t);
    t *= scale;
  }
  return out;
}

}  // namespace wallx
