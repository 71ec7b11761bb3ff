// Context: the engine's state of one conversation: caches, positions, buffers; many share one model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/flow_sampler.hpp"
#include "model/wall_oss.hpp"

namespace wallx {

struct Prompt {
  std::span<const std::int64_t> ids;  // everything before the first action token  (tokens)
  std::span<const float> pixels;      // patch rows of all pictures, processor order  (patches x patch_width)
  std::span<const Grid> grids;        // one per picture
  std::int64_t state_token_id = -1;   // the id that the state's embedding replaces; -1: no state
  std::span<const float> state;       // normalised  (state_dim)
  std::span<const float> state_mask;  // 1 where the robot has the slot  (state_dim)
};

struct FlowSteps {
  std::vector<float> t;  // time of each step  (steps)
  std::vector<float> x;  // noise, then after each step  (steps + 1, horizon x action_dim)
  std::vector<float> v;  // velocity of each step  (steps, horizon x action_dim)
};

// Not for use by two threads at once: the second call throws WallxError and changes nothing. Different contexts of
// one model are. Every call blocks while it computes.
class Context {
 public:
  // max_tokens bounds prompt + horizon or prompt + generated text. Throws ConfigError when it is
  // not 1..131072.
  Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout);

  const WallOss& model() const { return *model_; }
  std::int64_t max_tokens() const { return cache_.capacity; }
  std::int64_t length() const { return length_; }  // tokens in the cache

  // Starts over with a prompt: pictures, text and state become keys and values, once. Throws ConfigError: too
  // long, an id outside the vocabulary, token-count mismatch, wrong widths, NaN; the context is then empty.
  void prefill(const Prompt& prompt, Trace* trace = nullptr);

  // Integrates noise (horizon x action_dim) to a normalised action chunk, in place. Each step runs the action
  // tokens alone over the prefix's cache, which is exact: no prefix token sees an action token. The cache
  // keeps only the prefix. mask (horizon x action_dim): 1 where the slot is in use. Throws ConfigError:
  // empty, too long, wrong widths, NaN, num_steps; then nothing is changed. WallxError: the result is not
  // finite.
  void denoise(std::span<float> actions, std::span<const float> mask, std::int64_t horizon,
               const FlowOptions& options, FlowSteps* steps = nullptr, Trace* trace = nullptr);

  // Next-token scores after the last token  (vocab_size). Throws ConfigError: empty, out has another size;
  // WallxError: a score is not finite.
  void logits(std::span<float> out) const;
  // Appends one text token and computes its state. Throws ConfigError: empty, full, id outside the
  // vocabulary; then nothing is changed.
  void decode(std::int64_t id);

 private:
  class Use;  // one call at a time

  void require_prompt(const char* call) const;
  void require_id(std::int64_t id) const;
  void rotary_at(std::int64_t first, std::int64_t count);

  std::shared_ptr<const WallOss> model_;
  RopeLayout rope_layout_;
  KvCache cache_;
  LanguageWorkspace language_;
  VisionWorkspace vision_;
  ActionWorkspace action_;
  std::vector<float> pictures_;     // (image tokens x hidden_size)
  std::vector<float> velocity_;     // (horizon x action_dim)
  std::vector<float> last_normed_;  // final norm of the last text token  (hidden_size)
  std::int64_t length_ = 0;
  std::int64_t next_position_ = 0;  // on all three axes
  std::unique_ptr<std::atomic<bool>> is_in_use_ = std::make_unique<std::atomic<bool>>(false);
};

}  // namespace wallx
