// TinyEngine: a loaded tiny checkpoint and prompts that use text, pictures and a state.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "engine/context.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {

using Floats = std::vector<float>;
using Model = std::shared_ptr<const WallOss>;

inline Model load(const TinyModel& model, TinyModel::Storage storage = TinyModel::Storage::f32) {
  const TemporaryFolder folder;  // the mapping outlives the file's name
  model.write(folder, storage);
  return WallOss::load(folder.path());
}
inline Model tiny_model() {
  static const Model model = load(TinyModel());
  return model;
}

// what a Prompt looks at
struct TinyPrompt {
  std::vector<std::int64_t> ids;
  std::vector<Grid> grids;
  Floats pixels, state, state_mask;
  std::int64_t state_token_id = -1;

  Prompt view() const { return {ids, pixels, grids, state_token_id, state, state_mask}; }
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
};

inline TinyPrompt text_prompt() { return {{1, 2, 3, 5, 8, 13, 21, 34}, {}, {}, {}, {}}; }

// two pictures, of 2 x 3 and 1 x 1 image tokens, a state, and text around them
inline TinyPrompt robot_prompt() {
  constexpr std::int64_t S = TinyModel::kVisionStart, I = TinyModel::kImage, E = 28;
  TinyPrompt prompt;
  prompt.ids = {1, 2, S, I, I, I, I, I, I, E, 3, S, I, E, 5, TinyModel::kState, 8, 13};
  prompt.grids = {{1, 4, 6}, {1, 2, 2}};
  std::mt19937 random(9);
  prompt.pixels = random_values(random, (4 * 6 + 2 * 2) * TinyModel::kPatchWidth, 1.5f);
  prompt.state_token_id = TinyModel::kState;
  prompt.state = {0.5f, -0.25f, 1, 0, -1};
  prompt.state_mask = {1, 1, 1, 0, 1};
  return prompt;
}

inline Floats noise_of(std::int64_t horizon, unsigned seed = 4) {
  std::mt19937 random(seed);
  return random_values(random, horizon * TinyModel::kActionDim, 2.0f);
}
inline Floats mask_of(std::int64_t horizon) {
  Floats mask(static_cast<std::size_t>(horizon * TinyModel::kActionDim), 1.0f);
  for (std::size_t i = 3; i < mask.size(); i += 4) mask[i] = 0;  // the gripper is not in use
  return mask;
}

inline Floats denoised(Context& context, std::int64_t horizon, const FlowOptions& options = {},
                       FlowSteps* steps = nullptr) {
  Floats actions = noise_of(horizon);
  context.denoise(actions, mask_of(horizon), horizon, options, steps);
  return actions;
}
inline Floats logits_of(Context& context) {
  Floats out(static_cast<std::size_t>(context.model().language().vocab_size()));
  context.logits(out);
  return out;
}
inline Floats logits_of(Context&& context) { return logits_of(context); }

inline double largest_difference(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= largest)) largest = d;  // NaN stays
  }
  return largest;
}

}  // namespace wallx::test
