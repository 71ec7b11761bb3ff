// ActionHead: state and noisy actions in, velocities out: the flow-matching end of the network.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "backend/ops.hpp"
#include "model/config.hpp"
#include "model/weights.hpp"

namespace wallx {

struct ActionWorkspace {
  std::vector<float> input, joined, inner;
};

class ActionHead {
 public:
  ActionHead(const ModelConfig& config, Weights& weights);

  // the state token: projection of [state, mask], each (state_dim)  -> (hidden_size); only where there is a
  // state token
  void embed_state(const float* state, const float* mask, ActionWorkspace& work, float* out) const;
  // w3(silu(w2([w1([actions, mask]), time]))), with adaptive norms w1([actions, mask]);
  // actions and mask (rows x action_dim) -> (rows x width of the action expert)
  void embed_actions(const float* actions, const float* mask, std::int64_t rows, float time,
                     ActionWorkspace& work, float* out) const;
  // what adaptive norms follow: silu(time_mlp_out(silu(time_mlp_in(time))))  -> (condition_width)
  void embed_time(float time, ActionWorkspace& work, float* out) const;
  // velocity from the final norm of the action tokens, its first action_width columns
  // (rows x width of the action expert) -> (rows x action_dim)
  void velocity(const float* normed, std::int64_t rows, ActionWorkspace& work, float* out) const;

 private:
  // rows of [values, mask], or of the values alone where the layer does not take the mask
  const float* join(const Linear& layer, const float* values, const float* mask, std::int64_t rows,
                    std::int64_t dim, ActionWorkspace& work) const;

  std::int64_t action_dim_;
  std::int64_t state_dim_;
  std::int64_t width_;         // action_width
  std::int64_t stream_width_;  // of the action expert
  std::int64_t hidden_size_;
  Linear propri_proj_, w1_, w2_, w3_, back_, time_in_, time_out_;
};

// [sin(t f), cos(t f)], f_i = exp(-ln(10000) i / (width/2 - 1)); t in [0, 1], not scaled  (width)
void time_embedding(float time, std::int64_t width, float* out);

}  // namespace wallx
