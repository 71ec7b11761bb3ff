// RealtimeChunking: weights, gain and the guided velocity.
// SPDX-License-Identifier: Apache-2.0
#include "engine/realtime_chunking.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "base/errors.hpp"

namespace wallx {

std::vector<float> guidance_weights(std::int64_t start, std::int64_t end, std::int64_t horizon) {
  if (start < 0 || start > end || end > horizon)
    throw ConfigError("guidance from row " + std::to_string(start) + " to row " + std::to_string(end) +
                      " of " + std::to_string(horizon) + ", expected 0 <= start <= end <= horizon");
  std::vector<float> out(static_cast<std::size_t>(horizon), 0.0f);
  for (std::int64_t i = 0; i < end; ++i) {
    const double falling = static_cast<double>(start - 1 - i) / static_cast<double>(end - start + 1) + 1;
    const double w = std::clamp(falling, 0.0, 1.0);
    out[static_cast<std::size_t>(i)] = static_cast<float>(w * std::expm1(w) / (std::numbers::e - 1));
  }
  return out;
}

float guidance_gain(float time, float max_gain) {
  const float left = 1 - time;
  if (time <= 0 || left <= 0) return max_gain;
  return std::min(left / time * (time * time + left * left) / (left * left), max_gain);
}

void require_valid(const ChunkGuide& guide, std::int64_t horizon, std::int64_t action_dim) {
  const auto require_size = [](const char* what, std::size_t found, std::int64_t expected) {
    if (static_cast<std::int64_t>(found) != expected)
      throw ConfigError(std::string(what) + " has " + std::to_string(found) + " values, expected " +
                        std::to_string(expected));
  };
  require_size("previous", guide.previous.size(), horizon * action_dim);
  require_size("guidance", guide.weights.size(), horizon);
  for (std::size_t i = 0; i < guide.previous.size(); ++i)
    if (!std::isfinite(guide.previous[i]))
      throw ConfigError("previous[" + std::to_string(i) + "] is " + std::to_string(guide.previous[i]) +
                        ", expected a finite number");
  for (std::size_t i = 0; i < guide.weights.size(); ++i)
    if (!(guide.weights[i] >= 0 && guide.weights[i] <= 1))
      throw ConfigError("guidance[" + std::to_string(i) + "] is " + std::to_string(guide.weights[i]) +
                        ", expected 0 to 1");
  if (guide.num_frozen < 0 || guide.num_frozen > horizon)
    throw ConfigError("num_frozen is " + std::to_string(guide.num_frozen) + ", expected 0 to the horizon " +
                      std::to_string(horizon));
  if (!(guide.max_gain > 0 && guide.max_gain <= 1000))
    throw ConfigError("max_guidance is " + std::to_string(guide.max_gain) +
                      ", expected above 0, at most 1000");
}

void guide_velocity(const ChunkGuide& guide, float time, std::span<const float> x,
                    std::span<const float> mask, std::span<float> velocity) {
  if (guide.is_empty()) return;
  const float gain = guidance_gain(time, guide.max_gain), left = 1 - time;
  const std::size_t dim = x.size() / guide.weights.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float weight = guide.weights[i / dim] * mask[i];
    velocity[i] += gain * weight * (guide.previous[i] - (x[i] + left * velocity[i]));
  }
}

void freeze_rows(const ChunkGuide& guide, std::span<const float> mask, std::span<float> x) {
  if (guide.is_empty()) return;
  const std::size_t dim = x.size() / guide.weights.size();
  const std::size_t count = static_cast<std::size_t>(guide.num_frozen) * dim;
  for (std::size_t i = 0; i < count; ++i)
    if (mask[i] != 0) x[i] = guide.previous[i];
}

}  // namespace wallx
