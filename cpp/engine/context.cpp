// Context: prefill, denoising and text decoding.
// SPDX-License-Identifier: Apache-2.0
#include "engine/context.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {

void require_size(const char* what, std::size_t found, std::int64_t expected) {
  if (static_cast<std::int64_t>(found) != expected)
    throw ConfigError(std::string(what) + " has " + std::to_string(found) + " values, expected " +
                      std::to_string(expected));
}

void require_finite(const char* what, std::span<const float> values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw ConfigError(std::string(what) + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
                        ", expected a finite number");
}

}  // namespace

class Context::Use {
 public:
  explicit Use(const Context& context) : context_(context) {
    if (context_.is_in_use_->exchange(true, std::memory_order_acquire))
      throw WallxError("this context is computing on another thread; give every thread a context of its own");
  }
  ~Use() { context_.is_in_use_->store(false, std::memory_order_release); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  const Context& context_;
};

Context::Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout)
    : model_(std::move(model)), rope_layout_(rope_layout) {
  if (max_tokens < 1 || max_tokens > 131072)
    throw ConfigError("max_tokens is " + std::to_string(max_tokens) + ", expected 1 to 131072");
  model_->language().reserve(language_, cache_, max_tokens);
  last_normed_.resize(static_cast<std::size_t>(model_->config().hidden_size));
}

void Context::require_prompt(const char* call) const {
  if (length_ == 0) throw ConfigError(std::string(call) + ": the context is empty; call prefill first");
}

void Context::require_id(std::int64_t id) const {
  if (id < 0 || id >= model_->language().vocab_size())
    throw ConfigError("token id " + std::to_string(id) + " is outside the vocabulary [0, " +
                      std::to_string(model_->language().vocab_size()) + ")");
}

// rotation of text-like tokens: one position on all three axes
void Context::rotary_at(std::int64_t first, std::int64_t count) {
  MropePositions positions;
  for (std::int64_t i = 0; i < count; ++i) positions.time.push_back(first + i);
  positions.height = positions.width = positions.time;
  language_.cos.clear();
  language_.sin.clear();
  rotary_tables(positions, model_->config(), rope_layout_, language_.cos, language_.sin);
}

void Context::prefill(const Prompt& prompt, Trace* trace) {
  const Use use(*this);
  length_ = 0;
  const ModelConfig& config = model_->config();
  const std::int64_t width = config.hidden_size;
  const auto num_tokens = static_cast<std::int64_t>(prompt.ids.size());
  if (num_tokens < 1 || num_tokens > max_tokens())
    throw ConfigError("the prompt has " + std::to_string(num_tokens) + " tokens, this context holds 1 to " +
                      std::to_string(max_tokens()) + " (max_tokens)");
  for (std::int64_t id : prompt.ids) require_id(id);

  const std::int64_t merge = config.vision.spatial_merge_size;
  std::int64_t patches = 0;
  for (const auto& [frames, rows, columns] : prompt.grids) {
    if (frames < 1 || rows < 1 || columns < 1 || rows % merge || columns % merge || frames > 1024 ||
        rows > 4096 || columns > 4096)
      throw ConfigError("picture grid (" + std::to_string(frames) + ", " + std::to_string(rows) + ", " +
                        std::to_string(columns) + ") is not in patches that merge " + std::to_string(merge) +
                        " by " + std::to_string(merge));
    patches += frames * rows * columns;
  }
  require_size("pixels", prompt.pixels.size(), patches * config.vision.patch_width());
  require_finite("pixels", prompt.pixels);
  std::size_t next_grid = 0;
  const MropePositions positions = mrope_positions(prompt.ids, {}, prompt.grids, next_grid, config);
  if (next_grid != prompt.grids.size())
    throw ConfigError("token-count mismatch: " + std::to_string(prompt.grids.size()) +
                      " pictures given, the prompt uses " + std::to_string(next_grid));

  const auto num_state = prompt.state_token_id < 0
                             ? std::ptrdiff_t{0}
                             : std::count(prompt.ids.begin(), prompt.ids.end(), prompt.state_token_id);
  if (num_state != (prompt.state.empty() ? 0 : 1))
    throw ConfigError("the prompt has " + std::to_string(num_state) + " state tokens, expected " +
                      (prompt.state.empty() ? "none without a state" : "one for the state given"));
  if (num_state) {
    require_size("state", prompt.state.size(), config.state_dim());
    require_size("state_mask", prompt.state_mask.size(), config.state_dim());
    require_finite("state", prompt.state);
    require_finite("state_mask", prompt.state_mask);
  }

  float* hidden = language_.hidden.data();
  model_->language().embed(prompt.ids, hidden);
  if (patches > 0) {
    pictures_.resize(static_cast<std::size_t>(patches / (merge * merge) * width));
    model_->vision().forward(prompt.pixels.data(), prompt.grids, vision_, pictures_.data(), trace);
    const float* from = pictures_.data();
    for (std::int64_t i = 0; i < num_tokens; ++i)
      if (prompt.ids[static_cast<std::size_t>(i)] == config.image_token_id) {
        std::copy_n(from, width, hidden + i * width);
        from += width;
      }
  }
  if (num_state) {
    const auto at =
        std::find(prompt.ids.begin(), prompt.ids.end(), prompt.state_token_id) - prompt.ids.begin();
    model_->action_head().embed_state(prompt.state.data(), prompt.state_mask.data(), action_,
                                      hidden + at * width);
    if (trace) trace->append("state_embed", hidden + at * width, 1, width);
  }
  if (trace) trace->append("inputs_embeds", hidden, num_tokens, width);

  language_.cos.clear();
  language_.sin.clear();
  rotary_tables(positions, config, rope_layout_, language_.cos, language_.sin);
  model_->language().forward(num_tokens, 0, Expert::text, true, language_, cache_, trace);
  std::copy_n(language_.normed.data() + (num_tokens - 1) * width, width, last_normed_.data());
  next_position_ = positions.next;
  length_ = num_tokens;
}

