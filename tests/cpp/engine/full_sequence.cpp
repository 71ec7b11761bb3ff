// FullSequenceTest: the cached result equals the network without a cache, in double precision.
// SPDX-License-Identifier: Apache-2.0

// prefix and action tokens stand in one sequence, and every row is recomputed at every step
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "naive_layers.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

// The decoder and the action head of one checkpoint, straight from its tensors.
class FullSequence {
 public:
  explicit FullSequence(const WallOss& model) : layers_(model.weights()), config_(model.config()) {}

  // what adaptive norms follow; empty where there are none
  Row condition(double time) const {
    if (!config_.has_adaptive_norms) return {};
    const Row inner = silu(layers_.product("action_preprocessor.time_mlp_in", embed_time(time)));
    return silu(layers_.product("action_preprocessor.time_mlp_out", inner));
  }
  Row embed_action(const Row& action, const Row& mask, double time) const {
    Row input = action;
    if (config_.does_project_mask) input.insert(input.end(), mask.begin(), mask.end());
    Row embedded = layers_.product("action_preprocessor.w1", input);
    if (!config_.has_adaptive_norms) {
      const Row when = embed_time(time);
      embedded.insert(embedded.end(), when.begin(), when.end());
      embedded = layers_.product("action_preprocessor.w3",
                                 silu(layers_.product("action_preprocessor.w2", embedded)));
    }
    embedded.resize(static_cast<std::size_t>(config_.expert_widths[1]), 0.0);
    return embedded;
  }
  Row velocity(Row normed) const {
    normed.resize(static_cast<std::size_t>(config_.action_width));
    return layers_.product("action_preprocessor.action_proj_back", normed);
  }
  Row logits(const Row& normed) const { return layers_.product("model.embed_tokens", normed); }

  // Final norm of every token. The first `num_prefix` tokens are text and causal; the rest are action tokens.
  Rows forward(Rows hidden, const MropePositions& at, std::size_t num_prefix, bool is_causal,
               const Row& condition = {}) const {
    const auto dim = static_cast<std::size_t>(config_.head_dim);
    const auto heads = static_cast<std::size_t>(config_.num_heads);
    const auto kv_heads = static_cast<std::size_t>(config_.num_kv_heads);
    const auto expert = [&](std::size_t t) { return t < num_prefix ? 0 : 1; };
    for (std::int64_t i = 0; i < config_.num_layers; ++i) {
      const std::string layer = join("model.layers.", i, ".");
      std::vector<Rows> q(heads), k(kv_heads), v(kv_heads);  // of each head, every token
      for (std::size_t t = 0; t < hidden.size(); ++t) {
        const Row normed = norm(layer + "input_layernorm", expert(t), hidden[t], condition);
        const Row angles = angles_at(at, t);
        const Row q_row = layers_.product(attention(layer, "q", expert(t)), normed);
        const Row k_row = layers_.product(attention(layer, "k", expert(t)), normed);
        const Row v_row = layers_.product(attention(layer, "v", expert(t)), normed);
        for (std::size_t h = 0; h < heads; ++h) q[h].push_back(rotate(head_of(q_row, h, dim), angles));
        for (std::size_t h = 0; h < kv_heads; ++h) {
          k[h].push_back(rotate(head_of(k_row, h, dim), angles));
          v[h].push_back(head_of(v_row, h, dim));
        }
      }
      for (std::size_t t = 0; t < hidden.size(); ++t) {
        const std::size_t seen = t < num_prefix || is_causal ? t + 1 : hidden.size();
        Row attended;
        for (std::size_t h = 0; h < heads; ++h) {
          Rows keys = k[h / (heads / kv_heads)], values = v[h / (heads / kv_heads)];
          keys.resize(seen);
          values.resize(seen);
          const Row head = attend(q[h][t], keys, values);
          attended.insert(attended.end(), head.begin(), head.end());
        }
        add_branch(hidden[t], layers_.product(attention(layer, "o", expert(t)), attended),
                   layer + "input_layernorm", expert(t), condition);
        const Row normed = norm(layer + "post_attention_layernorm", expert(t), hidden[t], condition);
        add_branch(hidden[t], layers_.feed_forward(layer + join("moe.experts.", expert(t), "."), normed),
                   layer + "post_attention_layernorm", expert(t), condition);
      }
    }
    for (std::size_t t = 0; t < hidden.size(); ++t)
      hidden[t] = norm("model.norm", expert(t), hidden[t], condition);
    return hidden;
  }

