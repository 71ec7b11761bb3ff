// TextDecoder: chooses one token after another: greedy, or by temperature and top-p from a seed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "engine/context.hpp"

namespace wallx {

struct TextOptions {
  std::int64_t max_new_tokens = 100;   // budget, the stop token included
  std::vector<std::int64_t> stop_ids;  // each ends the text, and is chosen last
  float temperature = 0;               // 0: greedy, the best token, of equals the one with the lower id
  float top_p = 1;                     // of the fewest tokens with this much probability together; in (0, 1]
  std::uint64_t seed = 0;
  std::int64_t first_id = 0;  // only ids from here
  std::optional<std::int64_t>
      end_id;  // and before here, and stop ids, are chosen; the vocabulary's by default
};

enum class TextEnd { none, stop, budget };  // none: not ended yet

// Chooses from scores. For equal scores, options and seed the choices are the same on every machine: nothing
// but exactly rounded operations and mt19937_64 decides.
class TokenChooser {
 public:
  // Throws ConfigError: an option out of its bounds.
  TokenChooser(const TextOptions& options, std::int64_t vocab_size);
  // scores (vocab_size), finite; changed
  std::int64_t choose(std::span<float> scores);

 private:
  std::int64_t sample(std::span<const float> scores);

  TextOptions options_;
  std::mt19937_64 random_;
  struct Candidate {
    double weight;
    float score;
    std::int64_t id;
  };
  std::vector<Candidate> candidates_;
};

// One token per call, so that a caller may stop, or let another thread's work go first, between any two. The
// text belongs to the context: prefill or decode on it in between end the right to go on.
class TextDecoder {
 public:
  // Throws ConfigError: an option out of its bounds, an empty context, a budget that max_tokens has no room
  // for.
  TextDecoder(Context& context, const TextOptions& options);

  // Adds the token chosen before to the context and chooses the next; nullopt when the text has ended. The
  // last token of a text is never added. Blocks for one token. Throws ConfigError: the context has changed
  // since; WallxError: scores that are not finite.
  std::optional<std::int64_t> next();
  TextEnd end() const { return end_; }

 private:
  Context& context_;
  TextOptions options_;
  TokenChooser chooser_;
  std::vector<float> scores_;
  std::optional<std::int64_t> pending_;  // chosen, not yet in the context
  std::int64_t num_chosen_ = 0;
  std::int64_t revision_ = 0;
  std::atomic<TextEnd> end_ = TextEnd::none;
  std::atomic<bool> is_in_use_ = false;
};

}  // namespace wallx
