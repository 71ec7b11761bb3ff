// Variant: the one table of the network's published forms: what each is called, what sets it apart.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace wallx {

struct Variant {
  std::string_view name;         // ModelConfig::architecture
  std::string_view checkpoints;  // published under these names; empty: none is known
  bool has_expert_attention;     // attention and norms per expert ("mixture of transformers")
  bool has_adaptive_norms;       // the action expert's norms follow the flow's time
  bool is_state_text;            // the state stands in the prompt as bin numbers, not as a token
  bool is_time_scaled;           // the flow ends at noise_scheduler.s instead of 1
  bool does_pad_masked_dims;     // dims that are not in use move straight to the normalised zero
  std::string_view
      open_choices;  // what the reference leaves ambiguous: keys of the policy's settings, with commas
};

// Every variant that runs, in the order in which they were published.
std::span<const Variant> variants();

}  // namespace wallx
