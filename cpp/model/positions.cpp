// Positions: the reference's index arithmetic, one picture at a time.
// SPDX-License-Identifier: Apache-2.0
#include "model/positions.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/errors.hpp"

namespace wallx {

MropePositions mrope_positions(std::span<const std::int64_t> ids, std::span<const std::int64_t> mask,
                               std::span<const Grid> grids, std::size_t& next_grid,
                               const ModelConfig& config) {
  MropePositions out;
  out.time.assign(ids.size(), 1);
  out.height.assign(ids.size(), 1);
  out.width.assign(ids.size(), 1);
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (mask.empty() || mask[i]) kept.push_back(i);

  const std::int64_t merge = config.vision.spatial_merge_size;
  std::int64_t next = 0;
  for (std::size_t at = 0; at < kept.size();) {
    if (ids[kept[at]] == config.video_token_id)
      throw ConfigError("token " + std::to_string(at) + " is a video token; only pictures are supported");
    if (ids[kept[at]] != config.image_token_id) {
      out.time[kept[at]] = out.height[kept[at]] = out.width[kept[at]] = next++;
      ++at;
      continue;
    }
    if (next_grid >= grids.size())
      throw ConfigError("token-count mismatch: the prompt has image tokens for more than the " +
                        std::to_string(grids.size()) + " pictures given");
    const auto [frames, rows, columns] = grids[next_grid++];
    const std::int64_t h = rows / merge, w = columns / merge;
    const std::size_t count = static_cast<std::size_t>(frames * h * w);
    std::size_t run = 0;
    while (at + run < kept.size() && ids[kept[at + run]] == config.image_token_id && run < count) ++run;
    if (run != count)
      throw ConfigError("token-count mismatch: picture " + std::to_string(next_grid - 1) + " makes " +
                        std::to_string(count) + " image tokens, the prompt has " + std::to_string(run) +
                        " for it");
    for (std::size_t i = 0; i < count; ++i) {
      const auto within = static_cast<std::int64_t>(i) % (h * w);
      out.time[kept[at + i]] = next;  // a picture's time does not advance, whatever its frames
      out.height[kept[at + i]] = next + within / w;
      out.width[kept[at + i]] = next + within % w;
    }
    next += std::max(h, w);
    at += count;
  }
  out.next = next;
  return out;
}

WindowOrder window_order(std::span<const Grid> grids, const VisionConfig& config) {
  WindowOrder out;
  out.offsets.push_back(0);
  const std::int64_t merge = config.spatial_merge_size;
  const std::int64_t side = config.window_size / merge / config.patch_size;
  std::int64_t base = 0;
  for (const auto& [frames, rows, columns] : grids) {
    const std::int64_t h = rows / merge, w = columns / merge;
    for (std::int64_t t = 0; t < frames; ++t)
      for (std::int64_t y0 = 0; y0 < h; y0 += side)
        for (std::int64_t x0 = 0; x0 < w; x0 += side) {
          for (std::int64_t y = y0; y < std::min(h, y0 + side); ++y)
            for (std::int64_t x = x0; x < std::min(w, x0 + side); ++x)
              out.index.push_back(base + (t * h + y) * w + x);
          out.offsets.push_back(
              static_cast<std::int32_t>(static_cast<std::int64_t>(out.index.size()) * merge * merge));
        }
    base += frames * h * w;
  }
  return out;
}

std::vector<float> patch_angles(std::span<const Grid> grids, const VisionConfig& config) {
  const std::int64_t merge = config.spatial_merge_size;
  const std::int64_t num_freqs = config.head_dim() / 4;
  std::vector<float> frequency;
  for (std::int64_t i = 0; i < num_freqs; ++i)
    frequency.push_back(
        1.0f / std::pow(10000.0f, static_cast<float>(2 * i) / static_cast<float>(config.head_dim() / 2)));
  std::vector<float> out;
  for (const auto& [frames, rows, columns] : grids)
    for (std::int64_t t = 0; t < frames; ++t)
      for (std::int64_t y0 = 0; y0 < rows; y0 += merge)
        for (std::int64_t x0 = 0; x0 < columns; x0 += merge)
          for (std::int64_t y = y0; y < y0 + merge; ++y)
            for (std::int64_t x = x0; x < x0 + merge; ++x) {
              for (float f : frequency) out.push_back(static_cast<float>(y) * f);
              for (float f : frequency) out.push_back(static_cast<float>(x) * f);
            }
  return out;
}

void rotary_tables(const MropePositions& positions, const ModelConfig& config, RopeLayout layout,
                   std::vector<float>& cos, std::vector<float>& sin) {
  const std::int64_t dim = config.head_dim, half = dim / 2;
  std::vector<float> frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i)
    frequency[static_cast<std::size_t>(i)] =
        1.0f /
        std::pow(static_cast<float>(config.rope_theta), static_cast<float>(2 * i) / static_cast<float>(dim));
  std::vector<int> axis(static_cast<std::size_t>(dim));
  for (std::int64_t d = 0; d < dim; ++d) {
    const bool is_contiguous = layout == RopeLayout::contiguous;
    const std::int64_t at = is_contiguous ? d : d % half;
    const std::int64_t scale = is_contiguous ? 2 : 1;
    int a = 0;
    for (std::int64_t end = scale * config.mrope_section[0]; a < 2 && at >= end;)
      end += scale * config.mrope_section[static_cast<std::size_t>(++a)];
    axis[static_cast<std::size_t>(d)] = a;
  }
  const std::array<const std::vector<std::int64_t>*, 3> of{&positions.time, &positions.height,
                                                           &positions.width};
  for (std::size_t token = 0; token < positions.time.size(); ++token)
    for (std::int64_t d = 0; d < dim; ++d) {
      const auto& on_axis = *of[static_cast<std::size_t>(axis[static_cast<std::size_t>(d)])];
      const float angle = static_cast<float>(on_axis[token]) * frequency[static_cast<std::size_t>(d % half)];
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
}

}  // namespace wallx
