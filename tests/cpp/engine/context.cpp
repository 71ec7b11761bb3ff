// ContextTest: prefill, decode and denoise agree with each other, and contexts do not disturb one another.
// SPDX-License-Identifier: Apache-2.0
#include "engine/context.hpp"

#include <thread>

#include "check.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

constexpr RopeLayout kHf = RopeLayout::hf;
constexpr std::int64_t kHorizon = 6;

Context filled(const TinyPrompt& prompt, Model model = tiny_model(), RopeLayout layout = kHf) {
  Context context(std::move(model), 64, layout);
  context.prefill(prompt.view());
  return context;
}

bool is_finite(const Floats& values) {
  for (float v : values)
    if (!std::isfinite(v)) return false;
  return true;
}

}  // namespace

TEST(token_by_token_equals_one_prefill) {
  for (const TinyPrompt& whole : {text_prompt(), robot_prompt()}) {
    const Floats expected = logits_of(filled(whole));
    CHECK(is_finite(expected));
    // text can come one by one; pictures and state only in a prefill
    const std::int64_t first = whole.grids.empty() ? 1 : 16;
    TinyPrompt start = whole;
    start.ids.resize(static_cast<std::size_t>(first));
    Context context = filled(start);
    for (std::int64_t i = first; i < whole.size(); ++i)
      context.decode(whole.ids[static_cast<std::size_t>(i)]);
    CHECK_EQ(context.length(), whole.size());
    CHECK_NEAR(largest_difference(logits_of(context), expected), 0, 2e-6);
    Context at_once = filled(whole);
    CHECK_NEAR(largest_difference(denoised(context, kHorizon), denoised(at_once, kHorizon)), 0, 2e-5);
  }
}

TEST(denoise_gives_the_same_bits_twice_and_keeps_only_the_prefix) {
  const TinyPrompt prompt = robot_prompt();
  Context context = filled(prompt);
  const Floats logits = logits_of(context);
  const Floats first = denoised(context, kHorizon);
  CHECK(is_finite(first));
  CHECK_EQ(context.length(), prompt.size());
  CHECK(logits_of(context) == logits);
  (void)denoised(context, 11, {3, ActionAttention::causal, TimeGrid::legacy});
  CHECK(denoised(context, kHorizon) == first);

  Context undisturbed = filled(prompt);
  context.decode(7);
  undisturbed.decode(7);
  CHECK(logits_of(context) == logits_of(undisturbed));
}

TEST(prefill_starts_over) {
  Context context = filled(robot_prompt());
  (void)denoised(context, kHorizon);
  context.decode(3);
  context.prefill(text_prompt().view());
  Context fresh = filled(text_prompt());
  CHECK_EQ(context.length(), fresh.length());
  CHECK(logits_of(context) == logits_of(fresh));
  CHECK(denoised(context, kHorizon) == denoised(fresh, kHorizon));
}

TEST(the_size_of_a_context_changes_nothing) {
  const TinyPrompt prompt = robot_prompt();
  Context tight(tiny_model(), prompt.size() + kHorizon, kHf), loose(tiny_model(), 500, kHf);
  tight.prefill(prompt.view());
  loose.prefill(prompt.view());
  CHECK(denoised(tight, kHorizon) == denoised(loose, kHorizon));
}

TEST(everything_in_the_prompt_reaches_the_actions) {
  const TinyPrompt prompt = robot_prompt();
  Context context = filled(prompt);
  const Floats expected = denoised(context, kHorizon);
  const auto differs = [&](const TinyPrompt& changed) {
    Context other = filled(changed);
    return largest_difference(denoised(other, kHorizon), expected) > 1e-5;
  };
  TinyPrompt changed = prompt;
  changed.ids[0] = 4;  // a word
  CHECK(differs(changed));
  changed = prompt;
  changed.pixels.front() += 1;  // a pixel of the first picture
  CHECK(differs(changed));
  changed = prompt;
  changed.pixels.back() += 1;  // and of the last
  CHECK(differs(changed));
  changed = prompt;
  changed.state[2] += 1;
  CHECK(differs(changed));
  changed = prompt;
  changed.state_mask[2] = 0;
  CHECK(differs(changed));
  changed = prompt;
  changed.grids[0] = {1, 6, 4};  // the same patches as another picture
  CHECK(differs(changed));
  CHECK(!differs(prompt));
}

TEST(the_dof_mask_reaches_the_actions) {
  Context context = filled(text_prompt());
  Floats with = noise_of(kHorizon), without = with;
  Floats mask = mask_of(kHorizon);
  context.denoise(with, mask, kHorizon, {});
  mask[0] = 0;
  context.denoise(without, mask, kHorizon, {});
  CHECK(largest_difference(with, without) > 1e-6);
}

// row i of a causal chunk depends on rows 0..i, of a bidirectional one on all
TEST(causal_rows_do_not_see_later_ones_and_bidirectional_rows_do) {
  Context context = filled(robot_prompt());
  const Floats mask = mask_of(kHorizon);
  for (const ActionAttention attention : {ActionAttention::causal, ActionAttention::bidirectional}) {
    Floats actions = noise_of(kHorizon), changed = actions;
    changed[changed.size() - 2] += 1;  // in the last row
    context.denoise(actions, mask, kHorizon, {4, attention, TimeGrid::intervals});
    context.denoise(changed, mask, kHorizon, {4, attention, TimeGrid::intervals});
    for (std::int64_t row = 0; row + 1 < kHorizon; ++row) {
      bool is_same = true;
      for (std::int64_t i = row * 4; i < row * 4 + 4; ++i)
        is_same &= actions[static_cast<std::size_t>(i)] == changed[static_cast<std::size_t>(i)];
      CHECK_EQ(is_same, attention == ActionAttention::causal);
    }
  }
}

