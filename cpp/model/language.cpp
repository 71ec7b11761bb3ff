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
  Loader(const ModelConfig& config, Layers& layers) : config_(config), layers_(layers) {}

  std::array<ExpertLayer, 2> layer(std::int64_t index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const Format format = layers_.precision().feed_forward;
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
      layer.gate_up = layers_.gated(moe + "gate_up_proj", moe + "gate_proj", moe + "up_proj", size, size,
                                    width, false, format);
      layer.down = layers_.linear(moe + "down_proj", width, size, false, format);
    }
    const std::array<LearnedNorm, 2> input = norms(prefix + "input_layernorm"),
                                     post = norms(prefix + "post_attention_layernorm");
    for (std::size_t e = 0; e < out.size(); ++e) {
      out[e].input_norm = input[e];
      out[e].post_attention_norm = post[e];
    }
    return out;
  }

  // NAME.weight, or in mixtures NAMEs.E.weight
  std::array<LearnedNorm, 2> norms(const std::string& name) {
    std::array<LearnedNorm, 2> out;
    if (!config_.has_expert_attention) {
      out[0].weight = out[1].weight = layers_.vector(name + ".weight", {config_.hidden_size});
      return out;
    }
    for (std::size_t e = 0; e < out.size(); ++e) {
      const std::string one = name + "s." + std::to_string(e);
      const std::int64_t width = config_.expert_widths[e];
      if (e == 1 && config_.has_adaptive_norms) {
        out[e].dense = layers_.linear(one + ".dense", 3 * width, config_.condition_width, true,
                                      layers_.precision().edge);
      } else {
        out[e].weight = layers_.vector(one + ".weight", {width});
      }
    }
    return out;
  }

 private:
  void take_attention(const std::string& prefix, std::size_t e, ExpertLayer& layer) {
    const Format format = layers_.precision().attention;
    const std::int64_t width = config_.expert_widths[e];
    const std::int64_t q_width = config_.num_heads * config_.head_dim;
    const std::int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    const std::string ending = config_.has_expert_attention ? "_proj_experts." + std::to_string(e) : "_proj";
    layer.qkv = layers_.stacked(prefix + "qkv" + ending,
                                {{prefix + "q" + ending, q_width},
                                 {prefix + "k" + ending, kv_width},
                                 {prefix + "v" + ending, kv_width}},
                                width, true, format);
    layer.o = layers_.linear(prefix + "o" + ending, width, q_width, false, format);
  }

  const ModelConfig& config_;
  Layers& layers_;
};

}  // namespace

Language::Language(const ModelConfig& config, Layers& layers, std::shared_ptr<Backend> backend)
    : config_(config),
      backend_(std::move(backend)),
      cache_(layers.precision().cache),
      table_format_(layers.precision().edge) {
  const std::int64_t width = config.hidden_size;
  const std::string name = "model.embed_tokens.weight";
  // vocab_size in a published config.json is nominal; the table itself says how many tokens there are
  const TensorEntry& table = layers.weights().entry(name);
  if (table.shape.size() != 2 || table.shape[0] < 1)
    throw CheckpointError("tensor " + name + ": expected shape [tokens, " + std::to_string(width) +
                          "], found " + to_string(table.shape));
  vocab_ = table.shape[0];
  table_ = layers.table(name, {vocab_, width});
  Loader loader(config, layers);
  for (std::int64_t i = 0; i < config.num_layers; ++i) layers_.push_back(loader.layer(i));
  final_norms_ = loader.norms("model.norm");
  if (config.is_head_tied) {
    head_ = layers.tied_head(name, {vocab_, width}, table_);
    if (layers.weights().contains("lm_head.weight"))
      layers.weights().skip("lm_head.weight");  // tied: the reference ignores it too
  } else {
    head_ = layers.linear("lm_head", vocab_, width, false, layers.precision().head);
  }
}

void Language::reserve(LanguageWorkspace& work, std::int64_t rows) const {
  Backend& backend = *backend_;
  const std::int64_t heads = config_.num_heads + 2 * config_.num_kv_heads;
  wallx::reserve(backend, work.hidden, rows * config_.hidden_size);
  wallx::reserve(backend, work.normed, rows * config_.hidden_size);
  wallx::reserve(backend, work.qkv, rows * heads * config_.head_dim);
  if (!config_.has_adaptive_norms) return;
  wallx::reserve(backend, work.modulation, 3 * width(Expert::action));
}

void Language::set_rotary(LanguageWorkspace& work, std::span<const float> cos,
                          std::span<const float> sin) const {
  const auto count = static_cast<std::int64_t>(cos.size());
  backend_->upload(*work.stream, cos.data(), wallx::reserve(*backend_, work.cos, count), cos.size_bytes());
  backend_->upload(*work.stream, sin.data(), wallx::reserve(*backend_, work.sin, count), sin.size_bytes());
}

void Language::embed(std::span<const std::int64_t> ids, LanguageWorkspace& work, float* out) const {
  backend_->embed(*work.stream, ids, table_format_, table_, config_.hidden_size, out);
}

