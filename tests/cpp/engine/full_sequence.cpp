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

  Row embed_action(const Row& action, const Row& mask, double time) const {
    Row input = action;
    input.insert(input.end(), mask.begin(), mask.end());
    Row joined = layers_.product("action_preprocessor.w1", input);
    const std::int64_t half = config_.hidden_size / 2;
    for (const bool is_cos : {false, true})
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle =
            time * std::exp(-std::log(10000.0) * static_cast<double>(i) / static_cast<double>(half - 1));
        joined.push_back(is_cos ? std::cos(angle) : std::sin(angle));
      }
    return layers_.product("action_preprocessor.w3", silu(layers_.product("action_preprocessor.w2", joined)));
  }
  Row velocity(const Row& normed) const {
    return layers_.product("action_preprocessor.action_proj_back", normed);
  }
  Row logits(const Row& normed) const { return layers_.product("model.embed_tokens", normed); }

  // Final norm of every token. The first `num_prefix` tokens are text and causal; the rest are action tokens.
  Rows forward(Rows hidden, const MropePositions& at, std::size_t num_prefix, bool is_causal) const {
    const auto dim = static_cast<std::size_t>(config_.head_dim);
    const auto heads = static_cast<std::size_t>(config_.num_heads);
    const auto kv_heads = static_cast<std::size_t>(config_.num_kv_heads);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) {
      const std::string layer = join("model.layers.", i, ".");
      std::vector<Rows> q(heads), k(kv_heads), v(kv_heads);  // of each head, every token
      for (std::size_t t = 0; t < hidden.size(); ++t) {
        const Row normed = layers_.norm(layer + "input_layernorm", hidden[t]);
        const Row angles = angles_at(at, t);
        const Row q_row = layers_.product(layer + "self_attn.q_proj", normed);
        const Row k_row = layers_.product(layer + "self_attn.k_proj", normed);
        const Row v_row = layers_.product(layer + "self_attn.v_proj", normed);
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
        add(hidden[t], layers_.product(layer + "self_attn.o_proj", attended));
        const Row normed = layers_.norm(layer + "post_attention_layernorm", hidden[t]);
        const std::string expert = layer + (t < num_prefix ? "moe.experts.0." : "moe.experts.1.");
        add(hidden[t], layers_.feed_forward(expert, normed));
      }
    }
    for (Row& row : hidden) row = layers_.norm("model.norm", row);
    return hidden;
  }

 private:
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

}  // namespace

TEST(cached_denoising_equals_the_whole_sequence_recomputed) {
  constexpr std::int64_t kHorizon = 5, kDim = TinyModel::kActionDim;
  double worst = 0;
  for (const TinyPrompt& prompt : {robot_prompt(), text_prompt()})
    for (const ActionAttention attention : {ActionAttention::bidirectional, ActionAttention::causal}) {
      Context context(tiny_model(), 64, RopeLayout::hf);
      const Rows prefix = prefix_embeddings(context, prompt);
      const FullSequence full(*tiny_model());
      const MropePositions at = positions_of(prompt, tiny_model()->config(), kHorizon);
      const Floats mask = mask_of(kHorizon);
      FlowSteps steps;
      const Floats actions = denoised(context, kHorizon, {4, attention, TimeGrid::intervals}, &steps);

      const Floats noise = noise_of(kHorizon);
      Rows x;
      for (std::int64_t r = 0; r < kHorizon; ++r) x.push_back(to_row(noise.data() + r * kDim, kDim));
      for (std::size_t s = 0; s < 4; ++s) {
        Rows tokens = prefix;
        for (std::size_t r = 0; r < x.size(); ++r)
          tokens.push_back(
              full.embed_action(x[r], to_row(mask.data() + r * kDim, kDim), static_cast<double>(s) / 4));
        const Rows normed = full.forward(tokens, at, prefix.size(), attention == ActionAttention::causal);
        for (std::size_t r = 0; r < x.size(); ++r) {
          const Row v = full.velocity(normed[prefix.size() + r]);
          for (std::size_t d = 0; d < kDim; ++d) {
            const double found = steps.v[(s * kHorizon + r) * kDim + d];
            worst = std::max(worst, std::abs(found - v[d]));
            CHECK_NEAR(found, v[d], 1e-5);
            x[r][d] += v[d] / 4;
          }
        }
      }
      for (std::size_t i = 0; i < actions.size(); ++i)
        CHECK_NEAR(static_cast<double>(actions[i]), x[i / kDim][i % kDim], 1e-5);
    }
  std::printf("  worst difference %.1e (tolerance 1e-05)\n", worst);
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
