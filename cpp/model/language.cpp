// Language: the decoder's layers over fused ops.
// SPDX-License-Identifier: Apache-2.0
#include "model/language.hpp"

#include <algorithm>
#include <string>

#include "base/errors.hpp"

namespace wallx {

Language::Language(const ModelConfig& config, Weights& weights) : config_(config) {
  const std::int64_t width = config.hidden_size;
  const std::int64_t q_width = config.num_heads * config.head_dim;
  const std::int64_t kv_width = config.num_kv_heads * config.head_dim;

  // vocab_size in a published config.json is nominal; the table itself says how many tokens there are
  const TensorEntry& table = weights.entry("model.embed_tokens.weight");
  if (table.shape.size() != 2 || table.shape[0] < 1)
    throw CheckpointError("tensor model.embed_tokens.weight: expected shape [tokens, " +
                          std::to_string(width) + "], found " + to_string(table.shape));
  const std::int64_t vocab = table.shape[0];
  embedding_ = weights.take("model.embed_tokens.weight", {vocab, width});
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    DecoderLayer layer;
    layer.input_norm = weights.take(prefix + "input_layernorm.weight", {width});
    layer.post_attention_norm = weights.take(prefix + "post_attention_layernorm.weight", {width});
    layer.q = weights.take_linear(prefix + "self_attn.q_proj", q_width, width, true);
    layer.k = weights.take_linear(prefix + "self_attn.k_proj", kv_width, width, true);
    layer.v = weights.take_linear(prefix + "self_attn.v_proj", kv_width, width, true);
    layer.o = weights.take_linear(prefix + "self_attn.o_proj", width, q_width, false);
    for (std::size_t e = 0; e < layer.experts.size(); ++e) {
      const std::string expert = prefix + "moe.experts." + std::to_string(e) + ".";
      layer.experts[e].gate = weights.take_linear(expert + "gate_proj", config.expert_sizes[e], width, false);
      layer.experts[e].up = weights.take_linear(expert + "up_proj", config.expert_sizes[e], width, false);
      layer.experts[e].down = weights.take_linear(expert + "down_proj", width, config.expert_sizes[e], false);
    }
    layers_.push_back(layer);
  }
  norm_ = weights.take("model.norm.weight", {width});
  if (config.is_head_tied) {
    head_.weight = embedding_;
    head_.out = vocab;
    head_.in = width;
    if (weights.contains("lm_head.weight"))
      weights.skip("lm_head.weight");  // tied: the reference ignores it too
  } else {
    head_ = weights.take_linear("lm_head", vocab, width, false);
  }
}

void Language::reserve(LanguageWorkspace& work, KvCache& cache, std::int64_t max_tokens) const {
  const auto size = [&](std::int64_t width) { return static_cast<std::size_t>(max_tokens * width); };
  const std::int64_t heads = config_.num_heads + 2 * config_.num_kv_heads;
  work.hidden.resize(size(config_.hidden_size));
  work.normed.resize(size(config_.hidden_size));
  work.qkv.resize(size(heads * config_.head_dim));
  work.attended.resize(size(config_.num_heads * config_.head_dim));
  work.gated.resize(size(std::max(config_.expert_sizes[0], config_.expert_sizes[1])));
  work.scores.resize(size(kAttentionRows));
  work.cos.reserve(size(config_.head_dim));
  work.sin.reserve(size(config_.head_dim));
  cache.capacity = max_tokens;
  cache.key.resize(size(config_.num_layers * config_.num_kv_heads * config_.head_dim));
  cache.value.resize(cache.key.size());
}

void Language::embed(std::span<const std::int64_t> ids, float* out) const {
  for (std::size_t i = 0; i < ids.size(); ++i)
    std::copy_n(embedding_ + ids[i] * config_.hidden_size, config_.hidden_size,
                out + static_cast<std::int64_t>(i) * config_.hidden_size);
}

void Language::forward(std::int64_t rows, std::int64_t position, Expert expert, bool is_causal,
                       LanguageWorkspace& work, KvCache& cache, Trace* trace) const {
  const std::int64_t width = config_.hidden_size, dim = config_.head_dim;
  const std::int64_t q_width = config_.num_heads * dim, kv_width = config_.num_kv_heads * dim;
  const std::int64_t qkv_width = q_width + 2 * kv_width;
  float* hidden = work.hidden.data();
  float* normed = work.normed.data();
  float* qkv = work.qkv.data();
  const Rotary rotary{work.cos.data(), work.sin.data()};
  std::vector<float> before;  // only for a trace

  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const DecoderLayer& layer = layers_[i];
    const std::string name = trace ? "layers." + std::to_string(i) : std::string();
    const std::int64_t plane = static_cast<std::int64_t>(i) * config_.num_kv_heads * cache.capacity * dim;
    const CacheView view{cache.key.data() + plane, cache.value.data() + plane, cache.capacity,
                         config_.num_kv_heads, dim};
    const auto keep = [&] {
      if (trace) before.assign(hidden, hidden + rows * width);
    };

    keep();
    rms_norm(hidden, rows, width, layer.input_norm, config_.rms_norm_eps, normed);
    if (trace) trace->append(name + ".input_layernorm", normed, rows, width);
    linear(normed, rows, layer.q, Activation::none, nullptr, qkv, qkv_width);
    linear(normed, rows, layer.k, Activation::none, nullptr, qkv + q_width, qkv_width);
    linear(normed, rows, layer.v, Activation::none, nullptr, qkv + q_width + kv_width, qkv_width);
    rotate_and_cache(qkv, rows, config_.num_heads, rotary, position, view);
    cache_attention(qkv, {rows, config_.num_heads, position, is_causal}, view, work.scores.data(),
                    work.attended.data());
    linear(work.attended.data(), rows, layer.o, Activation::none, hidden, hidden);
    if (trace) trace->append_difference(name + ".self_attn", hidden, before.data(), rows, width);

    keep();
    rms_norm(hidden, rows, width, layer.post_attention_norm, config_.rms_norm_eps, normed);
    if (trace) trace->append(name + ".post_attention_layernorm", normed, rows, width);
    const FeedForward& ffn = layer.experts[static_cast<std::size_t>(expert)];
    gated_linear(normed, rows, ffn.gate, ffn.up, work.gated.data());
    linear(work.gated.data(), rows, ffn.down, Activation::none, hidden, hidden);
    if (trace) {
      trace->append_difference(name + ".moe", hidden, before.data(), rows, width);
      trace->append(name, hidden, rows, width);
    }
  }
  rms_norm(hidden, rows, width, norm_, config_.rms_norm_eps, normed);
  if (trace) trace->append("norm", normed, rows, width);
}

void Language::logits(const float* normed, float* out) const {
  linear(normed, 1, head_, Activation::none, nullptr, out);
}

}  // namespace wallx
