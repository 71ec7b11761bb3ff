// PositionsTest: token positions, window order and rotary tables of small cases, worked out by hand.
// SPDX-License-Identifier: Apache-2.0
#include "model/positions.hpp"

#include <cmath>
#include <string>

#include "base/errors.hpp"
#include "check.hpp"

namespace wallx::test {
namespace {

using Ids = std::vector<std::int64_t>;
constexpr std::int64_t I = 30;  // image token
constexpr std::int64_t V = 31;  // video token

ModelConfig small_config() {
  ModelConfig config;
  config.head_dim = 8;
  config.rope_theta = 10000;
  config.mrope_section = {1, 1, 2};
  config.image_token_id = I;
  config.video_token_id = V;
  config.vision.hidden_size = 8;
  config.vision.num_heads = 1;
  config.vision.patch_size = 2;
  config.vision.spatial_merge_size = 2;
  config.vision.window_size = 8;  // 2 x 2 merged patches
  return config;
}

std::string show(const Ids& values) {
  std::string out;
  for (auto v : values) out.append(std::to_string(v)).append(" ");
  return out;
}

MropePositions positions_of(const Ids& ids, const Ids& mask, const std::vector<Grid>& grids) {
  std::size_t next_grid = 0;
  const MropePositions out = mrope_positions(ids, mask, grids, next_grid, small_config());
  CHECK_EQ(next_grid, grids.size());
  return out;
}

}  // namespace

TEST(text_advances_all_axes_by_one) {
  const MropePositions p = positions_of({5, 6, 7}, {}, {});
  CHECK_EQ(show(p.time), "0 1 2 ");
  CHECK_EQ(show(p.height), "0 1 2 ");
  CHECK_EQ(show(p.width), "0 1 2 ");
  CHECK_EQ(p.next, 3);
  CHECK_EQ(positions_of({}, {}, {}).next, 0);
}

TEST(a_picture_spans_height_and_width_from_one_start) {
  // 4 x 6 patches merge to 2 x 3 tokens
  const MropePositions p = positions_of({1, 1, I, I, I, I, I, I, 1, 1}, {}, {{1, 4, 6}});
  CHECK_EQ(show(p.time), "0 1 2 2 2 2 2 2 5 6 ");
  CHECK_EQ(show(p.height), "0 1 2 2 2 3 3 3 5 6 ");
  CHECK_EQ(show(p.width), "0 1 2 3 4 2 3 4 5 6 ");
  CHECK_EQ(p.next, 7);
}

TEST(pictures_follow_each_other_even_without_text_between) {
  const MropePositions p = positions_of({I, I, I, I, I, 1, I}, {}, {{1, 4, 4}, {1, 2, 2}, {1, 2, 2}});
  CHECK_EQ(show(p.time), "0 0 0 0 2 3 4 ");
  CHECK_EQ(show(p.height), "0 0 1 1 2 3 4 ");
  CHECK_EQ(show(p.width), "0 1 0 1 2 3 4 ");
  CHECK_EQ(p.next, 5);
}

TEST(a_pictures_time_stands_still_over_its_frames) {
  const MropePositions p = positions_of({I, I, I, I, 1}, {}, {{2, 2, 4}});
  CHECK_EQ(show(p.time), "0 0 0 0 2 ");
  CHECK_EQ(show(p.height), "0 0 0 0 2 ");
  CHECK_EQ(show(p.width), "0 1 0 1 2 ");
}

TEST(masked_tokens_stand_at_one_and_count_for_nothing) {
  const MropePositions p = positions_of({0, 0, 5, I, I, 6}, {0, 0, 1, 1, 1, 1}, {{1, 2, 4}});
  CHECK_EQ(show(p.time), "1 1 0 1 1 3 ");
  CHECK_EQ(show(p.height), "1 1 0 1 1 3 ");
  CHECK_EQ(show(p.width), "1 1 0 1 2 3 ");
  CHECK_EQ(p.next, 4);
}

TEST(grids_are_consumed_across_calls) {
  const std::vector<Grid> grids{{1, 2, 2}, {1, 2, 4}};
  const ModelConfig config = small_config();
  std::size_t next_grid = 0;
  (void)mrope_positions(Ids{I, 1}, {}, grids, next_grid, config);
  CHECK_EQ(next_grid, 1u);
  CHECK_EQ(show(mrope_positions(Ids{1, I, I}, {}, grids, next_grid, config).width), "0 1 2 ");
  CHECK_EQ(next_grid, 2u);
}

TEST(token_counts_that_do_not_fit_the_grids_are_refused) {
  const ModelConfig config = small_config();
  const auto refused = [&](const Ids& ids, const std::vector<Grid>& grids, const char* part) {
    std::size_t next_grid = 0;
    CHECK_THROWS(mrope_positions(ids, {}, grids, next_grid, config), ConfigError, part);
  };
  refused({I, I, I}, {{1, 4, 4}}, "picture 0 makes 4 image tokens, the prompt has 3");
  refused({I, I, 1, I, I}, {{1, 4, 4}}, "picture 0 makes 4 image tokens, the prompt has 2");
  refused({I, I, I, I, I}, {{1, 4, 4}}, "for more than the 1 pictures");
  refused({I}, {}, "for more than the 0 pictures");
  refused({1, I, 2, I, I}, {{1, 2, 2}, {1, 2, 2}}, "for more than the 2 pictures");
  refused({1, V}, {}, "token 1 is a video token");
}

TEST(windows_tile_a_picture_and_ragged_ones_are_kept) {
  // 3 x 5 merged patches in windows of 2 x 2:  0 1 | 2 3 | 4
  //                                            5 6 | 7 8 | 9
  //                                            ------------
  //                                           10 11|12 13|14
  const WindowOrder order = window_order(std::vector<Grid>{{1, 6, 10}}, small_config().vision);
  CHECK_EQ(show(order.index), "0 1 5 6 2 3 7 8 4 9 10 11 12 13 14 ");
  CHECK_EQ(show({order.offsets.begin(), order.offsets.end()}), "0 16 32 40 48 56 60 ");
}

TEST(windows_that_fit_exactly_leave_no_empty_one) {
  const WindowOrder order = window_order(std::vector<Grid>{{1, 4, 8}}, small_config().vision);
  CHECK_EQ(show(order.index), "0 1 4 5 2 3 6 7 ");
  CHECK_EQ(show({order.offsets.begin(), order.offsets.end()}), "0 16 32 ");
}

TEST(windows_do_not_cross_pictures_or_frames) {
  const std::vector<Grid> grids{{1, 2, 2}, {2, 2, 6}, {1, 4, 2}};
  const WindowOrder order = window_order(grids, small_config().vision);
  CHECK_EQ(show(order.index), "0 1 2 3 4 5 6 7 8 ");
  CHECK_EQ(show({order.offsets.begin(), order.offsets.end()}), "0 4 12 16 24 28 36 ");
}

TEST(patch_angles_follow_the_processors_order) {
  // head_dim 8: two frequencies, 1 and 10000^(-2/4) = 0.01, for rows, then for columns
  const std::vector<float> angles = patch_angles(std::vector<Grid>{{1, 2, 4}}, small_config().vision);
  const std::vector<std::pair<float, float>> row_column{{0, 0}, {0, 1}, {1, 0}, {1, 1},
                                                        {0, 2}, {0, 3}, {1, 2}, {1, 3}};
  REQUIRE(angles.size() == row_column.size() * 4);
  for (std::size_t p = 0; p < row_column.size(); ++p) {
    const auto [row, column] = row_column[p];
    const float expected[] = {row, row * 0.01f, column, column * 0.01f};
    for (std::size_t i = 0; i < 4; ++i) CHECK_NEAR(angles[p * 4 + i], expected[i], 1e-8f);
  }
}

TEST(rotary_tables_take_each_entry_from_its_axis) {
  MropePositions p;
  p.time = {3};
  p.height = {5};
  p.width = {7};
  // frequencies of head_dim 8: 1, 0.1, 0.01, 0.001, for both halves
  const double frequency[] = {1, 0.1, 0.01, 0.001, 1, 0.1, 0.01, 0.001};
  const struct {
    RopeLayout layout;
    int axis[8];  // 0 time, 1 height, 2 width
  } cases[] = {{RopeLayout::hf, {0, 1, 2, 2, 0, 1, 2, 2}},
               {RopeLayout::contiguous, {0, 0, 1, 1, 2, 2, 2, 2}}};
  for (const auto& c : cases) {
    std::vector<float> cos{42}, sin{42};  // appended to
    rotary_tables(p, small_config(), c.layout, cos, sin);
    REQUIRE(cos.size() == 9 && sin.size() == 9);
    for (std::size_t i = 0; i < 8; ++i) {
      const double at[] = {3, 5, 7};
      const double angle = at[c.axis[i]] * frequency[i];
      CHECK_NEAR(static_cast<double>(cos[i + 1]), std::cos(angle), 1e-6);
      CHECK_NEAR(static_cast<double>(sin[i + 1]), std::sin(angle), 1e-6);
    }
  }
}

}  // namespace wallx::test
