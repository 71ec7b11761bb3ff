// Variant: the rows.
// SPDX-License-Identifier: Apache-2.0
#include "model/variant.hpp"

namespace wallx {

std::span<const Variant> variants() {
  static constexpr Variant rows[] = {
      {"v1", "wall-oss-flow, wall-oss-fast", false, false, false, false, false,
       "attention, rope_layout, time_grid"},
      {"mot-0.1", "wall-oss-flow-0.1", true, false, false, true, true, "time_scale"},
      {"mot-0.5", "wall-oss-0.5", true, false, true, true, true,
       "state_bins, is_whole_state_told, resolution, camera_labels, has_embodied_prologue"},
      {"mot-adarms", "", true, true, false, true, true, "camera_labels, has_embodied_prologue"},
  };
  return rows;
}

}  // namespace wallx
