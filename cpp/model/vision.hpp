// Vision: the Qwen2.5-VL tower, from patch rows to language-width tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "backend/ops.hpp"
#include "model/config.hpp"
#include "model/pause.hpp"
#include "model/positions.hpp"
#include "model/trace.hpp"
#include "model/weights.hpp"

namespace wallx {

struct VisionBlock {
  const float* norm1 = nullptr;
  const float* norm2 = nullptr;
  Linear qkv, proj, gate, up, down;
  bool is_full_attention = false;  // over the whole picture instead of its windows
};

// buffers of one caller; grow to the largest picture set seen and stay
struct VisionWorkspace {
  std::vector<float> hidden, ordered, normed, qkv, attended, gated, scores, merged, merged_out;
  std::vector<float> cos, sin;
  Pause pause;  // after each block
};

class Vision {
 public:
  Vision(const VisionConfig& config, Weights& weights);

  // pixels (patches x patch_width) in processor order -> out (patches / merge^2 x out_hidden_size) in picture
  // order
  void forward(const float* pixels, std::span<const Grid> grids, VisionWorkspace& work, float* out,
               Trace* trace) const;

 private:
  VisionConfig config_;
  Linear patch_embed_;
  std::vector<VisionBlock> blocks_;
  std::int64_t widest_ = 0;  // of the feed-forwards, padding included
  const float* merger_norm_ = nullptr;
  Linear merger_in_, merger_out_;
};

}  // namespace wallx