void Context::denoise(std::span<float> actions, std::span<const float> mask, std::int64_t horizon,
                      const FlowOptions& options, FlowSteps* steps, Trace* trace) {
  const Use use(*this);
  require_prompt("denoise");
  const ModelConfig& config = model_->config();
  if (horizon < 1 || horizon > max_tokens() - length_)
    throw ConfigError("horizon " + std::to_string(horizon) + " after a prompt of " + std::to_string(length_) +
                      " tokens does not fit max_tokens " + std::to_string(max_tokens()));
  require_size("noise", actions.size(), horizon * config.action_dim());
  require_size("dof_mask", mask.size(), horizon * config.action_dim());
  require_finite("noise", actions);
  require_finite("dof_mask", mask);
  const std::vector<float> times = time_points(options);
  velocity_.resize(actions.size());
  rotary_at(next_position_, horizon);
  if (steps) {
    steps->t.assign(times.begin(), times.end() - 1);
    steps->x.assign(actions.begin(), actions.end());
    steps->v.clear();
  }
  for (std::size_t i = 0; i + 1 < times.size(); ++i) {
    Trace* first = i == 0 ? trace : nullptr;
    model_->action_head().embed_actions(actions.data(), mask.data(), horizon, times[i], action_,
                                        language_.hidden.data());
    if (first) {
      first->append("action_embed", language_.hidden.data(), horizon, config.hidden_size);
      first->append("inputs_embeds", language_.hidden.data(), horizon, config.hidden_size);
    }
    model_->language().forward(horizon, length_, Expert::action, options.attention == ActionAttention::causal,
                               language_, cache_, first);
    model_->action_head().velocity(language_.normed.data(), horizon, velocity_.data());
    const float dt = times[i + 1] - times[i];
    for (std::size_t j = 0; j < actions.size(); ++j) actions[j] += velocity_[j] * dt;
    if (steps) {
      steps->x.insert(steps->x.end(), actions.begin(), actions.end());
      steps->v.insert(steps->v.end(), velocity_.begin(), velocity_.end());
    }
  }
  for (float value : actions)
    if (!std::isfinite(value))
      throw WallxError("the network produced a value that is not finite; the chunk is discarded");
}

void Context::logits(std::span<float> out) const {
  const Use use(*this);
  require_prompt("logits");
  require_size("logits", out.size(), model_->language().vocab_size());
  model_->language().logits(last_normed_.data(), out.data());
  for (float value : out)
    if (!std::isfinite(value)) throw WallxError("the network produced a score that is not finite");
}

void Context::decode(std::int64_t id) {
  const Use use(*this);
  require_prompt("decode");
  require_id(id);
  if (length_ + 1 > max_tokens())
    throw ConfigError("the context is full: " + std::to_string(length_) + " tokens (max_tokens)");
  rotary_at(next_position_, 1);
  model_->language().embed({&id, 1}, language_.hidden.data());
  model_->language().forward(1, length_, Expert::text, true, language_, cache_, nullptr);
  std::copy_n(language_.normed.data(), last_normed_.size(), last_normed_.data());
  ++length_;
  ++next_position_;
}

}  // namespace wallx
