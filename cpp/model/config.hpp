// ModelConfig: what a checkpoint's config.json says about the network; every dimension comes from here.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace wallx {

using Slots = std::vector<std::pair<std::string, std::int64_t>>;  // name, width; in model order

struct VisionConfig {
  std::int64_t depth = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t in_channels = 0;
  std::int64_t patch_size = 0;           // [px]
  std::int64_t temporal_patch_size = 0;  // [frames]
  std::int64_t spatial_merge_size = 0;   // patches per side of one language token
  std::int64_t window_size = 0;          // [px]
  std::int64_t out_hidden_size = 0;
  std::vector<std::int64_t> full_attention_blocks;

  std::int64_t head_dim() const { return hidden_size / num_heads; }
  std::int64_t patch_width() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
};

struct ModelConfig {
  std::string architecture;  // our name of the variant, a row of model/variant.hpp
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  float rms_norm_eps = 0;
  double rope_theta = 0;
  std::vector<std::int64_t> mrope_section;  // halves of head_dim rotated by time, height, width
  bool is_head_tied = false;                // the output head is the embedding
  std::vector<std::int64_t> expert_widths;  // residual stream of expert 0 (text: hidden_size) and 1 (action)
  std::vector<std::int64_t> expert_sizes;   // feed-forward width of expert 0 (text) and 1 (action)
  std::int64_t action_width = 0;            // of the action head; the rest of the action stream is zero
  std::int64_t state_width = 0;             // of the state's projection; the rest of its token is zero
  std::int64_t condition_width = 0;         // of the time's embedding that adaptive norms follow; 0: none
  bool has_expert_attention = false;        // attention and norms per expert
  bool has_adaptive_norms = false;          // the action expert's norms follow the flow's time
  bool is_state_text = false;               // the state is text in the prompt; there is no state token
  bool is_action_causal = false;            // the checkpoint's own attention among action tokens
  bool does_project_mask = true;            // the action projection also takes the mask
  bool does_predict_actions = false;        // the head gives the clean action, not its velocity
  bool does_pad_masked_dims = false;        // dims that are not in use move straight to the normalised zero
  float time_scale = 1;                     // the flow's last time point
  float time_shift = 1;                     // k of k t / (1 + (k - 1) t); 1: evenly spaced steps
  std::int64_t image_token_id = 0;
  std::int64_t video_token_id = 0;
  std::int64_t vision_start_token_id = 0;
  VisionConfig vision;
  Slots dof;        // slots of the action vector; empty where config.json has none and the caller gave none
  Slots agent_pos;  // slots of the state vector; likewise
  std::int64_t horizon = 0;               // rows of a chunk that config.json names; 0: it names none
  std::vector<std::string> unknown_keys;  // in config.json, not known to this version; reported, not refused

  std::int64_t action_dim() const;
  std::int64_t state_dim() const;

  // Reads DIR/config.json. `dof_given` and `agent_pos_given`, where not empty, stand in for its slots:
  // wall-oss-0.5 has them elsewhere. `is_state_text_given` overrules use_state_string_representation. Throws
  // CheckpointError: absent, not JSON, a key missing or impossible, flags that no variant has, an unknown
  // architecture. ConfigError: impossible slots given.
  static ModelConfig load(const std::string& directory, const Slots& dof_given = {},
                          const Slots& agent_pos_given = {}, std::optional<bool> is_state_text_given = {});
};

}  // namespace wallx