 private:
  Row embed_time(double time) const {
    Row out;
    const std::int64_t half = config_.action_width / 2;
    for (const bool is_cos : {false, true})
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle =
            time * std::exp(-std::log(10000.0) * static_cast<double>(i) / static_cast<double>(half - 1));
        out.push_back(is_cos ? std::cos(angle) : std::sin(angle));
      }
    return out;
  }

  std::string attention(const std::string& layer, const char* part, int expert) const {
    const std::string name = layer + "self_attn." + part + "_proj";
    return config_.has_expert_attention ? join(name, "_experts.", expert) : name;
  }
  // scale, shift and gate of an adaptive norm; empty for the others
  Row modulation(const std::string& name, int expert, const Row& condition) const {
    if (expert == 0 || !config_.has_adaptive_norms) return {};
    return layers_.product(name + "s.1.dense", condition);
  }
  Row norm(const std::string& name, int expert, const Row& x, const Row& condition) const {
    const Row m = modulation(name, expert, condition);
    if (m.empty()) return layers_.norm(config_.has_expert_attention ? join(name, "s.", expert) : name, x);
    Row y = rms_norm(x, Row(x.size(), 1.0));
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = y[i] * (1 + m[i]) + m[y.size() + i];
    return y;
  }
  void add_branch(Row& to, Row from, const std::string& name, int expert, const Row& condition) const {
    const Row m = modulation(name, expert, condition);
    for (std::size_t i = 0; i < m.size() / 3; ++i) from[i] *= m[2 * from.size() + i];
    add(to, from);
  }

  // pair i of a head turns by frequency i times the position on the axis of its section: 1, 1 and 2 pairs
  Row angles_at(const MropePositions& at, std::size_t t) const {
    const std::int64_t on_axis[] = {at.time[t], at.height[t], at.width[t], at.width[t]};
    Row angles;
    for (std::size_t i = 0; i < 4; ++i)
      angles.push_back(static_cast<double>(on_axis[i]) *
                       std::pow(config_.rope_theta, -2.0 * static_cast<double>(i) / 8));
    return angles;
  }

  NaiveLayers layers_;
  const ModelConfig& config_;
};

// the prefix's embeddings as the engine made them: vision and state are not what is tested here
Rows prefix_embeddings(Context& context, const TinyPrompt& prompt) {
  Trace trace;
  context.prefill(prompt.view(), &trace);
  const Trace::Array& array = trace.arrays().at("inputs_embeds");
  Rows rows;
  for (std::int64_t t = 0; t < prompt.size(); ++t)
    rows.push_back(to_row(array.data.data() + t * array.width, array.width));
  return rows;
}

MropePositions positions_of(const TinyPrompt& prompt, const ModelConfig& config, std::int64_t horizon) {
  std::size_t next_grid = 0;
  MropePositions at = mrope_positions(prompt.ids, {}, prompt.grids, next_grid, config);
  for (std::int64_t i = 0; i < horizon; ++i)
    for (auto* axis : {&at.time, &at.height, &at.width}) axis->push_back(at.next + i);
  return at;
}

// the engine's flow against the one above, step by step; prints the worst difference when it ends
class Residual {
 public:
  ~Residual() { std::printf("  worst difference %.1e (tolerance 1e-05)\n", worst_); }

