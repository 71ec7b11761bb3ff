// TextWork: a prompt and the words that follow it, token by token, in the queue's time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/text_decoder.hpp"
#include "runtime/chunk_work.hpp"

namespace wallx {

class TextWork final : public Work {
 public:
  TextWork(std::shared_ptr<Context> context, OwnPrompt prompt, TextOptions options);

  // Token `index`; blocks until it is written. nullopt: the text ended before it. Any thread. Throws what the
  // text failed with.
  std::optional<std::int64_t> token(std::size_t index) const;
  // Tokens of the prompt that were in the context already, and the time of its prefill without what went
  // first [s]; once there is a token.
  std::int64_t num_shared() const;
  double prefill_time() const;

 private:
  bool advance(InferenceQueue& queue) override;
  void prefill(InferenceQueue& queue);
  void has_ended() noexcept override;

  const std::shared_ptr<Context> context_;
  const OwnPrompt prompt_;
  const TextOptions options_;
  std::unique_ptr<TextDecoder> decoder_;  // after the prefill

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<std::int64_t> tokens_;
  std::int64_t num_shared_ = 0;
  double prefill_time_ = 0;
  bool is_over_ = false;
};

}  // namespace wallx
