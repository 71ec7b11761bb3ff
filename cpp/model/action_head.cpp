// ActionHead: three products in, one out.
// SPDX-License-Identifier: Apache-2.0
#include "model/action_head.hpp"

#include <algorithm>
#include <cmath>

namespace wallx {
namespace {

float* sized(std::vector<float>& buffer, std::int64_t size) {
  buffer.resize(static_cast<std::size_t>(size));
  return buffer.data();
}

// moves rows of `width` apart to rows of `stride`, in place, and fills what is between with zeros
void widen_rows(float* data, std::int64_t rows, std::int64_t width, std::int64_t stride) {
  if (width == stride) return;
  for (std::int64_t r = rows - 1; r >= 0; --r) {
    std::copy_backward(data + r * width, data + (r + 1) * width, data + r * stride + width);
    std::fill(data + r * stride + width, data + (r + 1) * stride, 0.0f);
  }
}

}  // namespace

ActionHead::ActionHead(const ModelConfig& config, Weights& weights)
    : action_dim_(config.action_dim()),
      state_dim_(config.state_dim()),
      width_(config.action_width),
      stream_width_(config.expert_widths[1]),
      hidden_size_(config.hidden_size) {
  const std::string prefix = "action_preprocessor.";
  const std::string propri = prefix + "propri_proj";
  if (!config.is_state_text) {
    // without the mask in the action projection, the file says whether the state's takes it
    const bool is_bare = !config.does_project_mask && weights.contains(propri + ".weight") &&
                         weights.entry(propri + ".weight").shape == Shape{config.state_width, state_dim_};
    propri_proj_ = weights.take_linear(propri, config.state_width, (is_bare ? 1 : 2) * state_dim_, false);
  } else if (weights.contains(propri + ".weight")) {
    weights.skip(propri + ".weight");  // the state is text; the reference ignores it too
  }
  w1_ = weights.take_linear(prefix + "w1", width_, (config.does_project_mask ? 2 : 1) * action_dim_, false);
  if (config.has_adaptive_norms) {
    const std::string in = prefix + "time_mlp_in", out = prefix + "time_mlp_out";
    const bool is_known = weights.contains(in + ".weight") && !weights.entry(in + ".weight").shape.empty();
    const std::int64_t inner = is_known ? weights.entry(in + ".weight").shape[0] : config.condition_width;
    time_in_ = weights.take_linear(in, inner, width_, true);
    time_out_ = weights.take_linear(out, config.condition_width, inner, true);
  } else {
    w2_ = weights.take_linear(prefix + "w2", width_, 2 * width_, false);
    w3_ = weights.take_linear(prefix + "w3", width_, width_, false);
  }
  back_ = weights.take_linear(prefix + "action_proj_back", action_dim_, width_, false);
}

const float* ActionHead::join(const Linear& layer, const float* values, const float* mask, std::int64_t rows,
                              std::int64_t dim, ActionWorkspace& work) const {
  if (layer.in == dim) return values;
  float* joined = sized(work.input, rows * 2 * dim);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(values + r * dim, dim, joined + r * 2 * dim);
    std::copy_n(mask + r * dim, dim, joined + (r * 2 + 1) * dim);
  }
  return joined;
}

void ActionHead::embed_state(const float* state, const float* mask, ActionWorkspace& work, float* out) const {
  const float* input = join(propri_proj_, state, mask, 1, state_dim_, work);
  linear(input, 1, propri_proj_, Activation::none, nullptr, out);
  std::fill(out + propri_proj_.out, out + hidden_size_, 0.0f);
}

void ActionHead::embed_actions(const float* actions, const float* mask, std::int64_t rows, float time,
                               ActionWorkspace& work, float* out) const {
  const float* input = join(w1_, actions, mask, rows, action_dim_, work);
  if (!w2_.weight) {
    linear(input, rows, w1_, Activation::none, nullptr, out);
  } else {
    float* joined = sized(work.joined, rows * 2 * width_);
    float* inner = sized(work.inner, rows * width_);
    linear(input, rows, w1_, Activation::none, nullptr, joined, 2 * width_);
    time_embedding(time, width_, joined + width_);
    for (std::int64_t r = 1; r < rows; ++r)
      std::copy_n(joined + width_, width_, joined + (r * 2 + 1) * width_);
    linear(joined, rows, w2_, Activation::silu, nullptr, inner);
    linear(inner, rows, w3_, Activation::none, nullptr, out);
  }
  widen_rows(out, rows, width_, stream_width_);
}

void ActionHead::embed_time(float time, ActionWorkspace& work, float* out) const {
  float* embedded = sized(work.input, width_);
  time_embedding(time, width_, embedded);
  float* inner = sized(work.inner, time_in_.out);
  linear(embedded, 1, time_in_, Activation::silu, nullptr, inner);
  linear(inner, 1, time_out_, Activation::silu, nullptr, out);
}

void ActionHead::velocity(const float* normed, std::int64_t rows, ActionWorkspace& work, float* out) const {
  if (width_ != stream_width_) {
    float* narrow = sized(work.inner, rows * width_);
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(normed + r * stream_width_, width_, narrow + r * width_);
    normed = narrow;
  }
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