  // `last` is where the checkpoint's flow ends
  void compare(const Model& model, const TinyPrompt& prompt, const FlowOptions& options, double last) {
    constexpr std::int64_t kHorizon = 5;
    constexpr std::size_t kDim = TinyModel::kActionDim;
    const ModelConfig& config = model->config();
    Context context(model, 64, RopeLayout::hf);
    const Rows prefix = prefix_embeddings(context, prompt);
    const FullSequence full(*model);
    const MropePositions at = positions_of(prompt, config, kHorizon);
    const Floats mask = mask_of(kHorizon), noise = noise_of(kHorizon);
    FlowSteps steps;
    const Floats actions = denoised(context, kHorizon, options, &steps);
    const bool is_causal = options.attention == ActionAttention::causal ||
                           (options.attention == ActionAttention::checkpoint && config.is_action_causal);

    const auto time = [&](std::size_t step) {
      const double even = static_cast<double>(step) / static_cast<double>(options.num_steps);
      const double k = config.time_shift;
      return last * k * even / (1 + (k - 1) * even);
    };
    const auto row = [&](const Floats& from, std::size_t r) { return to_row(from.data() + r * kDim, kDim); };
    Rows x;
    for (std::size_t r = 0; r < kHorizon; ++r) x.push_back(row(noise, r));
    for (std::size_t s = 0; s < static_cast<std::size_t>(options.num_steps); ++s) {
      const Row condition = full.condition(time(s));
      Rows tokens = prefix;
      for (std::size_t r = 0; r < kHorizon; ++r)
        tokens.push_back(full.embed_action(x[r], row(mask, r), time(s)));
      const Rows normed = full.forward(tokens, at, prefix.size(), is_causal, condition);
      for (std::size_t r = 0; r < kHorizon; ++r) {
        Row v = full.velocity(normed[prefix.size() + r]);
        for (std::size_t d = 0; d < kDim; ++d) {
          const std::size_t i = (s * kHorizon + r) * kDim + d;
          check(steps.v_raw[i], v[d]);
          if (config.does_predict_actions) v[d] = (v[d] - x[r][d]) / std::max(1 - time(s), 0.05);
          if (!options.padding_action.empty() && mask[r * kDim + d] == 0)
            v[d] = options.padding_action[d] - static_cast<double>(noise[r * kDim + d]);
          check(steps.v[i], v[d]);
          x[r][d] += v[d] * (time(s + 1) - time(s));
        }
      }
      for (std::size_t i = 0; i < condition.size(); ++i)
        check(steps.condition[s * condition.size() + i], condition[i]);
    }
    for (std::size_t i = 0; i < actions.size(); ++i) check(actions[i], x[i / kDim][i % kDim]);
  }

 private:
  void check(double found, double expected) {
    worst_ = std::max(worst_, std::abs(found - expected));
    CHECK_NEAR(found, expected, 1e-5);
  }
  double worst_ = 0;
};

}  // namespace

TEST(cached_denoising_equals_the_whole_sequence_recomputed) {
  Residual residual;
  for (const TinyPrompt& prompt : {robot_prompt(), text_prompt()})
    for (const ActionAttention attention : {ActionAttention::bidirectional, ActionAttention::causal})
      residual.compare(tiny_model(), prompt, {4, attention, TimeGrid::intervals}, 1);
}

TEST(every_mixture_equals_the_whole_sequence_recomputed) {
  Residual residual;
  const Floats padding{0.5f, -0.25f, 1, -1};
  for (TinyModel kind : {TinyModel::mixture(), TinyModel::adaptive()})
    for (const auto& flags :
         std::vector<decltype(kind.flags)>{{},
                                           {{"causal_action_attention_mask", "true"}},
                                           {{"proj_with_mask", "false"}},
                                           {{"use_x_pred", "true"}},
                                           {{"noise_scheduler", R"({"s": 0.9, "time_shift": 2.5})"}}}) {
      kind.flags = flags;
      for (const bool is_state_text : {false, true}) {
        kind.is_state_text = is_state_text;
        FlowOptions options;
        options.num_steps = 3;
        options.padding_action = padding;
        residual.compare(load(kind), is_state_text ? text_prompt() : robot_prompt(), options,
                         flags.empty() || flags[0].first != "noise_scheduler" ? 0.75 : 0.9);
      }
    }
}

TEST(cached_decoding_equals_the_whole_sequence_recomputed) {
  const TinyPrompt prompt = robot_prompt();
  Context context(tiny_model(), 64, RopeLayout::hf);
  Rows tokens = prefix_embeddings(context, prompt);
  const FullSequence full(*tiny_model());
  const std::vector<std::int64_t> more{4, 0, 39, 17};
  const MropePositions at =
      positions_of(prompt, tiny_model()->config(), static_cast<std::int64_t>(more.size()));
  for (std::size_t i = 0; i <= more.size(); ++i) {
    const Row expected = full.logits(full.forward(tokens, at, tokens.size(), true).back());
    const Floats found = logits_of(context);
    for (std::size_t n = 0; n < found.size(); ++n)
      CHECK_NEAR(static_cast<double>(found[n]), expected[n], 1e-5);
    if (i == more.size()) break;
    context.decode(more[i]);
    const Floats table = tiny_model()->weights().read("model.embed_tokens.weight");
    tokens.push_back(to_row(table.data() + more[i] * 32, 32));
  }
}

}  // namespace wallx::test
