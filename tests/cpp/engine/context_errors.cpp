// ContextErrorsTest: every wrong input is refused in words, and leaves a context that works.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

// refused, empty afterwards, and usable with a right prompt
void check_prefill_refused(const TinyPrompt& prompt, const char* part) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(text_prompt().view());
  CHECK_THROWS((context.prefill(prompt.view()), 0), ConfigError, part);
  CHECK_EQ(context.length(), 0);
  CHECK_THROWS((context.decode(1), 0), ConfigError, "decode: the context is empty; call prefill first");
  context.prefill(robot_prompt().view());
  Context fresh(tiny_model(), 64, RopeLayout::hf);
  fresh.prefill(robot_prompt().view());
  CHECK(logits_of(context) == logits_of(fresh));
}

void check_denoise_refused(Floats noise, const Floats& mask, std::int64_t horizon, const FlowOptions& options,
                           const char* part) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(text_prompt().view());
  const Floats before = noise;
  CHECK_THROWS((context.denoise(noise, mask, horizon, options), 0), ConfigError, part);
  // nothing was touched: neither the noise nor the prefix
  CHECK_EQ(std::memcmp(noise.data(), before.data(), noise.size() * sizeof(float)), 0);
  CHECK_EQ(context.length(), text_prompt().size());
  Context fresh(tiny_model(), 64, RopeLayout::hf);
  fresh.prefill(text_prompt().view());
  CHECK(denoised(context, 3) == denoised(fresh, 3));
}

}  // namespace

TEST(context_sizes_outside_their_bounds_are_refused) {
  for (std::int64_t size : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{131073}, kHuge, -kHuge})
    CHECK_THROWS(Context(tiny_model(), size, RopeLayout::hf), ConfigError, "max_tokens is");
  CHECK_EQ(Context(tiny_model(), 1, RopeLayout::hf).max_tokens(), 1);
}

TEST(an_empty_context_only_takes_a_prompt) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  Floats out(40), noise = noise_of(2);
  CHECK_EQ(context.length(), 0);
  CHECK_THROWS((context.logits(out), 0), ConfigError, "logits: the context is empty; call prefill first");
  CHECK_THROWS((context.decode(1), 0), ConfigError, "decode: the context is empty");
  CHECK_THROWS((context.denoise(noise, mask_of(2), 2, {}), 0), ConfigError, "denoise: the context is empty");
}

TEST(prompts_of_a_wrong_length_are_refused) {
  TinyPrompt prompt = text_prompt();
  prompt.ids.clear();
  check_prefill_refused(prompt, "the prompt has 0 tokens, this context holds 1 to 64 (max_tokens)");
  prompt.ids.assign(65, 1);
  check_prefill_refused(prompt, "the prompt has 65 tokens, this context holds 1 to 64");
  prompt.ids.assign(64, 1);
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(prompt.view());
  CHECK_EQ(context.length(), 64);
  CHECK_THROWS((context.decode(1), 0), ConfigError, "the context is full: 64 tokens (max_tokens)");
  CHECK_EQ(context.length(), 64);
  Floats noise = noise_of(1);
  CHECK_THROWS((context.denoise(noise, mask_of(1), 1, {}), 0), ConfigError, "does not fit max_tokens 64");
}

TEST(ids_outside_the_vocabulary_are_refused) {
  for (std::int64_t id : {std::int64_t{-1}, std::int64_t{40}, kHuge, -kHuge}) {
    TinyPrompt prompt = text_prompt();
    prompt.ids[3] = id;
    const std::string message = join("token id ", id, " is outside the vocabulary [0, 40)");
    check_prefill_refused(prompt, message.c_str());
    Context context(tiny_model(), 64, RopeLayout::hf);
    context.prefill(text_prompt().view());
    const Floats before = logits_of(context);
    CHECK_THROWS((context.decode(id), 0), ConfigError, message.c_str());
    CHECK_EQ(context.length(), text_prompt().size());
    CHECK(logits_of(context) == before);
  }
}

TEST(image_tokens_that_do_not_fit_the_pictures_are_refused) {
  TinyPrompt prompt = robot_prompt();
  prompt.ids.erase(prompt.ids.begin() + 3);
  check_prefill_refused(prompt,
                        "token-count mismatch: picture 0 makes 6 image tokens, the prompt has 5 for it");
  prompt = robot_prompt();
  prompt.ids.insert(prompt.ids.begin() + 3, TinyModel::kImage);
  check_prefill_refused(prompt,
                        "token-count mismatch: the prompt has image tokens for more than the 2 pictures");
  prompt = text_prompt();
  prompt.ids[2] = TinyModel::kImage;
  check_prefill_refused(prompt,
                        "token-count mismatch: the prompt has image tokens for more than the 0 pictures");
  prompt = robot_prompt();
  for (auto& id : prompt.ids)
    if (id == TinyModel::kImage) id = 7;
  check_prefill_refused(prompt, "token-count mismatch: 2 pictures given, the prompt uses 0");
  prompt = robot_prompt();
  prompt.ids[12] = 7;
  check_prefill_refused(prompt, "token-count mismatch: 2 pictures given, the prompt uses 1");
  prompt = text_prompt();
  prompt.ids[0] = TinyModel::kVideo;
  check_prefill_refused(prompt, "video token");
}

