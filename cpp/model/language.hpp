// Language: the decoder: shared attention over one cache, a feed-forward expert per token type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/ops.hpp"
#include "model/config.hpp"
#include "model/trace.hpp"
#include "model/weights.hpp"

namespace wallx {

enum class Expert { text = 0, action = 1 };  // hard routing by token type, no gate

struct FeedForward {
  Linear gate, up, down;
};

struct DecoderLayer {
  const float* input_norm = nullptr;
  const float* post_attention_norm = nullptr;
  Linear q, k, v, o;
  std::array<FeedForward, 2> experts;
};

// buffers of one context, sized once for its longest sequence
struct LanguageWorkspace {
  std::vector<float> hidden, normed, qkv, attended, gated, scores;
  std::vector<float> cos, sin;
};

// keys and values of every layer, (layers x kv_heads x capacity x head_dim) each
struct KvCache {
  std::vector<float> key, value;
  std::int64_t capacity = 0;  // [tokens]
};

class Language {
 public:
  Language(const ModelConfig& config, Weights& weights);

  void reserve(LanguageWorkspace& work, KvCache& cache, std::int64_t max_tokens) const;
  // rows of the embedding table; ids are in range  (ids x hidden_size)
  void embed(std::span<const std::int64_t> ids, float* out) const;
  std::int64_t vocab_size() const { return head_.out; }

  // Runs `rows` tokens of one type that stand at [position, position + rows) of the cache; work.hidden holds
  // their embeddings and then their last states, work.cos/sin their rotation. Leaves the final norm in
  // work.normed.
  void forward(std::int64_t rows, std::int64_t position, Expert expert, bool is_causal,
               LanguageWorkspace& work, KvCache& cache, Trace* trace) const;
  // next-token scores from one row of the final norm  (vocab_size)
  void logits(const float* normed, float* out) const;

 private:
  ModelConfig config_;
  const float* embedding_ = nullptr;
  std::vector<DecoderLayer> layers_;
  const float* norm_ = nullptr;
  Linear head_;
};

}  // namespace wallx
