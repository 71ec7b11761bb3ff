// RealtimeChunking: a new chunk is drawn toward the rows of the one before, so that the seam is smooth.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wallx {

// What a chunk follows while it is denoised; everything in the model's own range.
struct ChunkGuide {
  std::span<const float> previous;  // row 0 is due with the new chunk's row 0   (horizon x action_dim)
  std::span<const float> weights;   // how much each row follows, 0..1            (horizon)
  std::int64_t num_frozen = 0;      // rows at the start that are the previous chunk's, exactly
  float max_gain = 10;              // beta

  bool is_empty() const { return previous.empty(); }
};

// Soft mask of Black et al. 2025: 1 up to `start` rows, then falling to 0 at `end`: 1 - (i - start + 1) /
// (end - start + 1), each w times (e^w - 1) / (e - 1). 0 <= start <= end <= horizon, or ConfigError.
std::vector<float> guidance_weights(std::int64_t start, std::int64_t end, std::int64_t horizon);

// min(c / r^2, max_gain), c = (1 - t) / t, r^2 = (1 - t)^2 / (t^2 + (1 - t)^2); max_gain at both ends of [0,
// 1].
float guidance_gain(float time, float max_gain);

// Throws ConfigError: sizes, a weight outside [0, 1], values that are not finite, frozen rows beyond the
// horizon, a gain that is not positive.
void require_valid(const ChunkGuide& guide, std::int64_t horizon, std::int64_t action_dim);

// velocity += gain * weight * (previous - (x + (1 - time) * velocity)) where the mask is set: guidance with
// the identity for the network's Jacobian, so no backward pass. All (horizon x action_dim).
void guide_velocity(const ChunkGuide& guide, float time, std::span<const float> x,
                    std::span<const float> mask, std::span<float> velocity);

// After the last step: the frozen rows become the previous chunk's, whatever the time grid left of them.
void freeze_rows(const ChunkGuide& guide, std::span<const float> mask, std::span<float> x);

}  // namespace wallx
