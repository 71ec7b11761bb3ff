// Context: prefill, denoising and text decoding.
// SPDX-License-Identifier: Apache-2.0
#include "engine/context.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
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

// to the bit: a zero has a sign
bool is_same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

std::int64_t num_patches(const Grid& grid) { return grid[0] * grid[1] * grid[2]; }

// adds up the time until it ends
class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

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

Context::Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout,
                 State state)
    : model_(std::move(model)), max_tokens_(max_tokens), rope_layout_(rope_layout), state_(std::move(state)) {
  language_.stream = vision_.stream = action_.stream = model_->backend()->make_stream();
}

Context::Context(std::shared_ptr<const WallOss> model, std::int64_t max_tokens, RopeLayout rope_layout)
    : Context(model, max_tokens, rope_layout, State{model->language().empty_cache(), {}, {}, {}, {}, {}, 0}) {
  if (max_tokens < 1 || max_tokens > 131072)
    throw ConfigError("max_tokens is " + std::to_string(max_tokens) + ", expected 1 to 131072");
}

Context Context::fork() const {
  const Use use(*this);
  return Context(model_, max_tokens_, rope_layout_, state_);
}

std::size_t Context::cache_bytes() const {
  const Use use(*this);
  return state_.cache.num_bytes();
}

void Context::set_pause(Pause pause, std::int64_t max_rows) {
  const Use use(*this);
  language_.pause = vision_.pause = std::move(pause);
  max_rows_ = max_rows;
}

void Context::require_prompt(const char* call) const {
  if (length() == 0) throw ConfigError(std::string(call) + ": the context is empty; call prefill first");
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
  set_rotary(positions);
}

void Context::set_rotary(const MropePositions& positions) {
  std::vector<float> cos, sin;
  rotary_tables(positions, model_->config(), rope_layout_, cos, sin);
  model_->language().set_rotary(language_, cos, sin);
}

MropePositions Context::require_valid(const Prompt& prompt) const {
  const ModelConfig& config = model_->config();
  if (prompt.ids.empty() || prompt.ids.size() > static_cast<std::size_t>(max_tokens()))
    throw ConfigError("the prompt has " + std::to_string(prompt.ids.size()) +
                      " tokens, this context holds 1 to " + std::to_string(max_tokens()) + " (max_tokens)");
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
  MropePositions positions = mrope_positions(prompt.ids, {}, prompt.grids, next_grid, config);
  if (next_grid != prompt.grids.size())
    throw ConfigError("token-count mismatch: " + std::to_string(prompt.grids.size()) +
                      " pictures given, the prompt uses " + std::to_string(next_grid));

  if (config.is_state_text && !prompt.state.empty())
    throw ConfigError("a state is given, but " + config.architecture +
                      " has no state token: the state is text in the prompt");
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
  return positions;
}

// every picture of the prompt, those that the context knows as they are
std::vector<std::shared_ptr<const Context::Picture>> Context::see(const Prompt& prompt, Trace* trace,
                                                                  bool reuse) {
  const VisionConfig& config = model_->config().vision;
  const std::int64_t merge = config.spatial_merge_size, width = model_->config().hidden_size;
  Backend& backend = *model_->backend();
  const float* pixels = prompt.pixels.data();
  std::vector<std::shared_ptr<const Picture>> seen;
  std::vector<std::shared_ptr<Picture>>
      fresh;  // a run of pictures side by side: the tower takes them at once
  const float* first_fresh = pixels;
  const auto compute = [&] {
    if (fresh.empty()) return;
    std::vector<Grid> grids;
    std::int64_t patches = 0;
    for (const auto& picture : fresh) {
      grids.push_back(picture->grid);
      patches += num_patches(picture->grid);
    }
    const Stopwatch watch(timings_.vision);
    const Memory tokens =
        backend.allocate(static_cast<std::size_t>(patches / (merge * merge) * width) * sizeof(float));
    model_->vision().forward(first_fresh, grids, vision_, tokens.as(), trace);
    const auto* from = tokens.as<std::byte>();
    for (const auto& picture : fresh) {
      const auto bytes =
          static_cast<std::size_t>(num_patches(picture->grid) / (merge * merge) * width) * sizeof(float);
      picture->tokens = backend.allocate(bytes);
      backend.copy(*vision_.stream, from, picture->tokens.as<void>(), bytes);
      from += bytes;
    }
    num_pictures_ += std::ssize(fresh);
    backend.synchronize(*vision_.stream);
    fresh.clear();
  };
  for (const Grid& grid : prompt.grids) {
    const std::span<const float> own(pixels,
                                     static_cast<std::size_t>(num_patches(grid) * config.patch_width()));
    pixels += own.size();
    const auto is_this = [&](const auto& picture) {
      return picture->grid == grid && is_same(picture->pixels, own);
    };
    // of this prompt or of the one before
    const auto find = [&](const auto& pictures) -> std::shared_ptr<const Picture> {
      const auto found = std::ranges::find_if(pictures, is_this);
      return found == pictures.end() ? nullptr : *found;
    };
    std::shared_ptr<const Picture> known = reuse ? find(seen) : nullptr;
    if (reuse && !known) known = find(state_.pictures);
    if (known) {
      compute();
      seen.push_back(known);
      continue;
    }
    if (fresh.empty()) first_fresh = own.data();
    fresh.push_back(std::make_shared<Picture>(Picture{grid, {own.begin(), own.end()}, {}}));
    seen.push_back(fresh.back());
  }
  compute();
  return seen;
}

