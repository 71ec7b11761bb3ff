// Language: the decoder's layers over fused ops.
// SPDX-License-Identifier: Apache-2.0
#include "model/language.hpp"

#include <algorithm>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {

// takes the decoder's tensors by their names in either layout
class Loader {
 public:
  Loader(const ModelConfig& config, Weights& weights) : config_(config), weights_(weights) {}

  std::array<ExpertLayer, 2> layer(std::int64_t index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    std::array<ExpertLayer, 2> out;
    for (std::size_t e = 0; e < out.size(); ++e) {
      ExpertLayer& layer = out[e];
      if (config_.has_expert_attention || e == 0) {
        take_attention(prefix + "self_attn.", e, layer);
      } else {
        layer = out[0];
      }
      const std::string moe = prefix + "moe.experts." + std::to_string(e) + ".";
      const std::int64_t width = config_.expert_widths[e], size = config_.expert_sizes[e];
      const std::vector<Linear> halves = weights_.take_stacked(
          moe + "gate_up_proj", {{moe + "gate_proj", size}, {moe + "up_proj", size}}, width, false);
      layer.gate = halves[0];
      layer.up = halves[1];
      layer.down = weights_.take_linear(moe + "down_proj", width, size, false);
    }
    const std::array<Norm, 2> input = norms(prefix + "input_layernorm"),
                              post = norms(prefix + "post_attention_layernorm");
    for (std::size_t e = 0; e < out.size(); ++e) {
      out[e].input_norm = input[e];
      out[e].post_attention_norm = post[e];
    }
    return out;
  }

  // NAME.weight, or in mixtures NAMEs.E.weight
  std::array<Norm, 2> norms(const std::string& name) {
    std::array<Norm, 2> out;
    if (!config_.has_expert_attention) {
      out[0].weight = out[1].weight = weights_.take(name + ".weight", {config_.hidden_size});
      return out;
    }
    for (std::size_t e = 0; e < out.size(); ++e) {
      const std::string one = name + "s." + std::to_string(e);
      const std::int64_t width = config_.expert_widths[e];
      if (e == 1 && config_.has_adaptive_norms) {
        out[e].dense = weights_.take_linear(one + ".dense", 3 * width, config_.condition_width, true);
      } else {
        out[e].weight = weights_.take(one + ".weight", {width});
      }
    }
    return out;
  }

 private:
  void take_attention(const std::string& prefix, std::size_t e, ExpertLayer& layer) {
    const std::int64_t width = config_.expert_widths[e];
    const std::int64_t q_width = config_.num_heads * config_.head_dim;
    const std::int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    const std::string ending = config_.has_expert_attention ? "_proj_experts." + std::to_string(e) : "_proj";
    const std::vector<Linear> qkv = weights_.take_stacked(prefix + "qkv" + ending,
                                                          {{prefix + "q" + ending, q_width},
                                                           {prefix + "k" + ending, kv_width},
                                                           {prefix + "v" + ending, kv_width}},
                                                          width, true);
    layer.q = qkv[0];
    layer.k = qkv[1];
    layer.v = qkv[2];
    layer.o = weights_.take_linear(prefix + "o" + ending, width, q_width, false);
  }

  const ModelConfig& config_;
  Weights& weights_;
};

void grow(std::vector<float>& buffer, std::int64_t size) {
  if (buffer.size() < static_cast<std::size_t>(size)) buffer.resize(static_cast<std::size_t>(size));
}

}  // namespace

