// Language: the decoder: one attention over one cache; norms and feed-forward, in mixtures also projections,
// by token type. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/ops.hpp"
#include "model/config.hpp"
#include "model/kv_cache.hpp"
#include "model/pause.hpp"
#include "model/trace.hpp"
#include "model/weights.hpp"

namespace wallx {

enum class Expert { text = 0, action = 1 };  // hard routing by token type, no gate

// a learned weight, or one layer that makes scale, shift and gate from the flow's time
struct Norm {
  const float* weight = nullptr;  // null: adaptive
  Linear dense;                   // condition -> (3 x width): scale, shift, gate
};

// what a token of one type passes through; with shared attention both types have the same views of it
struct ExpertLayer {
  Norm input_norm, post_attention_norm;
  Linear q, k, v, o;
  Linear gate, up, down;
};

// buffers of one context; grow to the largest pass and stay
struct LanguageWorkspace {
  std::vector<float> hidden, normed, qkv, attended, gated, scores;
  std::vector<float> branch, modulation;  // only with adaptive norms
  std::vector<float> cos, sin;
  std::vector<CacheSegment> segments;
  Pause pause;  // after each layer
};

// tokens of one type that are computed together
struct Pass {
  std::int64_t rows = 0;
  Expert expert = Expert::text;
  bool is_causal = true;
  const float* condition = nullptr;  // (condition_width), for adaptive norms
};

class Language {
 public:
  Language(const ModelConfig& config, Weights& weights);

  // Makes room for a pass of `rows` tokens that see `length` ones.
  void reserve(LanguageWorkspace& work, std::int64_t rows, std::int64_t length) const;
  KvCache empty_cache() const { return {config_.num_layers, config_.num_kv_heads, config_.head_dim}; }
  // rows of the embedding table; ids are in range  (ids x hidden_size)
  void embed(std::span<const std::int64_t> ids, float* out) const;
  std::int64_t vocab_size() const { return head_.out; }
  std::int64_t width(Expert expert) const { return config_.expert_widths[static_cast<std::size_t>(expert)]; }

  // Runs the last `rows` tokens of the cache, whose entries it sets. work.hidden holds their embeddings and
  // then their last states (rows x the expert's width), work.cos/sin their rotation. Leaves the final norm in
  // work.normed.
  void forward(const Pass& pass, LanguageWorkspace& work, KvCache& cache, Trace* trace) const;
  // next-token scores from one row of the final norm  (vocab_size)
  void logits(const float* normed, float* out) const;

 private:
  void norm(const Norm& norm, const Pass& pass, LanguageWorkspace& work) const;
  void add_branch(const float* from, const Linear& layer, const Norm& norm, const Pass& pass,
                  const std::string& name, LanguageWorkspace& work, Trace* trace) const;

  ModelConfig config_;
  const float* embedding_ = nullptr;
  std::vector<std::array<ExpertLayer, 2>> layers_;
  std::array<Norm, 2> final_norms_;
  Linear head_;
};

}  // namespace wallx
