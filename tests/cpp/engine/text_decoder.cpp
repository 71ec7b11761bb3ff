// TextDecoderTest: which token is chosen, when a text ends, and that nothing else moves it.
// SPDX-License-Identifier: Apache-2.0
#include "engine/text_decoder.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

using Ids = std::vector<std::int64_t>;

Ids text_of(Context& context, const TextOptions& options) {
  TextDecoder decoder(context, options);
  Ids ids;
  while (const auto id = decoder.next()) ids.push_back(*id);
  CHECK(!decoder.next());  // an ended text stays ended
  CHECK(decoder.end() != TextEnd::none);
  return ids;
}
Ids text_of(const TextOptions& options) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  return text_of(context, options);
}
TextOptions sampled(float temperature, float top_p, std::uint64_t seed, std::int64_t max_new_tokens = 30) {
  TextOptions options;
  options.temperature = temperature;
  options.top_p = top_p;
  options.seed = seed;
  options.max_new_tokens = max_new_tokens;
  return options;
}

std::map<std::int64_t, int> counts_of(const Floats& scores, const TextOptions& options, int rounds) {
  TokenChooser chooser(options, std::ssize(scores));
  std::map<std::int64_t, int> counts;
  for (int i = 0; i < rounds; ++i) {
    Floats copy = scores;
    ++counts[chooser.choose(copy)];
  }
  return counts;
}

}  // namespace

TEST(greedy_text_is_the_best_token_each_time) {
  TextOptions options;
  options.max_new_tokens = 12;
  const Ids found = text_of(options);
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  CHECK_EQ(found.size(), 12u);
  for (std::int64_t id : found) {
    const Floats scores = logits_of(context);
    CHECK_EQ(id, std::ranges::max_element(scores) - scores.begin());
    context.decode(id);
  }
}

TEST(of_equal_scores_the_lower_id_is_chosen) {
  Floats scores{1, 3, 3, 2, 3};
  CHECK_EQ(TokenChooser({}, 5).choose(scores), 1);
  // sampling keeps the same one when the nucleus has room for one
  const auto counts = counts_of({1, 3, 3, 2, 3}, sampled(1, 0.01f, 5), 50);
  CHECK_EQ(counts.size(), 1u);
  CHECK_EQ(counts.begin()->first, 1);
}

TEST(a_text_ends_at_a_stop_id_or_with_its_budget) {
  TextOptions options;
  options.max_new_tokens = 20;
  const Ids whole = text_of(options);
  CHECK_EQ(whole.size(), 20u);
  // the first place of an id that comes late
  const std::int64_t stop = whole[7];
  const auto first = std::ranges::find(whole, stop);
  options.stop_ids = {39, stop};
  if (std::ranges::find(whole, 39) > first) CHECK(text_of(options) == Ids(whole.begin(), first + 1));
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  TextDecoder decoder(context, options);
  CHECK(decoder.end() == TextEnd::none);
  while (decoder.next()) continue;
  CHECK(decoder.end() == TextEnd::stop);
  // the last token is not in the context
  CHECK_EQ(context.length(), robot_prompt().size() + (first - whole.begin()));
  options = {};
  options.max_new_tokens = 1;
  context.prefill(robot_prompt().view());
  TextDecoder one(context, options);
  CHECK_EQ(*one.next(), whole[0]);
  CHECK(one.end() == TextEnd::budget);
  CHECK_EQ(context.length(), robot_prompt().size());
}

TEST(only_allowed_ids_and_stop_ids_are_chosen) {
  TextOptions options = sampled(50, 1, 3, 40);  // nearly uniform
  options.first_id = 10;
  options.end_id = 14;
  options.stop_ids = {2};
  const Ids ids = text_of(options);
  for (std::int64_t id : ids) CHECK((id >= 10 && id < 14) || (id == 2 && id == ids.back()));
  options.stop_ids.clear();
  options.temperature = 0;
  for (std::int64_t id : text_of(options)) CHECK(id >= 10 && id < 14);
}

TEST(equal_seeds_give_equal_texts_and_others_do_not) {
  const Ids first = text_of(sampled(2, 0.9f, 7)), second = text_of(sampled(2, 0.9f, 7));
  CHECK(first == second);
  CHECK(first != text_of(sampled(2, 0.9f, 8)));
  CHECK(text_of(sampled(0, 0.9f, 7)) == text_of(sampled(0, 0.2f, 9)));  // greedy takes no dice
}

// pinned by a program of its own in another language, which draws from the same generator
TEST(choices_from_given_scores_are_the_same_on_every_machine) {
  std::mt19937 random(23);
  const Floats scores = random_values(random, 1000, 6.0f);
  TokenChooser chooser(sampled(0.8f, 0.95f, 12345), 1000), whole(sampled(1.3f, 1, 99), 1000);
  Ids found, found_whole;
  for (int i = 0; i < 10; ++i) {
    Floats copy = scores;
    found.push_back(chooser.choose(copy));
    copy = scores;
    found_whole.push_back(whole.choose(copy));
  }
  CHECK(found == (Ids{973, 91, 199, 715, 136, 124, 779, 199, 576, 124}));
  CHECK(found_whole == (Ids{429, 992, 653, 124, 625, 474, 742, 274, 219, 384}));
}