Language::Language(const ModelConfig& config, Weights& weights) : config_(config) {
  const std::int64_t width = config.hidden_size;
  // vocab_size in a published config.json is nominal; the table itself says how many tokens there are
  const TensorEntry& table = weights.entry("model.embed_tokens.weight");
  if (table.shape.size() != 2 || table.shape[0] < 1)
    throw CheckpointError("tensor model.embed_tokens.weight: expected shape [tokens, " +
                          std::to_string(width) + "], found " + to_string(table.shape));
  const std::int64_t vocab = table.shape[0];
  embedding_ = weights.take("model.embed_tokens.weight", {vocab, width});
  Loader loader(config, weights);
  for (std::int64_t i = 0; i < config.num_layers; ++i) layers_.push_back(loader.layer(i));
  final_norms_ = loader.norms("model.norm");
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

void Language::reserve(LanguageWorkspace& work, std::int64_t rows, std::int64_t length) const {
  const std::int64_t heads = config_.num_heads + 2 * config_.num_kv_heads;
  grow(work.hidden, rows * config_.hidden_size);
  grow(work.normed, rows * config_.hidden_size);
  grow(work.qkv, rows * heads * config_.head_dim);
  grow(work.attended, rows * config_.num_heads * config_.head_dim);
  grow(work.gated, rows * std::max(config_.expert_sizes[0], config_.expert_sizes[1]));
  grow(work.scores, length * kAttentionRows);
  if (!config_.has_adaptive_norms) return;
  grow(work.branch, rows * width(Expert::action));
  grow(work.modulation, 3 * width(Expert::action));
}

void Language::embed(std::span<const std::int64_t> ids, float* out) const {
  for (std::size_t i = 0; i < ids.size(); ++i)
    std::copy_n(embedding_ + ids[i] * config_.hidden_size, config_.hidden_size,
                out + static_cast<std::int64_t>(i) * config_.hidden_size);
}

// work.normed = norm(work.hidden); an adaptive norm leaves its gate in work.modulation for add_branch
void Language::norm(const Norm& norm, const Pass& pass, LanguageWorkspace& work) const {
  const std::int64_t columns = width(pass.expert);
  if (norm.weight) {
    rms_norm(work.hidden.data(), pass.rows, columns, norm.weight, config_.rms_norm_eps, work.normed.data());
    return;
  }
  linear(pass.condition, 1, norm.dense, Activation::none, nullptr, work.modulation.data());
  adaptive_rms_norm(work.hidden.data(), pass.rows, columns, work.modulation.data(), config_.rms_norm_eps,
                    work.normed.data());
}

// work.hidden += layer(from), gated where the norm before it was adaptive
void Language::add_branch(const float* from, const Linear& layer, const Norm& norm, const Pass& pass,
                          const std::string& name, LanguageWorkspace& work, Trace* trace) const {
  float* hidden = work.hidden.data();
  if (trace) {
    std::vector<float> output(static_cast<std::size_t>(pass.rows * layer.out));
    linear(from, pass.rows, layer, Activation::none, nullptr, output.data());
    trace->append(name, output.data(), pass.rows, layer.out);
  }
  if (norm.weight) {
    linear(from, pass.rows, layer, Activation::none, hidden, hidden);
    return;
  }
  linear(from, pass.rows, layer, Activation::none, nullptr, work.branch.data());
  add_gated(work.branch.data(), pass.rows, layer.out, work.modulation.data() + 2 * layer.out, hidden);
}

void Language::forward(const Pass& pass, LanguageWorkspace& work, KvCache& cache, Trace* trace) const {
  const std::int64_t rows = pass.rows, dim = config_.head_dim, columns = width(pass.expert);
  const std::int64_t q_width = config_.num_heads * dim, kv_width = config_.num_kv_heads * dim;
  const std::int64_t qkv_width = q_width + 2 * kv_width;
  const auto expert = static_cast<std::size_t>(pass.expert);
  float* normed = work.normed.data();
  float* qkv = work.qkv.data();
  const Rotary rotary{work.cos.data(), work.sin.data()};
  const CacheAttention attention{rows, config_.num_heads, config_.num_kv_heads, dim, pass.is_causal};

  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const ExpertLayer& layer = layers_[i][expert];
    const auto at = static_cast<std::int64_t>(i);
    const std::string name = trace ? "layers." + std::to_string(i) : std::string();

    norm(layer.input_norm, pass, work);
    if (trace) trace->append(name + ".input_layernorm", normed, rows, columns);
    linear(normed, rows, layer.q, Activation::none, nullptr, qkv, qkv_width);
    linear(normed, rows, layer.k, Activation::none, nullptr, qkv + q_width, qkv_width);
    linear(normed, rows, layer.v, Activation::none, nullptr, qkv + q_width + kv_width, qkv_width);
    rotate_and_cache(qkv, rows, config_.num_heads, rotary, cache.place_of_last(rows), cache.last_block(at));
    cache.segments(at, work.segments);
    cache_attention(qkv, attention, work.segments, work.scores.data(), work.attended.data());
    add_branch(work.attended.data(), layer.o, layer.input_norm, pass, name + ".self_attn", work, trace);

    norm(layer.post_attention_norm, pass, work);
    if (trace) trace->append(name + ".post_attention_layernorm", normed, rows, columns);
    gated_linear(normed, rows, layer.gate, layer.up, work.gated.data());
    add_branch(work.gated.data(), layer.down, layer.post_attention_norm, pass, name + ".moe", work, trace);
    if (trace) trace->append(name, work.hidden.data(), rows, columns);
    if (work.pause) work.pause(rows);
  }
  norm(final_norms_[expert], pass, work);
  if (trace) trace->append("norm", normed, rows, columns);
}

void Language::logits(const float* normed, float* out) const {
  linear(normed, 1, head_, Activation::none, nullptr, out);
}

}  // namespace wallx
