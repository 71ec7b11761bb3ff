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

  // the state token: projection of [state, mask], each (state_dim)  -> (hidden_size)
  void embed_state(const float* state, const float* mask, ActionWorkspace& work, float* out) const;
  // w3(silu(w2([w1([actions, mask]), time])))  actions and mask (rows x action_dim) -> (rows x hidden_size)
  void embed_actions(const float* actions, const float* mask, std::int64_t rows, float time,
                     ActionWorkspace& work, float* out) const;
  // velocity from the final norm of the action tokens  (rows x hidden_size) -> (rows x action_dim)
  void velocity(const float* normed, std::int64_t rows, float* out) const;

 private:
  std::int64_t action_dim_;
  std::int64_t state_dim_;
  std::int64_t width_;
  Linear propri_proj_, w1_, w2_, w3_, back_;
};

// [sin(t f), cos(t f)], f_i = exp(-ln(10000) i / (width/2 - 1)); t in [0, 1], not scaled  (width)
void time_embedding(float time, std::int64_t width, float* out);

}  // namespace wallx
