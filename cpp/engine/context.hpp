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
  std::vector<float> times;      // the grid  (steps + 1)
  std::vector<float> x;          // noise, then after each step  (steps + 1, horizon x action_dim)
  std::vector<float> v;          // velocity of each step  (steps, horizon x action_dim)
  std::vector<float> v_raw;      // what the head gave, before masked dims are padded; likewise
  std::vector<float> condition;  // what adaptive norms followed  (steps, condition_width)
};

// How long the parts of the last calls took.  [s]
struct Timings {
  double vision = 0;          // pictures to tokens; 0 where they were known
  double prefill = 0;         // tokens to keys and values
  std::vector<double> steps;  // of the flow
  double decode = 0;          // one token's state
  double logits = 0;
};

// Not for use by two threads at once: the second call throws WallxError and changes nothing. Different
// contexts of one model are. Every call blocks while it computes.
class Context {
 public:
  // max_tokens bounds prompt + horizon or prompt + generated text. Throws ConfigError when it is
  // not 1..131072.
  Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout);

  const WallOss& model() const { return *model_; }
  std::int64_t max_tokens() const { return max_tokens_; }
  std::int64_t length() const { return state_.cache.length(); }  // tokens in the cache
  const Timings& timings() const { return timings_; }

  // Goes on with another prompt: pictures, text and state become keys and values, once. What the context
  // holds already is kept: the longest common run of tokens from the start, equal ids with equal pictures and
  // state behind them, and the embeddings of equal pictures wherever they stand. The result has the bits it
  // has without. Returns the number of tokens kept. The last token is always computed; a trace, and `reuse`
  // false, compute everything. Throws ConfigError: too long, an id outside the vocabulary, token-count
  // mismatch, wrong widths, NaN; the context is then empty.
  std::int64_t prefill(const Prompt& prompt, Trace* trace = nullptr, bool reuse = true);

  // Another context that holds the same tokens and goes on by itself. Shares what is computed, without a
  // copy.
  Context fork() const;
  std::size_t cache_bytes() const;  // blocks shared with forks included
  // Between the blocks of every pass, from now on, `pause` is called; a prefill computes at most `max_rows`
  // tokens a pass (0: all at once), which changes no bit of the result.
  void set_pause(Pause pause, std::int64_t max_rows = 0);
  // Pictures that the vision tower has computed for this context; those it knew are not counted.
  std::int64_t num_pictures() const { return num_pictures_; }
  // Changes whenever tokens come or go.
  std::int64_t revision() const { return revision_; }

  // Integrates noise (horizon x action_dim) to a normalised action chunk, in place. Each step runs the action
  // tokens alone over the prefix's cache, which is exact: no prefix token sees an action token. The cache
  // keeps only the prefix. mask (horizon x action_dim): 1 where the slot is in use; the others follow
  // options.padding_action where it is given: v = padding_action - noise. Throws ConfigError: empty, too
  // long, wrong widths, NaN, options, padding_action missing; then nothing is changed. WallxError: the result
  // is not finite.
  void denoise(std::span<float> actions, std::span<const float> mask, std::int64_t horizon,
               const FlowOptions& options, FlowSteps* steps = nullptr, Trace* trace = nullptr);

  // Next-token scores after the last token  (vocab_size). Throws ConfigError: empty, out has another size;
  // WallxError: a score is not finite.
  void logits(std::span<float> out);
  // Appends one text token and computes its state. Throws ConfigError: empty, full, id outside the
  // vocabulary; then nothing is changed.
  void decode(std::int64_t id);

 private:
  class Use;  // one call at a time

  // a picture and what the vision tower made of it, kept to be compared with the next prompt's
  struct Picture {
    Grid grid{};
    std::vector<float> pixels;  // (patches x patch_width)
    Memory tokens;              // (image tokens x hidden_size)
  };
  struct Token {
    std::int64_t id = 0;
    const Picture* picture = nullptr;  // behind an image token of a prompt
    bool is_state = false;
    bool operator==(const Token&) const = default;
  };
  // what a fork copies
  struct State {
    KvCache cache;
    std::vector<Token> tokens;                             // behind the cache's entries
    std::vector<std::shared_ptr<const Picture>> pictures;  // of the last prompt, in order
    std::vector<float> robot_state, state_mask;            // behind its state token
    std::vector<float> last_normed;                        // final norm of the last token  (hidden_size)
    std::int64_t next_position = 0;                        // on all three axes
  };

  Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout, State state);

  void require_prompt(const char* call) const;
  void require_id(std::int64_t id) const;
  MropePositions require_valid(const Prompt& prompt) const;
  void require_valid(std::span<const float> actions, std::span<const float> mask, std::int64_t horizon,
                     const FlowOptions& options) const;
  std::vector<std::shared_ptr<const Picture>> see(const Prompt& prompt, Trace* trace, bool reuse);
  std::vector<Token> tokens_of(const Prompt& prompt,
                               const std::vector<std::shared_ptr<const Picture>>& pictures) const;
  std::int64_t num_shared(const Prompt& prompt, const std::vector<Token>& tokens) const;
  void fill(const Prompt& prompt, const MropePositions& positions, const std::vector<Token>& tokens,
            std::int64_t first, std::int64_t last, Trace* trace);
  void rotary_at(std::int64_t first, std::int64_t count);
  void set_rotary(const MropePositions& positions);

  std::shared_ptr<const WallOss> model_;
  std::int64_t max_tokens_;
  RopeLayout rope_layout_;
  State state_;
  std::int64_t revision_ = 0;
  std::int64_t num_pictures_ = 0;
  std::int64_t max_rows_ = 0;  // of one pass of a prefill, 0: any
  LanguageWorkspace language_;
  VisionWorkspace vision_;
  ActionWorkspace action_;
  Memory input_, velocity_, noise_, mask_, padding_;  // of the flow, on the device
  Timings timings_;
  std::unique_ptr<std::atomic<bool>> is_in_use_ = std::make_unique<std::atomic<bool>>(false);
};

}  // namespace wallx