// norm(work.hidden) as rows for a product; an adaptive norm leaves its gate in work.modulation for add_branch
Rows Language::norm(const LearnedNorm& norm, const Pass& pass, Format format, LanguageWorkspace& work) const {
  const std::int64_t columns = width(pass.expert);
  Norm kind{Norm::Kind::rms, norm.weight, nullptr, config_.rms_norm_eps};
  if (!norm.weight) {
    const Rows condition =
        reserve_rows(*backend_, work.condition, row_format(norm.dense.format), 1, config_.condition_width);
    backend_->norm(*work.stream, pass.condition, {}, condition);
    backend_->product(*work.stream, condition, norm.dense, {}, work.modulation.as());
    kind = {Norm::Kind::adaptive, nullptr, work.modulation.as(), config_.rms_norm_eps};
  }
  const Rows rows = reserve_rows(*backend_, work.rows, row_format(format), pass.rows, columns);
  backend_->norm(*work.stream, work.hidden.as(), kind, rows);
  return rows;
}

// work.hidden += layer(from), gated where the norm before it was adaptive
void Language::add_branch(const Rows& from, const Linear& layer, const LearnedNorm& norm, const Pass& pass,
                          const std::string& name, LanguageWorkspace& work, Trace* trace) const {
  float* hidden = work.hidden.as();
  if (trace) {
    float* output = wallx::reserve(*backend_, work.branch, pass.rows * layer.out);
    backend_->product(*work.stream, from, layer, {}, output);
    trace->append(name, *backend_, *work.stream, output, pass.rows, layer.out);
  }
  Epilogue epilogue;
  epilogue.residual = hidden;
  if (!norm.weight) epilogue.gate = work.modulation.as() + 2 * layer.out;
  backend_->product(*work.stream, from, layer, epilogue, hidden);
}

void Language::forward(const Pass& pass, LanguageWorkspace& work, KvCache& cache, Trace* trace) const {
  Backend& backend = *backend_;
  Stream& stream = *work.stream;
  const std::int64_t rows = pass.rows, dim = config_.head_dim, columns = width(pass.expert);
  const std::int64_t q_width = config_.num_heads * dim;
  const std::int64_t qkv_width = q_width + 2 * config_.num_kv_heads * dim;
  const auto expert = static_cast<std::size_t>(pass.expert);
  float* qkv = work.qkv.as();
  const Rotary rotary{work.cos.as(), work.sin.as()};
  const AttentionShape attention{rows, config_.num_heads, config_.num_kv_heads, dim};
  const auto trace_norm = [&](const std::string& name, const LearnedNorm& learned) {
    if (!trace) return;
    const Rows normed = norm(learned, pass, Format::f32, work);
    trace->append(name, backend, stream, static_cast<const float*>(normed.data), rows, columns);
  };

  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const ExpertLayer& layer = layers_[i][expert];
    const auto at = static_cast<std::int64_t>(i);
    const std::string name = trace ? "layers." + std::to_string(i) : std::string();

    trace_norm(name + ".input_layernorm", layer.input_norm);
    const Rows normed = norm(layer.input_norm, pass, layer.qkv.front().format, work);
    float* to = qkv;
    for (const Linear& part : layer.qkv) {
      backend.product(stream, normed, part, {}, to, qkv_width);
      to += part.out;
    }
    backend.rotate_and_cache(stream, qkv, attention, rotary, cache.format(), cache.place_of_last(rows),
                             cache.last_block(at));
    cache.segments(at, work.segments);
    const Rows attended = reserve_rows(backend, work.rows, row_format(layer.o.format), rows, q_width);
    backend.cache_attention(stream, qkv, attention, pass.is_causal, cache.format(), work.segments, attended);
    add_branch(attended, layer.o, layer.input_norm, pass, name + ".self_attn", work, trace);

    trace_norm(name + ".post_attention_layernorm", layer.post_attention_norm);
    const Rows before = norm(layer.post_attention_norm, pass, layer.gate_up.gate.format, work);
    const Rows gated =
        reserve_rows(backend, work.gated, row_format(layer.down.format), rows, layer.gate_up.out);
    backend.gated_product(stream, before, layer.gate_up, gated);
    add_branch(gated, layer.down, layer.post_attention_norm, pass, name + ".moe", work, trace);
    if (trace) trace->append(name, backend, stream, work.hidden.as(), rows, columns);
    if (work.pause) work.pause(rows);
  }
  const LearnedNorm& last = final_norms_[expert];
  const Rows normed = norm(last, pass, Format::f32, work);
  backend.copy(stream, normed.data, work.normed.as(),
               static_cast<std::size_t>(rows * columns) * sizeof(float));
  if (trace) trace->append("norm", backend, stream, work.normed.as(), rows, columns);
}

void Language::logits(const float* normed, LanguageWorkspace& work, float* out) const {
  reserve(work, 1);
  Backend& backend = *backend_;
  backend.upload(*work.stream, normed, work.hidden.as(), static_cast<std::size_t>(config_.hidden_size) * 4);
  const Rows rows = reserve_rows(backend, work.rows, row_format(head_.format), 1, config_.hidden_size);
  backend.norm(*work.stream, work.hidden.as(), {}, rows);
  float* scores = wallx::reserve(backend, work.branch, vocab_);
  backend.product(*work.stream, rows, head_, {}, scores);
  backend.download(*work.stream, scores, out, static_cast<std::size_t>(vocab_) * sizeof(float));
}

}  // namespace wallx
