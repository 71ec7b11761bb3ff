// Positions: where tokens and patches stand: mrope indices, window order, rotary tables.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.hpp"

namespace wallx {

using Grid = std::array<std::int64_t, 3>;  // frames, rows, columns of patches

struct MropePositions {
  std::vector<std::int64_t> time, height, width;  // (tokens) each
  std::int64_t next = 0;                          // position of the token after the last
};

// Position of each token on the three axes. A text token advances all axes by one; a picture of merged grid
// (h, w) spans h and w from the same start and advances by max(h, w). Masked-out tokens stand at 1, as in the
// reference. `grids` are consumed in order from `next_grid`. Throws ConfigError when the image tokens do not
// fit the grids.
MropePositions mrope_positions(std::span<const std::int64_t> ids, std::span<const std::int64_t> mask,
                               std::span<const Grid> grids, std::size_t& next_grid,
                               const ModelConfig& config);

struct WindowOrder {
  std::vector<std::int64_t> index;  // merged patch that stands at each place in window order
  std::vector<std::int32_t>
      offsets;  // window boundaries, in patches; ragged windows kept, empty ones dropped
};
WindowOrder window_order(std::span<const Grid> grids, const VisionConfig& config);

// angle of every patch in processor order: rows then columns, each over head_dim / 4 frequencies  (patches x
// head_dim/2)
std::vector<float> patch_angles(std::span<const Grid> grids, const VisionConfig& config);

// which of the three axes rotates each of the head_dim entries
enum class RopeLayout {
  hf,          // sections [t, h, w] over each half of the head: what transformers computes; the default
  contiguous,  // sections [2t, 2h, 2w] over the whole head: what the v1 CUDA extension computed
};
// cos and sin per token and head entry; appends (tokens x head_dim)
void rotary_tables(const MropePositions& positions, const ModelConfig& config, RopeLayout layout,
                   std::vector<float>& cos, std::vector<float>& sin);

}  // namespace wallx