TEST(impossible_grids_are_refused) {
  for (const Grid& grid :
       {Grid{0, 4, 6}, Grid{1, 0, 6}, Grid{1, 4, 0}, Grid{-1, 4, 6}, Grid{1, -4, -6}, Grid{1, 3, 8},
        Grid{1, 8, 3}, Grid{1025, 2, 2}, Grid{1, 4098, 2}, Grid{1, 2, kHuge - 1}}) {
    TinyPrompt prompt = robot_prompt();
    prompt.grids[0] = grid;
    check_prefill_refused(prompt, join("picture grid (", grid[0], ", ", grid[1], ", ", grid[2], ")").c_str());
  }
}

TEST(pixels_of_a_wrong_size_or_not_finite_are_refused) {
  TinyPrompt prompt = robot_prompt();
  prompt.pixels.pop_back();
  check_prefill_refused(prompt, "pixels has 671 values, expected 672");
  prompt.pixels.resize(673);
  check_prefill_refused(prompt, "pixels has 673 values, expected 672");
  prompt = text_prompt();
  prompt.pixels = {1};
  check_prefill_refused(prompt, "pixels has 1 values, expected 0");
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    prompt = robot_prompt();
    prompt.pixels[100] = bad;
    check_prefill_refused(prompt, "pixels[100] is ");
  }
}

TEST(states_that_do_not_fit_are_refused) {
  TinyPrompt prompt = robot_prompt();
  prompt.state.pop_back();
  check_prefill_refused(prompt, "state has 4 values, expected 5");
  prompt = robot_prompt();
  prompt.state_mask.push_back(1);
  check_prefill_refused(prompt, "state_mask has 6 values, expected 5");
  prompt = robot_prompt();
  prompt.state_mask.clear();
  check_prefill_refused(prompt, "state_mask has 0 values, expected 5");
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    prompt = robot_prompt();
    prompt.state[1] = bad;
    check_prefill_refused(prompt, "state[1] is ");
    prompt = robot_prompt();
    prompt.state_mask[4] = bad;
    check_prefill_refused(prompt, "state_mask[4] is ");
  }
  prompt = robot_prompt();
  prompt.state.clear();
  check_prefill_refused(prompt, "the prompt has 1 state tokens, expected none without a state");
  prompt = robot_prompt();
  prompt.state_token_id = -1;
  check_prefill_refused(prompt, "the prompt has 0 state tokens, expected one for the state given");
  prompt = robot_prompt();
  prompt.ids[15] = 7;
  check_prefill_refused(prompt, "the prompt has 0 state tokens, expected one");
  prompt = robot_prompt();
  prompt.ids[16] = TinyModel::kState;
  check_prefill_refused(prompt, "the prompt has 2 state tokens, expected one");
}

TEST(noise_and_mask_that_do_not_fit_are_refused) {
  const Floats noise = noise_of(3), mask = mask_of(3);
  check_denoise_refused(noise_of(2), mask, 3, {}, "noise has 8 values, expected 12");
  check_denoise_refused(noise, mask_of(4), 3, {}, "dof_mask has 16 values, expected 12");
  check_denoise_refused(noise, {}, 3, {}, "dof_mask has 0 values, expected 12");
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    Floats broken = noise;
    broken[11] = bad;
    check_denoise_refused(broken, mask, 3, {}, "noise[11] is ");
    broken = mask;
    broken[0] = bad;
    check_denoise_refused(noise, broken, 3, {}, "dof_mask[0] is ");
  }
}

TEST(horizons_that_do_not_fit_are_refused) {
  for (std::int64_t horizon : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{57}, kHuge, kHuge - 7, -kHuge})
    check_denoise_refused(noise_of(3), mask_of(3), horizon, {},
                          join("horizon ", horizon, " after a prompt of 8").c_str());
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(text_prompt().view());
  CHECK_EQ(denoised(context, 56).size(), 56u * 4);
}

TEST(step_counts_outside_their_bounds_are_refused) {
  for (std::int64_t num : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1001}, kHuge, -kHuge - 1}) {
    FlowOptions options;
    options.num_steps = num;
    check_denoise_refused(noise_of(3), mask_of(3), 3, options, join("num_steps is ", num).c_str());
  }
}

TEST(logits_need_room_for_the_vocabulary) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(text_prompt().view());
  Floats small(39), large(41);
  CHECK_THROWS((context.logits(small), 0), ConfigError, "logits has 39 values, expected 40");
  CHECK_THROWS((context.logits(large), 0), ConfigError, "logits has 41 values, expected 40");
}

// a checkpoint that holds a NaN, or noise so large that it overflows, must not move a robot
TEST(a_chunk_that_is_not_finite_is_an_error) {
  TinyModel model;
  const TemporaryFolder folder;
  std::vector<RawTensor> tensors = model.tensors();
  for (RawTensor& tensor : tensors)
    if (tensor.name == "action_preprocessor.w3.weight") {
      const float nan = NAN;
      tensor.bytes.replace(0, 4, reinterpret_cast<const char*>(&nan), 4);
    }
  folder.write("config.json", model.config().text());
  folder.write("model.safetensors", safetensors(tensors));
  Context broken(WallOss::load(folder.path()), 64, RopeLayout::hf);
  broken.prefill(text_prompt().view());
  CHECK_THROWS(denoised(broken, 2), WallxError, "not finite");

  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(text_prompt().view());
  const Floats expected = denoised(context, 2);
  Floats huge(8, 3e38f);
  CHECK_THROWS((context.denoise(huge, mask_of(2), 2, {}), 0), WallxError, "not finite");
  CHECK(denoised(context, 2) == expected);
}

}  // namespace wallx::test
