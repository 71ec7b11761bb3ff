// Variant: the rows.
// SPDX-License-Identifier: Apache-2.0
#include "model/variant.hpp"

namespace wallx {

std::span<const Variant> variants() {
  static constexpr Variant rows[] = {
      {"v1", "wall-oss-flow, wall-oss-fast", false, false, false, false, false,
       "attention among action tokens: bidirectional (denoise: attention='causal'); rope of pictures: hf "
       "(Context: rope_layout='contiguous'); the first release took one Euler step less (denoise: "
       "time_grid='legacy')"},
      {"mot-0.1", "wall-oss-flow-0.1", true, false, false, true, true,
       "end of the flow: noise_scheduler.s as in the newer reference (denoise: time_scale=1 as in the "
       "older)"},
      {"mot-0.5", "wall-oss-0.5", true, false, true, true, true,
       "bins of the state: not in config.json, the prompt's side decides; slots of action and state: not in "
       "config.json (Engine.load: dof, agent_pos)"},
      {"mot-adarms", "", true, true, false, true, true, "state: as use_state_string_representation says"},
  };
  return rows;
}

}  // namespace wallx