TEST(one_row_is_the_same_causal_or_not) {
  Context context = filled(text_prompt());
  CHECK(denoised(context, 1, {5, ActionAttention::causal, TimeGrid::intervals}) ==
        denoised(context, 1, {5, ActionAttention::bidirectional, TimeGrid::intervals}));
}

TEST(steps_record_the_euler_integration) {
  Context context = filled(robot_prompt());
  for (const TimeGrid grid : {TimeGrid::intervals, TimeGrid::legacy}) {
    const FlowOptions options{7, ActionAttention::bidirectional, grid};
    FlowSteps steps;
    const Floats actions = denoised(context, kHorizon, options, &steps);
    const std::size_t num = grid == TimeGrid::legacy ? 6 : 7, size = actions.size();
    const std::vector<float> times = time_points(options);
    REQUIRE(steps.times == times && steps.x.size() == (num + 1) * size && steps.v.size() == num * size);
    const Floats noise = noise_of(kHorizon);
    for (std::size_t i = 0; i < size; ++i) {
      CHECK_EQ(steps.x[i], noise[i]);
      CHECK_EQ(steps.x[num * size + i], actions[i]);
    }
    for (std::size_t s = 0; s < num; ++s) {
      for (std::size_t i = s * size; i < (s + 1) * size; ++i)
        CHECK_NEAR(steps.x[i + size], steps.x[i] + steps.v[i] * (times[s + 1] - times[s]), 1e-6f);
    }
    // the same without recording
    CHECK(denoised(context, kHorizon, options) == actions);
  }
}

TEST(a_trace_changes_nothing) {
  const TinyPrompt prompt = robot_prompt();
  Context plain = filled(prompt), traced(tiny_model(), 64, kHf);
  Trace prefill, step;
  traced.prefill(prompt.view(), &prefill);
  CHECK(logits_of(plain) == logits_of(traced));
  Floats actions = noise_of(kHorizon);
  traced.denoise(actions, mask_of(kHorizon), kHorizon, {}, nullptr, &step);
  CHECK(actions == denoised(plain, kHorizon));
  for (const char* name : {"vision.out", "state_embed", "inputs_embeds", "layers.1", "norm"})
    CHECK(prefill.arrays().count(name) == 1);
  CHECK_EQ(step.arrays().at("layers.1").data.size(), static_cast<std::size_t>(kHorizon * 32));
}

TEST(contexts_on_two_threads_give_the_bits_they_give_alone) {
  const TinyPrompt prompts[] = {robot_prompt(), text_prompt()};
  Floats alone[2], alone_logits[2];
  for (std::size_t i = 0; i < 2; ++i) {
    Context context = filled(prompts[i]);
    alone[i] = denoised(context, kHorizon + static_cast<std::int64_t>(i));
    context.decode(5);
    alone_logits[i] = logits_of(context);
  }
  int num_same[2] = {};
  const auto work = [&](std::size_t i) {
    Context context(tiny_model(), 64, kHf);
    for (int round = 0; round < 40; ++round) {
      context.prefill(prompts[i].view());
      const bool is_same = denoised(context, kHorizon + static_cast<std::int64_t>(i)) == alone[i];
      context.decode(5);
      num_same[i] += is_same && logits_of(context) == alone_logits[i];
    }
  };
  std::thread first(work, 0), second(work, 1);
  first.join();
  second.join();
  CHECK_EQ(num_same[0], 40);
  CHECK_EQ(num_same[1], 40);
}

TEST(bf16_on_disk_equals_the_rounded_weights_as_fp32) {
  const TinyPrompt prompt = robot_prompt();
  Context half = filled(prompt, load(TinyModel(), TinyModel::Storage::bf16));
  Context full = filled(prompt, load(TinyModel(), TinyModel::Storage::f32_of_bf16));
  Context unrounded = filled(prompt);
  CHECK(logits_of(half) == logits_of(full));
  CHECK(logits_of(half) != logits_of(unrounded));
  const Floats actions = denoised(half, kHorizon);
  CHECK(actions == denoised(full, kHorizon));
  CHECK(actions != denoised(unrounded, kHorizon));
}

TEST(a_model_outlives_the_name_it_was_loaded_by) {
  Context context = filled(text_prompt(), load(TinyModel()));
  CHECK(context.model().config().hidden_size == 32);
  CHECK(is_finite(logits_of(context)));
}

TEST(an_untied_head_is_its_own_tensor) {
  TinyModel untied;
  untied.is_head_tied = false;
  Context own = filled(text_prompt(), load(untied));
  CHECK(logits_of(own) != logits_of(filled(text_prompt())));
  // the embedding again, as a tensor of its own: the tied numbers
  const TemporaryFolder folder;
  std::vector<RawTensor> tensors = TinyModel().tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].name == "model.embed_tokens.weight") {
      RawTensor copy = tensors[i];
      copy.name = "lm_head.weight";
      tensors.push_back(std::move(copy));
      break;
    }
  folder.write("config.json", untied.config().text());
  folder.write("model.safetensors", safetensors(tensors));
  CHECK(logits_of(filled(text_prompt(), WallOss::load(folder.path()))) == logits_of(filled(text_prompt())));
}

// the layouts differ in which axis an entry follows, and text stands at the same place on all axes
TEST(rope_layouts_differ_on_pictures_only) {
  const Floats text = logits_of(filled(text_prompt()));
  CHECK(logits_of(filled(text_prompt(), tiny_model(), RopeLayout::contiguous)) == text);
  const Floats robot = logits_of(filled(robot_prompt()));
  CHECK(largest_difference(logits_of(filled(robot_prompt(), tiny_model(), RopeLayout::contiguous)), robot) >
        1e-5);
}

}  // namespace wallx::test
