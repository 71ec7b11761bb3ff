// ReuseTest: what a context keeps of the last prompt, and what forks share, never changes a bit.
// SPDX-License-Identifier: Apache-2.0
#include <malloc.h>

#include <algorithm>
#include <thread>

#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kIsSanitized = true;  // its allocator does not count as mallinfo does
#else
constexpr bool kIsSanitized = false;
#endif

constexpr std::int64_t kHorizon = 6;

Context empty(const Model& model = tiny_model()) { return {model, 64, RopeLayout::hf}; }

// everything that follows from a context, to the bit
Floats fingerprint(Context& context) {
  Floats out = logits_of(context);
  const Floats padding{0.5f, -0.25f, 1, -1};
  FlowOptions options;
  if (context.model().config().does_pad_masked_dims) options.padding_action = padding;
  const Floats actions = denoised(context, kHorizon, options);
  out.insert(out.end(), actions.begin(), actions.end());
  return out;
}

// a prompt after another gives what it gives alone; returns the tokens that were kept
std::int64_t kept(const TinyPrompt& first, const TinyPrompt& second, const Model& model = tiny_model()) {
  Context context = empty(model), fresh = empty(model);
  context.prefill(first.view());
  const std::int64_t shared = context.prefill(second.view());
  CHECK_EQ(fresh.prefill(second.view()), 0);
  CHECK_EQ(context.length(), fresh.length());
  CHECK(fingerprint(context) == fingerprint(fresh));
  context.decode(9);
  fresh.decode(9);
  CHECK(fingerprint(context) == fingerprint(fresh));
  return shared;
}

// the robot's prompt: words, picture at 3..8, words, picture at 12, words, state at 15, words
constexpr std::int64_t kFirstImage = 3, kSecondImage = 12, kStateAt = 15;

}  // namespace

TEST(equal_prompts_keep_all_but_the_last_token) {
  for (const TinyPrompt& prompt : {text_prompt(), robot_prompt()})
    CHECK_EQ(kept(prompt, prompt), prompt.size() - 1);
}

TEST(a_prompt_is_kept_up_to_the_first_difference) {
  const TinyPrompt prompt = robot_prompt();
  for (std::int64_t at = 0; at < prompt.size(); ++at) {
    TinyPrompt changed = prompt;
    auto& id = changed.ids[static_cast<std::size_t>(at)];
    if (id == TinyModel::kImage || id == TinyModel::kState) continue;
    id = 23;
    CHECK_EQ(kept(prompt, changed), std::min(at, prompt.size() - 1));
    CHECK_EQ(kept(changed, prompt), std::min(at, prompt.size() - 1));
  }
  TinyPrompt longer = prompt;
  longer.ids.insert(longer.ids.end(), {4, 4, 7});
  CHECK_EQ(kept(prompt, longer), prompt.size());
  CHECK_EQ(kept(longer, prompt), prompt.size() - 1);
}

TEST(a_picture_is_compared_by_its_content) {
  const TinyPrompt prompt = robot_prompt();
  TinyPrompt changed = prompt;
  changed.pixels.front() += 1e-6f;
  CHECK_EQ(kept(prompt, changed), kFirstImage);
  changed = prompt;
  changed.pixels.back() += 1e-6f;
  CHECK_EQ(kept(prompt, changed), kSecondImage);
  // the same patches as a picture of another shape
  changed = prompt;
  changed.grids[0] = {1, 6, 4};
  CHECK_EQ(kept(prompt, changed), kFirstImage);
  // equal pictures somewhere else in the memory, and a zero of another sign
  changed = prompt;
  changed.pixels.front() = 0.0f;
  TinyPrompt negative = changed;
  negative.pixels.front() = -0.0f;
  CHECK_EQ(kept(changed, TinyPrompt(changed)), prompt.size() - 1);
  CHECK_EQ(kept(changed, negative), kFirstImage);
}

TEST(the_state_is_compared_where_its_token_stands) {
  const TinyPrompt prompt = robot_prompt();
  TinyPrompt changed = prompt;
  changed.state[2] += 1e-6f;
  CHECK_EQ(kept(prompt, changed), kStateAt);
  changed = prompt;
  changed.state_mask[0] = 0;
  CHECK_EQ(kept(prompt, changed), kStateAt);
  // the same id as a word
  changed = prompt;
  changed.state.clear();
  changed.state_mask.clear();
  changed.state_token_id = -1;
  CHECK_EQ(kept(prompt, changed), kStateAt);
  CHECK_EQ(kept(changed, prompt), kStateAt);
  // another state that the prompt's common part does not reach
  changed = prompt;
  changed.ids[10] = 23;
  changed.state[0] = 0.75f;
  CHECK_EQ(kept(prompt, changed), 10);
}

