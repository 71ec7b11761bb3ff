// ActionHead: three products in, one out.
// SPDX-License-Identifier: Apache-2.0
#include "model/action_head.hpp"

#include <algorithm>
#include <cmath>

namespace wallx {
namespace {

// rows of `width` floats to rows of `stride`, zeros between
void spread(Backend& backend, ActionWorkspace& work, const float* from, std::int64_t rows, std::int64_t width,
            std::int64_t stride, float* to) {
  const float* zeros = reserve(backend, work.zeros, stride - width);  // nobody writes there
  for (std::int64_t r = 0; r < rows; ++r) {
    backend.copy(*work.stream, from + r * width, to + r * stride, static_cast<std::size_t>(width) * sizeof(float));
    backend.copy(*work.stream, zeros, to + r * stride + width,
                 static_cast<std::size_t>(stride - width) * sizeof(float));
  }
}

}  // namespace

ActionHead::ActionHead(const ModelConfig& config, Layers& layers, std::shared_ptr<Backend> backend)
    : backend_(std::move(backend)),
      state_dim_(config.state_dim()),
      width_(config.action_width),
      stream_width_(config.expert_widths[1]),
      hidden_size_(config.hidden_size) {
  const std::string prefix = "action_preprocessor.";
  const std::string propri = prefix + "propri_proj";
  Weights& weights = layers.weights();
  // what meets actions and state themselves is small, and stays exact
  constexpr Format kExact = Format::f32;
  const Format wide = layers.precision().edge;
  if (!config.is_state_text) {
    // without the mask in the action projection, the file says whether the state's takes it
    const bool is_bare = !config.does_project_mask && weights.contains(propri + ".weight") &&
                         weights.entry(propri + ".weight").shape == Shape{config.state_width, state_dim_};
    propri_proj_ = layers.linear(propri, config.state_width, (is_bare ? 1 : 2) * state_dim_, false, kExact);
  } else if (weights.contains(propri + ".weight")) {
    weights.skip(propri + ".weight");  // the state is text; the reference ignores it too
  }
  w1_ = layers.linear(prefix + "w1", width_, (config.does_project_mask ? 2 : 1) * config.action_dim(), false,
                      kExact);
  if (config.has_adaptive_norms) {
    const std::string in = prefix + "time_mlp_in", out = prefix + "time_mlp_out";
    const bool is_known = weights.contains(in + ".weight") && !weights.entry(in + ".weight").shape.empty();
    const std::int64_t inner = is_known ? weights.entry(in + ".weight").shape[0] : config.condition_width;
    time_in_ = layers.linear(in, inner, width_, true, kExact);
    time_out_ = layers.linear(out, config.condition_width, inner, true, kExact);
  } else {
    // its input is [actions, time]: what it makes of the time is the same for all rows
    w2_ = layers.columns(prefix + "w2", width_, 2 * width_, 0, width_, wide);
    w2_time_ = layers.columns(prefix + "w2", width_, 2 * width_, width_, width_, wide);
    w3_ = layers.linear(prefix + "w3", width_, width_, false, wide);
  }
  back_ = layers.linear(prefix + "action_proj_back", config.action_dim(), width_, false, kExact);
}

Rows ActionHead::rows_for(const float* x, std::int64_t rows, const Linear& layer, ActionWorkspace& work) const {
  const Rows out = reserve_rows(*backend_, work.rows, row_format(layer.format), rows, layer.in);
  backend_->norm(*work.stream, x, {}, out);
  return out;
}

void ActionHead::embed_state(std::span<const float> state, std::span<const float> mask, ActionWorkspace& work,
                             float* out) const {
  float* input = reserve(*backend_, work.input, 2 * state_dim_);
  backend_->upload(*work.stream, state.data(), input, state.size_bytes());
  if (propri_proj_.in != state_dim_)
    backend_->upload(*work.stream, mask.data(), input + state_dim_, mask.size_bytes());
  float* projected = reserve(*backend_, work.inner, propri_proj_.out);
  backend_->product(*work.stream, rows_for(input, 1, propri_proj_, work), propri_proj_, {}, projected);
  spread(*backend_, work, projected, 1, propri_proj_.out, hidden_size_, out);
  backend_->synchronize(*work.stream);
}

void ActionHead::prepare(std::span<const float> times, ActionWorkspace& work) const {
  Backend& backend = *backend_;
  const auto steps = static_cast<std::int64_t>(times.size());
  std::vector<float> embedded(static_cast<std::size_t>(steps * width_));
  for (std::int64_t i = 0; i < steps; ++i)
    time_embedding(times[static_cast<std::size_t>(i)], width_, embedded.data() + i * width_);
  float* input = reserve(backend, work.input, steps * width_);
  backend.upload(*work.stream, embedded.data(), input, embedded.size() * sizeof(float));
  if (w2_time_) {
    // packed biases are padded
    float* bias = reserve(backend, work.times, steps * padded_outputs(width_));
    backend.product(*work.stream, rows_for(input, steps, w2_time_, work), w2_time_, {}, bias,
                    padded_outputs(width_));
    return;
  }
  float* inner = reserve(backend, work.inner, steps * time_in_.out);
  float* condition = reserve(backend, work.times, steps * time_out_.out);
  const Epilogue silu{.activation = Activation::silu};
  backend.product(*work.stream, rows_for(input, steps, time_in_, work), time_in_, silu, inner);
  backend.product(*work.stream, rows_for(inner, steps, time_out_, work), time_out_, silu, condition);
}

void ActionHead::embed_actions(const float* input, std::int64_t rows, std::int64_t step, ActionWorkspace& work,
                               float* out) const {
  Backend& backend = *backend_;
  float* inner = reserve(backend, work.inner, rows * width_);
  float* outer = width_ == stream_width_ ? out : reserve(backend, work.outer, rows * width_);
  const Rows first = rows_for(input, rows, w1_, work);
  if (w2_) {
    backend.product(*work.stream, first, w1_, {}, inner);
    Linear timed = w2_;
    timed.bias = work.times.as() + step * padded_outputs(width_);
    float* middle = reserve(backend, work.outer, rows * width_);
    backend.product(*work.stream, rows_for(inner, rows, timed, work), timed, {.activation = Activation::silu},
                    middle);
    const Rows last = rows_for(middle, rows, w3_, work);
    backend.product(*work.stream, last, w3_, {}, outer);
  } else {
    backend.product(*work.stream, first, w1_, {}, outer);
  }
  if (width_ != stream_width_) spread(backend, work, outer, rows, width_, stream_width_, out);
}

const float* ActionHead::condition(std::int64_t step, const ActionWorkspace& work) const {
  return time_out_ ? work.times.as() + step * time_out_.out : nullptr;
}

void ActionHead::velocity(const float* normed, std::int64_t rows, ActionWorkspace& work, float* out) const {
  Backend& backend = *backend_;
  if (width_ != stream_width_) {
    float* narrow = reserve(backend, work.inner, rows * width_);
    for (std::int64_t r = 0; r < rows; ++r)
      backend.copy(*work.stream, normed + r * stream_width_, narrow + r * width_,
                   static_cast<std::size_t>(width_) * sizeof(float));
    normed = narrow;
  }
  backend.product(*work.stream, rows_for(normed, rows, back_, work), back_, {}, out);
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
