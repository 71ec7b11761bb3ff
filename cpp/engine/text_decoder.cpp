// TextDecoder: the choice of a token, and the turn from one to the next.
// SPDX-License-Identifier: Apache-2.0
#include "engine/text_decoder.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {

// e^x for x <= 0 by products and sums alone, in an order that is written down: every machine has the same
// bits, which a library's exp does not promise. x = n ln 2 + r; e^r by its series up to r^13 on [-ln 2 / 2,
// ln 2 / 2].
double exponential(double x) {
  if (x < -700) return 0;
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;  // ln 2 in two parts
  double term = 1, total = 1;
  for (int i = 1; i <= 13; ++i) {
    term = term * r / i;
    total += term;
  }
  return std::ldexp(total, static_cast<int>(n));
}

}  // namespace

TokenChooser::TokenChooser(const TextOptions& options, std::int64_t vocab_size)
    : options_(options), random_(options.seed) {
  const std::int64_t end = options.end_id.value_or(vocab_size);
  if (options.first_id < 0 || end > vocab_size || options.first_id >= end)
    throw ConfigError("ids from " + std::to_string(options.first_id) + " to " + std::to_string(end) +
                      " are no range of the vocabulary [0, " + std::to_string(vocab_size) + ")");
  options_.end_id = end;
  for (std::int64_t id : options.stop_ids)
    if (id < 0 || id >= vocab_size)
      throw ConfigError("stop id " + std::to_string(id) + " is outside the vocabulary [0, " +
                        std::to_string(vocab_size) + ")");
  if (!(options.temperature >= 0 && options.temperature <= 100))
    throw ConfigError("temperature is " + std::to_string(options.temperature) +
                      ", expected 0 (greedy) to 100");
  if (!(options.top_p > 0 && options.top_p <= 1))
    throw ConfigError("top_p is " + std::to_string(options.top_p) + ", expected more than 0 and at most 1");
}

std::int64_t TokenChooser::choose(std::span<float> scores) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const auto is_allowed = [&](std::int64_t id) {
    return (id >= options_.first_id && id < *options_.end_id) ||
           std::ranges::find(options_.stop_ids, id) != options_.stop_ids.end();
  };
  for (std::int64_t id = 0; id < std::ssize(scores); ++id)
    if (!is_allowed(id)) scores[static_cast<std::size_t>(id)] = kNever;
  if (options_.temperature > 0) return sample(scores);
  return std::ranges::max_element(scores) - scores.begin();
}

std::int64_t TokenChooser::sample(std::span<const float> scores) {
  const double best = *std::ranges::max_element(scores), temperature = options_.temperature;
  candidates_.clear();
  double total = 0;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    const double weight = exponential((scores[id] - best) / temperature);
    if (weight == 0) continue;
    candidates_.push_back({weight, scores[id], static_cast<std::int64_t>(id)});
    total += weight;
  }
  // the best first, of equals the one with the lower id
  const auto is_worse = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.id > b.id;
  };
  auto kept = candidates_.begin();
  double nucleus = total;
  if (options_.top_p < 1) {
    // a heap gives the best one after another, each to the end of what is left: [kept, end) is the nucleus
    std::make_heap(candidates_.begin(), candidates_.end(), is_worse);
    kept = candidates_.end();
    nucleus = 0;
    while (kept != candidates_.begin() && nucleus < total * static_cast<double>(options_.top_p)) {
      std::pop_heap(candidates_.begin(), kept, is_worse);
      nucleus += (--kept)->weight;
    }
  }
  // 53 random bits: a uniform number in [0, 1)
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * nucleus;
  auto chosen = kept;
  for (auto one = kept; one != candidates_.end(); ++one) {
    chosen = one;
    left -= one->weight;
    if (left < 0) break;
  }
  return chosen->id;
}

TextDecoder::TextDecoder(Context& context, const TextOptions& options)
    : context_(context),
      options_(options),
      chooser_(options, context.model().language().vocab_size()),
      scores_(static_cast<std::size_t>(context.model().language().vocab_size())),
      revision_(context.revision()) {
  if (context.length() == 0) throw ConfigError("text: the context is empty; call prefill first");
  if (options.max_new_tokens < 1)
    throw ConfigError("max_new_tokens is " + std::to_string(options.max_new_tokens) + ", expected 1 or more");
  // the last token is never added
  if (options.max_new_tokens - 1 > context.max_tokens() - context.length())
    throw ConfigError("max_new_tokens " + std::to_string(options.max_new_tokens) + " after a prompt of " +
                      std::to_string(context.length()) + " tokens does not fit max_tokens " +
                      std::to_string(context.max_tokens()));
}

std::optional<std::int64_t> TextDecoder::next() {
  if (is_in_use_.exchange(true, std::memory_order_acquire))
    throw WallxError("this text is being continued on another thread");
  struct Release {
    std::atomic<bool>& flag;
    ~Release() { flag.store(false, std::memory_order_release); }
  } const release{is_in_use_};
  if (end_ != TextEnd::none) return std::nullopt;
  if (context_.revision() != revision_)
    throw ConfigError("the context has changed since this text began; begin another");
  if (pending_) {
    context_.decode(*pending_);
    pending_.reset();
    revision_ = context_.revision();
  }
  context_.logits(scores_);
  const std::int64_t id = chooser_.choose(scores_);
  pending_ = id;
  ++num_chosen_;
  if (std::ranges::find(options_.stop_ids, id) != options_.stop_ids.end()) {
    end_ = TextEnd::stop;
  } else if (num_chosen_ == options_.max_new_tokens) {
    end_ = TextEnd::budget;
  }
  return id;
}

}  // namespace wallx
