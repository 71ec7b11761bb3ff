// Language: the decoder: one attention over one cache; norms and feed-forward, in mixtures also projections,
// by token type. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/config.hpp"
#include "model/kv_cache.hpp"
#include "model/layers.hpp"
#include "model/pause.hpp"
#include "model/trace.hpp"

namespace wallx {

enum class Expert { text = 0, action = 1 };  // hard routing by token type, no gate

// a learned weight, or one layer that makes scale, shift and gate from the flow's time
struct LearnedNorm {
  const float* weight = nullptr;  // null: adaptive
  Linear dense;                   // condition -> (3 x width): scale, shift, gate
};

// what a token of one type passes through; with shared attention both types have the same views of it
struct ExpertLayer {
  LearnedNorm input_norm, post_attention_norm;
  std::vector<Linear> qkv;  // one with all outputs, or three
  Linear o;
  GatedLinear gate_up;
  Linear down;
};

// buffers of one context; grow to the largest pass and stay
struct LanguageWorkspace {
  std::shared_ptr<Stream> stream;  // the context's
  Memory hidden, rows, gated, qkv, modulation, condition, branch, normed, cos, sin;
  std::vector<CacheSegment> segments;
  Pause pause;  // after each layer
};

// tokens of one type that are computed together
struct Pass {
  std::int64_t rows = 0;
  Expert expert = Expert::text;
  bool is_causal = true;
  const float* condition = nullptr;  // on the device (condition_width), for adaptive norms
  bool is_last_only = false;         // of the states only the last token's is needed, as the first row
};

class Language {
 public:
  Language(const ModelConfig& config, Layers& layers, std::shared_ptr<Backend> backend);

  // Makes room for a pass of `rows` tokens.
  void reserve(LanguageWorkspace& work, std::int64_t rows) const;
  // cos and sin (rows x head_dim), from the host
  void set_rotary(LanguageWorkspace& work, std::span<const float> cos, std::span<const float> sin) const;
  KvCache empty_cache() const {
    return {backend_, cache_, config_.num_layers, config_.num_kv_heads, config_.head_dim};
  }
  // rows of the embedding table; ids are in range, out is on the device  (ids x hidden_size)
  void embed(std::span<const std::int64_t> ids, LanguageWorkspace& work, float* out) const;
  std::int64_t vocab_size() const { return vocab_; }
  std::int64_t width(Expert expert) const { return config_.expert_widths[static_cast<std::size_t>(expert)]; }

  // Runs the last `rows` tokens of the cache, whose entries it sets. work.hidden holds their embeddings and
  // then their last states (rows x the expert's width), work.cos/sin their rotation. Leaves the final norm in
  // work.normed.
  void forward(const Pass& pass, LanguageWorkspace& work, KvCache& cache, Trace* trace) const;
  // next-token scores from one row of the final norm, both on the host  (hidden_size) -> (vocab_size)
  void logits(const float* normed, LanguageWorkspace& work, float* out) const;

 private:
  Rows norm(const LearnedNorm& norm, const Pass& pass, Format format, LanguageWorkspace& work) const;
  void add_branch(const Rows& from, const Linear& layer, const LearnedNorm& norm, const Pass& pass,
                  const std::string& name, LanguageWorkspace& work, Trace* trace) const;

  ModelConfig config_;
  std::shared_ptr<Backend> backend_;
  Format cache_;
  Format table_format_;
  const void* table_ = nullptr;
  std::int64_t vocab_ = 0;
  std::vector<std::array<ExpertLayer, 2>> layers_;
  std::array<LearnedNorm, 2> final_norms_;
  Linear head_;
};

}  // namespace wallx
