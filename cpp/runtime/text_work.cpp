// TextWork: prefill in passes of measured size, then one token a slice.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/text_work.hpp"

#include <utility>

#include "runtime/pausing.hpp"

namespace wallx {

TextWork::TextWork(std::shared_ptr<Context> context, OwnPrompt prompt, TextOptions options)
    : Work(context.get()),
      context_(std::move(context)),
      prompt_(std::move(prompt)),
      options_(std::move(options)) {}

std::optional<std::int64_t> TextWork::token(std::size_t index) const {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_over_ || index < tokens_.size(); });
    if (index < tokens_.size()) return tokens_[index];
  }
  check();
  return std::nullopt;
}

std::int64_t TextWork::num_shared() const {
  const std::lock_guard lock(mutex_);
  return num_shared_;
}

double TextWork::prefill_time() const {
  const std::lock_guard lock(mutex_);
  return prefill_time_;
}

void TextWork::has_ended() noexcept {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
}

void TextWork::prefill(InferenceQueue& queue) {
  double before = computed();
  const auto pause = [&](std::int64_t rows) {
    queue.pause(*this, true);
    const double now = computed();
    if (rows > 0) queue.meter().saw_block(rows, Seconds(now - before));
    before = now;
  };
  const Pausing pausing(*context_, pause, queue.meter().rows());
  const std::int64_t shared = context_->prefill(prompt_.view());
  queue.pause(*this, true);
  const std::lock_guard lock(mutex_);
  num_shared_ = shared;
  prefill_time_ = computed();
}

bool TextWork::advance(InferenceQueue& queue) {
  if (!decoder_) {
    prefill(queue);
    decoder_ = std::make_unique<TextDecoder>(*context_, options_);
    return true;
  }
  // a token that is begun is finished, so that the context stays whole
  const Pausing pausing(*context_, [&](std::int64_t) { queue.pause(*this, false); });
  const std::optional<std::int64_t> id = decoder_->next();
  queue.pause(*this, true);
  if (!id) return false;
  {
    const std::lock_guard lock(mutex_);
    tokens_.push_back(*id);
  }
  changed_.notify_all();
  return decoder_->end() == TextEnd::none;
}

}  // namespace wallx