std::vector<Context::Token> Context::tokens_of(
    const Prompt& prompt, const std::vector<std::shared_ptr<const Picture>>& pictures) const {
  const ModelConfig& config = model_->config();
  const std::int64_t merge = config.vision.spatial_merge_size;
  std::vector<Token> tokens;
  auto picture = pictures.begin();
  std::int64_t left = 0;  // image tokens of *(picture - 1) to come
  for (const std::int64_t id : prompt.ids) {
    Token token{id, nullptr, !prompt.state.empty() && id == prompt.state_token_id};
    if (id == config.image_token_id) {
      if (left == 0) left = num_patches((*picture++)->grid) / (merge * merge);
      --left;
      token.picture = (*(picture - 1)).get();
    }
    tokens.push_back(token);
  }
  return tokens;
}

// Equal tokens from the start on have equal positions, since these follow from ids and grids before them. The
// last token is left out: its final norm is needed.
std::int64_t Context::num_shared(const Prompt& prompt, const std::vector<Token>& tokens) const {
  const bool is_same_state =
      is_same(prompt.state, state_.robot_state) && is_same(prompt.state_mask, state_.state_mask);
  const std::size_t most = std::min(tokens.size() - 1, state_.tokens.size());
  std::size_t shared = 0;
  while (shared < most && tokens[shared] == state_.tokens[shared] &&
         (!tokens[shared].is_state || is_same_state))
    ++shared;
  return static_cast<std::int64_t>(shared);
}

// computes the prompt's tokens from `first` to before `last`
void Context::fill(const Prompt& prompt, const MropePositions& positions, const std::vector<Token>& tokens,
                   std::int64_t first, std::int64_t last, Trace* trace) {
  const ModelConfig& config = model_->config();
  const std::int64_t width = config.hidden_size, rows = last - first;
  const Stopwatch watch(timings_.prefill);
  Backend& backend = *model_->backend();
  model_->language().reserve(language_, rows);
  Stream& stream = *language_.stream;
  float* hidden = language_.hidden.as();
  model_->language().embed(
      prompt.ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows)), language_, hidden);
  const auto row_bytes = static_cast<std::size_t>(width) * sizeof(float);
  const Picture* picture = nullptr;
  std::size_t within = 0;  // bytes of this picture's tokens before this one
  for (std::int64_t i = 0; i < last; ++i) {
    const Token& token = tokens[static_cast<std::size_t>(i)];
    float* to = hidden + (i - first) * width;
    if (token.picture) {
      if (token.picture != picture || within == token.picture->tokens.size()) within = 0;
      picture = token.picture;
      if (i >= first) backend.copy(stream, picture->tokens.as<std::byte>() + within, to, row_bytes);
      within += row_bytes;
    } else {
      picture = nullptr;
    }
    if (token.is_state && i >= first) {
      model_->action_head().embed_state(prompt.state, prompt.state_mask, action_, to);
      if (trace) trace->append("state_embed", backend, stream, to, 1, width);
    }
  }
  if (trace) trace->append("inputs_embeds", backend, stream, hidden, rows, width);

  MropePositions rest;
  rest.time.assign(positions.time.begin() + first, positions.time.begin() + last);
  rest.height.assign(positions.height.begin() + first, positions.height.begin() + last);
  rest.width.assign(positions.width.begin() + first, positions.width.begin() + last);
  set_rotary(rest);
  state_.cache.append(rows);
  const bool is_last_only = trace == nullptr;
  model_->language().forward({.rows = rows, .is_last_only = is_last_only}, language_, state_.cache, trace);
  state_.last_normed.resize(static_cast<std::size_t>(width));
  backend.download(stream, language_.normed.as() + (is_last_only ? 0 : rows - 1) * width,
                   state_.last_normed.data(), row_bytes);
  state_.next_position = positions.next;
}

