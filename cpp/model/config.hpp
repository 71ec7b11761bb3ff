// ModelConfig: what a checkpoint's config.json says about the network; every dimension comes from here.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
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
  std::string architecture;  // our name of the variant: "v1" (wall-oss-flow, wall-oss-fast)
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  float rms_norm_eps = 0;
  double rope_theta = 0;
  std::vector<std::int64_t> mrope_section;  // halves of head_dim rotated by time, height, width
  bool is_head_tied = false;                // the output head is the embedding
  std::vector<std::int64_t> expert_sizes;   // feed-forward width of expert 0 (text) and 1 (action)
  std::int64_t image_token_id = 0;
  std::int64_t video_token_id = 0;
  std::int64_t vision_start_token_id = 0;
  VisionConfig vision;
  Slots dof;                              // slots of the action vector
  Slots agent_pos;                        // slots of the state vector
  std::vector<std::string> unknown_keys;  // in config.json, not known to this version; reported, not refused

  std::int64_t action_dim() const;
  std::int64_t state_dim() const;

  // Reads DIR/config.json. Throws CheckpointError: absent, not JSON, a key missing or impossible, a variant
  // that this version does not run (named), an unknown architecture.
  static ModelConfig load(const std::string& directory);
};

}  // namespace wallx
