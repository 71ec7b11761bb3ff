// ActionHead: three products in, one out.
// SPDX-License-Identifier: Apache-2.0
#include "model/action_head.hpp"

#include <algorithm>
#include <cmath>

namespace wallx {

ActionHead::ActionHead(const ModelConfig& config, Weights& weights)
    : action_dim_(config.action_dim()), state_dim_(config.state_dim()), width_(config.hidden_size) {
  const std::string prefix = "action_preprocessor.";
  propri_proj_ = weights.take_linear(prefix + "propri_proj", width_, 2 * state_dim_, false);
  w1_ = weights.take_linear(prefix + "w1", width_, 2 * action_dim_, false);
  w2_ = weights.take_linear(prefix + "w2", width_, 2 * width_, false);
  w3_ = weights.take_linear(prefix + "w3", width_, width_, false);
  back_ = weights.take_linear(prefix + "action_proj_back", action_dim_, width_, false);
}

void ActionHead::embed_state(const float* state, const float* mask, ActionWorkspace& work, float* out) const {
  work.input.resize(static_cast<std::size_t>(2 * state_dim_));
  std::copy_n(state, state_dim_, work.input.data());
  std::copy_n(mask, state_dim_, work.input.data() + state_dim_);
  linear(work.input.data(), 1, propri_proj_, Activation::none, nullptr, out);
}

void ActionHead::embed_actions(const float* actions, const float* mask, std::int64_t rows, float time,
                               ActionWorkspace& work, float* out) const {
  work.input.resize(static_cast<std::size_t>(rows * 2 * action_dim_));
  work.joined.resize(static_cast<std::size_t>(rows * 2 * width_));
  work.inner.resize(static_cast<std::size_t>(rows * width_));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(actions + r * action_dim_, action_dim_, work.input.data() + r * 2 * action_dim_);
    std::copy_n(mask + r * action_dim_, action_dim_, work.input.data() + (r * 2 + 1) * action_dim_);
  }
  linear(work.input.data(), rows, w1_, Activation::none, nullptr, work.joined.data(), 2 * width_);
  time_embedding(time, width_, work.joined.data() + width_);
  for (std::int64_t r = 1; r < rows; ++r)
    std::copy_n(work.joined.data() + width_, width_, work.joined.data() + (r * 2 + 1) * width_);
  linear(work.joined.data(), rows, w2_, Activation::silu, nullptr, work.inner.data());
  linear(work.inner.data(), rows, w3_, Activation::none, nullptr, out);
}

void ActionHead::velocity(const float* normed, std::int64_t rows, float* out) const {
  linear(normed, rows, back_, Activation::none, nullptr, out);
}

void time_embedding(float time, std::int64_t width, float* out) {
  const std::int64_t half = width / 2;
  const float rate = static_cast<float>(std::log(10000.0) / static_cast<double>(half - 1));
  for (std::int64_t i = 0; i < half; ++i) {
    const float angle = time * std::exp(static_cast<float>(i) * -rate);
    out[i] = std::sin(angle);
    out[half + i] = std::cos(angle);
  }
}

}  // namespace wallx