TEST(frequencies_follow_the_softmax) {
  const Floats scores{0.0f, 1.0f, -1.0f, 2.0f};
  constexpr int kRounds = 40000;
  for (const float temperature : {0.5f, 1.0f, 3.0f}) {
    auto counts = counts_of(scores, sampled(temperature, 1, 17), kRounds);
    double total = 0;
    for (float s : scores) total += std::exp(static_cast<double>(s) / temperature);
    for (std::size_t id = 0; id < scores.size(); ++id) {
      const double p = std::exp(static_cast<double>(scores[id]) / temperature) / total;
      // five standard deviations
      CHECK_NEAR(counts[static_cast<std::int64_t>(id)], p * kRounds,
                 5 * std::sqrt(p * (1 - p) * kRounds) + 1);
    }
  }
}

TEST(top_p_keeps_the_fewest_tokens_with_that_much_probability) {
  // probabilities 0.5, 0.3, 0.15, 0.05
  const Floats scores{std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  const auto ids = [&](float top_p) {
    Ids out;
    for (const auto& [id, count] : counts_of(scores, sampled(1, top_p, 31), 3000)) out.push_back(id);
    return out;
  };
  CHECK(ids(0.4f) == (Ids{1}));
  CHECK(ids(0.6f) == (Ids{1, 3}));
  CHECK(ids(0.9f) == (Ids{0, 1, 3}));
  CHECK(ids(0.97f) == (Ids{0, 1, 2, 3}));
  CHECK(ids(1.0f) == (Ids{0, 1, 2, 3}));
  // the shares of those that stay keep their ratio
  auto counts = counts_of(scores, sampled(1, 0.6f, 31), 16000);
  CHECK_NEAR(counts[1], 10000, 400);
}

TEST(extreme_scores_are_chosen_from_like_others) {
  const float huge = 3e38f;
  CHECK_EQ(counts_of({-huge, huge, 0}, sampled(0.01f, 1, 1), 20)[1], 20);
  CHECK_EQ(counts_of({-huge, -huge, -huge}, sampled(1, 1, 1), 30).size(), 3u);
  CHECK_EQ(counts_of({-huge, 5, -huge}, sampled(100, 0.5f, 1), 20)[1], 20);
}

TEST(options_outside_their_bounds_are_refused) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  TextOptions options;
  CHECK_THROWS(TextDecoder(context, options), ConfigError, "text: the context is empty");
  context.prefill(robot_prompt().view());  // 18 tokens
  const auto refused = [&](const TextOptions& wrong, const char* part) {
    CHECK_THROWS(TextDecoder(context, wrong), ConfigError, part);
  };
  refused(options, "max_new_tokens 100 after a prompt of 18 tokens does not fit max_tokens 64");
  options.max_new_tokens = 48;
  refused(options, "does not fit");
  options.max_new_tokens = 0;
  refused(options, "max_new_tokens is 0, expected 1 or more");
  options.max_new_tokens = std::numeric_limits<std::int64_t>::min();
  refused(options, "max_new_tokens is");
  for (float t : {-1.0f, 101.0f, NAN, INFINITY}) refused(sampled(t, 1, 0), "temperature is");
  for (float p : {0.0f, -0.5f, 1.5f, NAN}) refused(sampled(1, p, 0), "top_p is");
  for (std::int64_t id : {-1, 40}) {
    TextOptions wrong = sampled(0, 1, 0);
    wrong.stop_ids = {id};
    refused(wrong, "outside the vocabulary [0, 40)");
  }
  for (const auto& [first, end] : {std::pair{-1, 3}, {0, 41}, {5, 5}, {6, 5}}) {
    TextOptions wrong = sampled(0, 1, 0);
    wrong.first_id = first;
    wrong.end_id = end;
    refused(wrong, "are no range of the vocabulary [0, 40)");
  }
  // the whole room
  options = {};
  options.max_new_tokens = 47;
  CHECK_EQ(text_of(context, options).size(), 47u);
  CHECK_EQ(context.length(), 64);
}

TEST(a_text_does_not_go_on_where_its_context_did) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  const TextOptions options = sampled(0, 1, 0);
  for (const int change : {0, 1}) {
    context.prefill(robot_prompt().view());
    TextDecoder decoder(context, options);
    CHECK(decoder.next().has_value());
    if (change)
      context.decode(3);
    else
      context.prefill(robot_prompt().view());
    CHECK_THROWS(decoder.next(), ConfigError, "the context has changed since this text began");
  }
  // what only reads, and forks, are no change
  context.prefill(robot_prompt().view());
  const Ids expected = text_of(options);
  TextDecoder decoder(context, options);
  Ids found;
  while (const auto id = decoder.next()) {
    found.push_back(*id);
    (void)denoised(context, 4);
    (void)logits_of(context);
    Context fork = context.fork();
    fork.decode(1);
  }
  CHECK(found == expected);
}

// one of two threads is refused, whenever they meet; no token is lost or made twice
TEST(a_text_is_continued_by_one_thread_at_a_time) {
  TextOptions options;
  options.max_new_tokens = 40;
  const Ids expected = text_of(options);
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  TextDecoder decoder(context, options);
  Ids found[2];
  const auto work = [&](std::size_t i) {
    while (decoder.end() == TextEnd::none) try {
        if (const auto id = decoder.next()) found[i].push_back(*id);
      } catch (const WallxError& error) {
        CHECK(std::strstr(error.what(), "continued on another thread") != nullptr);
      }
  };
  std::thread one(work, 0), two(work, 1);
  one.join();
  two.join();
  Ids sorted = expected, all = found[0];
  all.insert(all.end(), found[1].begin(), found[1].end());
  std::ranges::sort(sorted);
  std::ranges::sort(all);
  CHECK(all == sorted);
}

}  // namespace wallx::test
