// ChunkWork: one observation's prefill and the chunk that follows from it, in the queue's time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "engine/context.hpp"
#include "runtime/inference_queue.hpp"

namespace wallx {

// a Prompt and its numbers
struct OwnPrompt {
  std::vector<std::int64_t> ids;
  std::vector<float> pixels;
  std::vector<Grid> grids;
  std::int64_t state_token_id = -1;
  std::vector<float> state, state_mask;

  Prompt view() const { return {ids, pixels, grids, state_token_id, state, state_mask}; }
};

// Context::denoise's arguments and their numbers
struct OwnFlow {
  std::vector<float> noise, mask;  // (horizon x action_dim)
  std::int64_t horizon = 0;
  FlowOptions options;  // without its spans, which are of the vectors below
  std::vector<float> padding_action, previous, guidance;

  FlowOptions view() const {
    FlowOptions all = options;
    all.padding_action = padding_action;
    all.guide.previous = previous;
    all.guide.weights = guidance;
    return all;
  }
};

class ChunkWork final : public Work {
 public:
  ChunkWork(std::shared_ptr<Context> context, OwnPrompt prompt, OwnFlow flow);

  // once it is done
  const std::vector<float>& actions() const { return flow_.noise; }  // (horizon x action_dim)
  std::int64_t horizon() const { return flow_.horizon; }
  std::int64_t num_shared() const { return num_shared_; }  // tokens that were in the context already

 private:
  bool advance(InferenceQueue& queue) override;

  const std::shared_ptr<Context> context_;
  const OwnPrompt prompt_;
  OwnFlow flow_;
  std::int64_t num_shared_ = 0;
};

}  // namespace wallx
