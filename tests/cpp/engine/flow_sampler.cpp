// FlowSamplerTest: the time grids, to the bit.
// SPDX-License-Identifier: Apache-2.0
#include "engine/flow_sampler.hpp"

#include <limits>

#include "base/errors.hpp"
#include "check.hpp"

namespace wallx::test {
namespace {

std::vector<float> points(std::int64_t num_steps, TimeGrid grid) {
  FlowOptions options;
  options.num_steps = num_steps;
  options.time_grid = grid;
  return time_points(options);
}

}  // namespace

TEST(intervals_make_n_steps_and_legacy_one_less) {
  for (std::int64_t n = 2; n <= 1000; ++n) {
    CHECK_EQ(points(n, TimeGrid::intervals).size(), static_cast<std::size_t>(n + 1));
    CHECK_EQ(points(n, TimeGrid::legacy).size(), static_cast<std::size_t>(n));
  }
  CHECK(points(1, TimeGrid::intervals) == (std::vector<float>{0, 1}));
  CHECK(points(2, TimeGrid::legacy) == (std::vector<float>{0, 1}));
  CHECK(points(9, TimeGrid::intervals) == points(10, TimeGrid::legacy));
}

TEST(points_rise_from_zero_to_one_exactly) {
  for (std::int64_t n = 1; n <= 1000; ++n) {
    const std::vector<float> t = points(n, TimeGrid::intervals);
    CHECK_EQ(t.front(), 0.0f);
    CHECK_EQ(t.back(), 1.0f);
    for (std::size_t i = 1; i < t.size(); ++i) {
      CHECK(t[i] > t[i - 1]);
      CHECK_NEAR(t[i], static_cast<float>(i) / static_cast<float>(n), 1.2e-7f);
    }
  }
}

// torch.linspace(0, 1, 11): the upper half counts down from one
TEST(ten_steps_round_as_the_reference) {
  const float step = 1.0f / 10.0f;
  const std::vector<float> expected{
      0,        step, step * 2, step * 3, step * 4, 1 - step * 5, 1 - step * 4, 1 - step * 3, 1 - step * 2,
      1 - step, 1};
  CHECK(points(10, TimeGrid::intervals) == expected);
  // where the halves meet, counting up would give 0x1.555556p-1
  CHECK_EQ(points(3, TimeGrid::intervals)[2], 0x1.555554p-1f);
}

TEST(step_counts_outside_the_bounds_are_refused) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t n : {std::int64_t{0}, std::int64_t{-3}, std::int64_t{1001}, kMax, -kMax - 1}) {
    CHECK_THROWS(points(n, TimeGrid::intervals), ConfigError, "expected 1 to 1000");
    CHECK_THROWS(points(n, TimeGrid::legacy), ConfigError, "expected 2 to 1000");
  }
  CHECK_THROWS(points(1, TimeGrid::legacy), ConfigError, "num_steps is 1, expected 2 to 1000");
}

}  // namespace wallx::test