// the same picture twice, side by side and apart; positions after pictures follow their shape
TEST(pictures_that_move_keep_their_embedding_and_nothing_else) {
  constexpr std::int64_t I = TinyModel::kImage;
  const TinyPrompt robot = robot_prompt();
  const Floats small(robot.pixels.end() - 4 * TinyModel::kPatchWidth, robot.pixels.end());
  Floats twice = small;
  twice.insert(twice.end(), small.begin(), small.end());
  const TinyPrompt apart{{1, I, 2, I, 3, 4}, {{1, 2, 2}, {1, 2, 2}}, twice, {}, {}};
  const TinyPrompt together{{1, I, I, 2, 3, 4}, {{1, 2, 2}, {1, 2, 2}}, twice, {}, {}};
  const TinyPrompt once{{1, I, 2, 5, 3, 4}, {{1, 2, 2}}, small, {}, {}};
  CHECK_EQ(kept(apart, together), 2);
  CHECK_EQ(kept(together, apart), 2);
  CHECK_EQ(kept(apart, once), 3);
  CHECK_EQ(kept(once, apart), 3);
  CHECK_EQ(kept(together, together), 5);
  // of the robot's two pictures the second comes first: its embedding is kept, the first one's too
  TinyPrompt swapped = robot;
  swapped.ids = {1, I, 2, I, I, I, I, I, I, 5};
  swapped.grids = {robot.grids[1], robot.grids[0]};
  std::rotate(swapped.pixels.begin(), swapped.pixels.begin() + 24 * TinyModel::kPatchWidth,
              swapped.pixels.end());
  swapped.state.clear();
  swapped.state_mask.clear();
  swapped.state_token_id = -1;
  CHECK_EQ(kept(robot, swapped), 1);
  CHECK_EQ(kept(swapped, robot), 1);
}

TEST(generated_text_is_kept_as_part_of_the_next_prompt) {
  Context context = empty(), fresh = empty();
  context.prefill(text_prompt().view());
  context.decode(7);
  context.decode(11);
  TinyPrompt next = text_prompt();
  next.ids.insert(next.ids.end(), {7, 11, 12, 13});
  CHECK_EQ(context.prefill(next.view()), text_prompt().size() + 2);
  fresh.prefill(next.view());
  CHECK(fingerprint(context) == fingerprint(fresh));
  // an image token that was generated is a word, and no picture
  context.decode(TinyModel::kImage);
  TinyPrompt picture = next;
  picture.ids.insert(picture.ids.end(), {TinyModel::kImage, 3});
  picture.grids = {{1, 2, 2}};
  picture.pixels.assign(4 * TinyModel::kPatchWidth, 0.5f);
  CHECK_EQ(context.prefill(picture.view()), next.size());
  fresh.prefill(picture.view());
  CHECK(fingerprint(context) == fingerprint(fresh));
}

TEST(nothing_is_kept_on_request_for_a_trace_or_after_an_error) {
  const TinyPrompt prompt = robot_prompt();
  Context context = empty();
  context.prefill(prompt.view());
  const Floats expected = fingerprint(context);
  CHECK_EQ(context.prefill(prompt.view(), nullptr, false), 0);
  CHECK(fingerprint(context) == expected);
  Trace trace;
  CHECK_EQ(context.prefill(prompt.view(), &trace), 0);
  CHECK_EQ(trace.arrays().at("inputs_embeds").data.size(), static_cast<std::size_t>(prompt.size() * 32));
  CHECK_EQ(trace.arrays().count("vision.out"), 1u);
  TinyPrompt broken = prompt;
  broken.state[0] = NAN;
  CHECK_THROWS(context.prefill(broken.view()), ConfigError, "state[0]");
  CHECK_EQ(context.length(), 0);
  CHECK_EQ(context.prefill(prompt.view()), 0);
  CHECK(fingerprint(context) == expected);
}

// many prompts one after the other, each made from pieces of those before
TEST(a_long_conversation_has_the_bits_of_its_last_prompt) {
  std::mt19937 random(19);
  for (const Model& model : {tiny_model(), load(TinyModel::adaptive())}) {
    Context context = empty(model);
    std::vector<Context> forks;
    std::int64_t total = 0;
    for (int round = 0; round < 60; ++round) {
      TinyPrompt prompt = random() % 2 ? robot_prompt() : text_prompt();
      if (random() % 3 == 0 && !prompt.pixels.empty()) prompt.pixels[random() % prompt.pixels.size()] += 1;
      if (random() % 3 == 0 && !prompt.state.empty()) prompt.state[random() % 5] += 0.5f;
      if (random() % 3 == 0) prompt.ids.back() = static_cast<std::int64_t>(random() % 28);
      if (random() % 3 == 0) prompt.ids.insert(prompt.ids.end(), random() % 20, 6);
      total += context.prefill(prompt.view());
      Context fresh = empty(model);
      fresh.prefill(prompt.view());
      for (auto more = random() % 3; more > 0; --more) {
        const auto id = static_cast<std::int64_t>(random() % 28);
        context.decode(id);
        fresh.decode(id);
      }
      if (forks.size() == 3) forks.erase(forks.begin());
      forks.push_back(context.fork());
      if (random() % 4 == 0)
        std::swap(context, forks[random() % forks.size()]);
      else
        CHECK(fingerprint(context) == fingerprint(fresh));
    }
    CHECK(total > 100);
  }
}

