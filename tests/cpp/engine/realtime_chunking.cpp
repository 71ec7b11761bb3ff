// RealtimeChunkingTest: known weights and gains, exact frozen rows, and a network that is guided.
// SPDX-License-Identifier: Apache-2.0
#include "engine/realtime_chunking.hpp"

#include <limits>

#include "base/errors.hpp"
#include "check.hpp"
#include "engine/tiny_engine.hpp"

namespace wallx::test {
namespace {

constexpr std::int64_t kHorizon = 6;

struct Guided {
  Floats previous = noise_of(kHorizon, 77), weights = guidance_weights(2, 4, kHorizon);
  FlowOptions options(std::int64_t num_frozen) const {
    FlowOptions options;
    options.guide = {previous, weights, num_frozen, 10};
    return options;
  }
};

}  // namespace

TEST(the_soft_mask_has_its_published_values) {
  const Floats expected{1, 1, .570589f, .287072f, .114492f, .02577f, 0, 0, 0, 0};
  CHECK(largest_difference(guidance_weights(2, 6, 10), expected) < 1e-6);
  CHECK(guidance_weights(0, 0, 3) == (Floats{0, 0, 0}));
  CHECK(guidance_weights(3, 3, 3) == (Floats{1, 1, 1}));
  CHECK_THROWS(guidance_weights(3, 2, 4), ConfigError, "guidance from row");
  CHECK_THROWS(guidance_weights(-1, 2, 4), ConfigError, "guidance from row");
  CHECK_THROWS(guidance_weights(1, 5, 4), ConfigError, "guidance from row");
}

TEST(the_gain_has_its_published_values) {
  const Floats five{5, 5, 4.25f, 2.7619f, 2.1667f, 2, 2.1667f, 2.7619f, 4.25f, 5};
  const Floats ten{10, 9.1111f, 4.25f, 2.7619f, 2.1667f, 2, 2.1667f, 2.7619f, 4.25f, 9.1111f};
  for (std::size_t i = 0; i < 10; ++i) {
    CHECK_NEAR(guidance_gain(static_cast<float>(i) / 10, 5), five[i], 1e-4);
    CHECK_NEAR(guidance_gain(static_cast<float>(i) / 10, 10), ten[i], 1e-4);
  }
  CHECK_EQ(guidance_gain(1, 10), 10.0f);
}

TEST(frozen_rows_are_the_previous_chunks_on_every_grid) {
  for (const float scale : {1.0f, 0.999f, 0.5f}) {
    Context context(tiny_model(), 64, RopeLayout::hf);
    context.prefill(robot_prompt().view());
    const Guided guided;
    FlowOptions options = guided.options(2);
    options.time_scale = scale;
    const Floats actions = denoised(context, kHorizon, options), mask = mask_of(kHorizon);
    for (std::size_t i = 0; i < 2 * TinyModel::kActionDim; ++i)
      if (mask[i] != 0) CHECK_EQ(actions[i], guided.previous[i]);
  }
}

TEST(guidance_draws_rows_toward_the_previous_chunk_by_their_weight) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  const Guided guided;
  const Floats free = denoised(context, kHorizon), drawn = denoised(context, kHorizon, guided.options(0));
  const auto distance = [&](const Floats& actions, std::size_t row) {
    double sum = 0;
    for (std::size_t i = row * TinyModel::kActionDim; i < (row + 1) * TinyModel::kActionDim; ++i)
      if (mask_of(kHorizon)[i] != 0) sum += std::abs(actions[i] - guided.previous[i]);
    return sum;
  };
  for (std::size_t row = 0; row < 2; ++row) CHECK(distance(drawn, row) < 0.1 * distance(free, row));
  CHECK(distance(drawn, 2) < distance(free, 2));
}

TEST(a_guide_that_does_not_fit_is_refused) {
  Context context(tiny_model(), 64, RopeLayout::hf);
  context.prefill(robot_prompt().view());
  const auto refused = [&](const char* what, auto change) {
    Guided guided;
    FlowOptions options = guided.options(2);
    change(guided, options);
    CHECK_THROWS(denoised(context, kHorizon, options), ConfigError, what);
  };
  refused("previous has",
          [](Guided& g, FlowOptions& o) { o.guide.previous = std::span(g.previous).first(5); });
  refused("guidance has", [](Guided& g, FlowOptions& o) { o.guide.weights = std::span(g.weights).first(5); });
  refused("guidance[1]", [](Guided& g, FlowOptions&) { g.weights[1] = 1.5f; });
  refused("previous[3]",
          [](Guided& g, FlowOptions&) { g.previous[3] = std::numeric_limits<float>::quiet_NaN(); });
  refused("num_frozen", [](Guided&, FlowOptions& o) { o.guide.num_frozen = kHorizon + 1; });
  refused("max_guidance", [](Guided&, FlowOptions& o) { o.guide.max_gain = 0; });
}

}  // namespace wallx::test