std::int64_t Context::prefill(const Prompt& prompt, Trace* trace, bool reuse) {
  const Use use(*this);
  ++revision_;
  timings_.vision = timings_.prefill = 0;
  reuse = reuse && !trace;
  try {
    const MropePositions positions = require_valid(prompt);
    // the pictures before stay alive until the new tokens are compared with those that point to them
    const auto pictures = see(prompt, trace, reuse);
    std::vector<Token> tokens = tokens_of(prompt, pictures);
    const std::int64_t shared = reuse ? num_shared(prompt, tokens) : 0;
    state_.cache.truncate(shared);
    const std::int64_t length = std::ssize(tokens), most = max_rows_ > 0 && !trace ? max_rows_ : length;
    for (std::int64_t first = shared; first < length; first += most)
      fill(prompt, positions, tokens, first, std::min(length, first + most), trace);
    state_.tokens = std::move(tokens);
    state_.pictures = pictures;
    state_.robot_state.assign(prompt.state.begin(), prompt.state.end());
    state_.state_mask.assign(prompt.state_mask.begin(), prompt.state_mask.end());
    return shared;
  } catch (...) {
    state_ = State{model_->language().empty_cache(), {}, {}, {}, {}, {}, 0};
    throw;
  }
}

void Context::require_valid(std::span<const float> actions, std::span<const float> mask, std::int64_t horizon,
                            const FlowOptions& options) const {
  const ModelConfig& config = model_->config();
  if (horizon < 1 || horizon > max_tokens() - length())
    throw ConfigError("horizon " + std::to_string(horizon) + " after a prompt of " +
                      std::to_string(length()) + " tokens does not fit max_tokens " +
                      std::to_string(max_tokens()));
  require_size("noise", actions.size(), horizon * config.action_dim());
  require_size("dof_mask", mask.size(), horizon * config.action_dim());
  require_finite("noise", actions);
  require_finite("dof_mask", mask);
  if (!options.guide.is_empty()) wallx::require_valid(options.guide, horizon, config.action_dim());
  if (!options.padding_action.empty()) {
    require_size("padding_action", options.padding_action.size(), config.action_dim());
    require_finite("padding_action", options.padding_action);
  } else if (config.does_pad_masked_dims && std::ranges::any_of(mask, [](float m) { return m != 1; })) {
    throw ConfigError("dof_mask leaves dims out, and in " + config.architecture +
                      " these move to padding_action: give it, the normalised zero of each dim");
  }
}