TEST(a_fork_goes_on_by_itself) {
  Context first = empty();
  first.prefill(robot_prompt().view());
  const Floats before = fingerprint(first);
  Context second = first.fork();
  CHECK(fingerprint(second) == before);
  // each writes behind the common part, and neither sees the other's
  second.decode(3);
  CHECK(fingerprint(first) == before);
  first.decode(5);
  Context alone = empty();
  alone.prefill(robot_prompt().view());
  alone.decode(3);
  CHECK(fingerprint(second) == fingerprint(alone));
  // a fork goes back to a shorter prompt and writes over what it dropped; the other keeps it
  const Floats five = fingerprint(first);
  Context third = first.fork();
  TinyPrompt shorter = robot_prompt();
  shorter.ids.back() = 4;
  CHECK_EQ(third.prefill(shorter.view()), shorter.size() - 1);
  CHECK(fingerprint(first) == five);
  third.prefill(text_prompt().view());
  CHECK(fingerprint(first) == five);
  CHECK_EQ(first.length(), robot_prompt().size() + 1);
}

TEST(a_fork_outlives_the_context_it_came_from) {
  auto first = std::make_unique<Context>(empty());
  first->prefill(robot_prompt().view());
  const Floats expected = fingerprint(*first);
  Context second = first->fork();
  first.reset();
  CHECK(fingerprint(second) == expected);
  CHECK_EQ(second.prefill(robot_prompt().view()), robot_prompt().size() - 1);
  CHECK(fingerprint(second) == expected);
}

TEST(forks_on_two_threads_give_the_bits_they_give_alone) {
  Context first = empty();
  first.prefill(robot_prompt().view());
  Floats expected[2];
  for (int i = 0; i < 2; ++i) {
    Context alone = empty();
    alone.prefill(robot_prompt().view());
    for (int token = 0; token < 20; ++token) alone.decode(i + token % 7);
    expected[i] = fingerprint(alone);
  }
  int num_same[2] = {};
  const auto work = [&](int i, Context from) {
    for (int round = 0; round < 20; ++round) {
      Context own = from.fork();
      for (int token = 0; token < 20; ++token) own.decode(i + token % 7);
      num_same[i] += fingerprint(own) == expected[i];
    }
  };
  std::thread one(work, 0, first.fork()), two(work, 1, first.fork());
  one.join();
  two.join();
  CHECK_EQ(num_same[0], 20);
  CHECK_EQ(num_same[1], 20);
}

TEST(forks_cost_no_copy_of_the_cache) {
  TinyModel wide;
  wide.layers = 24;
  wide.kv_heads = 4;
  const Model model = load(wide);
  Context context(model, 4096, RopeLayout::hf);
  TinyPrompt prompt = text_prompt();
  prompt.ids.assign(4000, 3);
  context.prefill(prompt.view());
  const std::size_t cache = context.cache_bytes();
  CHECK(cache >= 2u * 4000 * 24 * 4 * 8 * sizeof(float));
  CHECK(cache < 2u * 4000 * 24 * 4 * 8 * sizeof(float) * 11 / 10);

  const auto in_use = [] {
    const auto info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const std::size_t before = in_use();
  std::vector<Context> forks;
  for (int i = 0; i < 16; ++i) forks.push_back(context.fork());
  const std::size_t after = in_use();
  for (Context& fork : forks) fork.decode(5);
  const std::size_t grown = in_use();
  for (const Context& fork : forks) CHECK(fork.cache_bytes() > cache);
  if (kIsSanitized) {
    std::printf("  skipped: sanitizers have an allocator of their own\n");
    return;
  }
  std::printf("  cache %.1f MB: 16 forks cost %.2f MB, and %.2f MB with a token of their own each\n",
              static_cast<double>(cache) * 1e-6, static_cast<double>(after - before) * 1e-6,
              static_cast<double>(grown - before) * 1e-6);
  CHECK(after - before < cache / 4);  // ids, not keys and values
  CHECK(grown - before < 2 * cache);  // a block each, where copies would be sixteen caches
}

}  // namespace wallx::test
