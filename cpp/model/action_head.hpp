// ActionHead: state and noisy actions in, velocities out: the flow-matching end of the network.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/config.hpp"
#include "model/layers.hpp"

namespace wallx {

struct ActionWorkspace {
  std::shared_ptr<Stream> stream;  // the context's
  Memory input, rows, inner, outer, times, zeros;
};

class ActionHead {
 public:
  ActionHead(const ModelConfig& config, Layers& layers, std::shared_ptr<Backend> backend);

  // the state token: projection of [state, mask], each on the host (state_dim)  -> on the device (hidden_size);
  // only where there is a state token
  void embed_state(std::span<const float> state, std::span<const float> mask, ActionWorkspace& work,
                   float* out) const;

  // columns of a row of the input of embed_actions: action_dim, or twice that with the mask
  std::int64_t input_width() const { return w1_.in; }
  // What embed_actions adds at each point of time: once for a chunk. times (steps), on the host.
  void prepare(std::span<const float> times, ActionWorkspace& work) const;
  // w3(silu(w2([w1([actions, mask]), time of step]))), with adaptive norms w1([actions, mask]);
  // input (rows x input_width) -> (rows x width of the action expert), both on the device
  void embed_actions(const float* input, std::int64_t rows, std::int64_t step, ActionWorkspace& work,
                     float* out) const;
  // what adaptive norms follow at the point of time of a step: silu(time_mlp_out(silu(time_mlp_in(time)))), on
  // the device (condition_width); null without them
  const float* condition(std::int64_t step, const ActionWorkspace& work) const;
  // velocity from the final norm of the action tokens, its first action_width columns
  // (rows x width of the action expert) -> (rows x action_dim), both on the device
  void velocity(const float* normed, std::int64_t rows, ActionWorkspace& work, float* out) const;

 private:
  Rows rows_for(const float* x, std::int64_t rows, const Linear& layer, ActionWorkspace& work) const;

  std::shared_ptr<Backend> backend_;
  std::int64_t state_dim_;
  std::int64_t width_;         // action_width
  std::int64_t stream_width_;  // of the action expert
  std::int64_t hidden_size_;
  Linear propri_proj_, w1_, w2_, w2_time_, w3_, back_, time_in_, time_out_;
};

// [sin(t f), cos(t f)], f_i = exp(-ln(10000) i / (width/2 - 1)); t in [0, 1], not scaled  (width)
void time_embedding(float time, std::int64_t width, float* out);

}  // namespace wallx