void Context::denoise(std::span<float> actions, std::span<const float> mask, std::int64_t horizon,
                      const FlowOptions& options, FlowSteps* steps, Trace* trace) {
  const Use use(*this);
  require_prompt("denoise");
  require_valid(actions, mask, horizon, options);
  const ModelConfig& config = model_->config();
  const Language& language = model_->language();
  const ActionHead& head = model_->action_head();
  const std::vector<float> times = time_points(options, config.time_scale, config.time_shift);
  const std::int64_t width = language.width(Expert::action);
  const bool is_causal = options.attention == ActionAttention::checkpoint
                             ? config.is_action_causal
                             : options.attention == ActionAttention::causal;
  Backend& backend = *model_->backend();
  language.reserve(language_, horizon);
  Stream& stream = *language_.stream;
  rotary_at(state_.next_position, horizon);
  const std::vector<float> noise(actions.begin(), actions.end());
  if (steps) *steps = {times, noise, {}, {}, {}};
  timings_.steps.assign(times.size() - 1, 0);
  struct Borrow {  // the action tokens' entries leave the cache with this call
    Borrow(KvCache& of, std::int64_t rows) : cache(of), length(of.length()) { cache.append(rows); }
    ~Borrow() { cache.truncate(length); }
    KvCache& cache;
    std::int64_t length;
  } const borrow(state_.cache, horizon);

  // x lies in the rows that the first layer takes, beside the mask where it takes that too
  const std::int64_t dim = config.action_dim(), input_width = head.input_width();
  std::vector<float> input(static_cast<std::size_t>(horizon * input_width));
  for (std::int64_t r = 0; r < horizon; ++r) {
    float* row = input.data() + r * input_width;
    std::copy_n(actions.data() + r * dim, dim, row);
    if (input_width > dim) std::copy_n(mask.data() + r * dim, dim, row + dim);
  }
  const auto to_device = [&](Memory& memory, std::span<const float> values) {
    float* device = reserve(backend, memory, std::ssize(values));
    backend.upload(stream, values.data(), device, values.size_bytes());
    return device;
  };
  EulerStep euler;
  euler.rows = horizon;
  euler.dim = dim;
  euler.x = to_device(input_, input);
  euler.x_stride = input_width;
  euler.velocity = reserve(backend, velocity_, horizon * dim);
  euler.noise = to_device(noise_, noise);
  euler.mask = to_device(mask_, mask);
  euler.padding = options.padding_action.empty() ? nullptr : to_device(padding_, options.padding_action);
  euler.does_predict_actions = config.does_predict_actions;
  const auto read_actions = [&] {
    backend.download(stream, euler.x, input.data(), input.size() * sizeof(float));
    for (std::int64_t r = 0; r < horizon; ++r)
      std::copy_n(input.data() + r * input_width, dim, actions.data() + r * dim);
  };
  const auto record_velocity = [&](std::vector<float>& to) {
    std::vector<float> values(actions.size());
    backend.download(stream, euler.velocity, values.data(), values.size() * sizeof(float));
    to.insert(to.end(), values.begin(), values.end());
  };
  // takes the step again on the host, whose actions are still those before it
  const auto guide_step = [&] {
    std::vector<float> velocity;
    record_velocity(velocity);
    guide_velocity(options.guide, euler.time, actions, mask, velocity);
    for (std::size_t j = 0; j < actions.size(); ++j) actions[j] += velocity[j] * euler.dt;
    for (std::int64_t r = 0; r < horizon; ++r)
      std::copy_n(actions.data() + r * dim, dim, input.data() + r * input_width);
    backend.upload(stream, input.data(), euler.x, input.size() * sizeof(float));
    backend.upload(stream, velocity.data(), euler.velocity, velocity.size() * sizeof(float));
  };
  head.prepare({times.data(), times.size() - 1}, action_);

  for (std::size_t i = 0; i + 1 < times.size(); ++i) {
    const Stopwatch watch(timings_.steps[i]);
    Trace* first = i == 0 ? trace : nullptr;
    const auto step = static_cast<std::int64_t>(i);
    head.embed_actions(euler.x, horizon, step, action_, language_.hidden.as());
    if (first) {
      first->append("action_embed", backend, stream, language_.hidden.as(), horizon, width);
      first->append("inputs_embeds", backend, stream, language_.hidden.as(), horizon, width);
    }
    const float* condition = head.condition(step, action_);
    language.forward({horizon, Expert::action, is_causal, condition}, language_, state_.cache, first);
    if (trace && i == 1) trace->append("step1.norm", backend, stream, language_.normed.as(), horizon, width);
    if (trace && i > 0 && i + 2 == times.size())
      trace->append("last.norm", backend, stream, language_.normed.as(), horizon, width);
    head.velocity(language_.normed.as(), horizon, action_, euler.velocity);
    if (steps) record_velocity(steps->v_raw);
    euler.time = times[i];
    euler.dt = times[i + 1] - times[i];
    backend.euler(stream, euler);
    if (!options.guide.is_empty()) guide_step();
    if (!steps) continue;
    read_actions();
    steps->x.insert(steps->x.end(), actions.begin(), actions.end());
    record_velocity(steps->v);
    std::vector<float> values(static_cast<std::size_t>(config.condition_width));
    if (condition) backend.download(stream, condition, values.data(), values.size() * sizeof(float));
    steps->condition.insert(steps->condition.end(), values.begin(), values.end());
  }
  read_actions();
  freeze_rows(options.guide, mask, actions);
  for (float value : actions)
    if (!std::isfinite(value))
      throw WallxError("the network produced a value that is not finite; the chunk is discarded");
}

void Context::logits(std::span<float> out) {
  const Use use(*this);
  require_prompt("logits");
  require_size("logits", out.size(), model_->language().vocab_size());
  timings_.logits = 0;
  {
    const Stopwatch watch(timings_.logits);
    model_->language().logits(state_.last_normed.data(), language_, out.data());
  }
  for (float value : out)
    if (!std::isfinite(value)) throw WallxError("the network produced a score that is not finite");
}

void Context::decode(std::int64_t id) {
  const Use use(*this);
  require_prompt("decode");
  require_id(id);
  if (length() + 1 > max_tokens())
    throw ConfigError("the context is full: " + std::to_string(length()) + " tokens (max_tokens)");
  const Language& language = model_->language();
  timings_.decode = 0;
  const Stopwatch watch(timings_.decode);
  language.reserve(language_, 1);
  state_.tokens.reserve(state_.tokens.size() + 1);
  rotary_at(state_.next_position, 1);
  language.embed({&id, 1}, language_, language_.hidden.as());
  state_.cache.append(1);
  language.forward({.rows = 1}, language_, state_.cache, nullptr);
  model_->backend()->download(*language_.stream, language_.normed.as(), state_.last_normed.data(),
                              state_.last_normed.size() * sizeof(float));
  state_.tokens.push_back({id, nullptr, false});
  ++state_.next_position;
  ++revision_;
}

}  // namespace wallx
