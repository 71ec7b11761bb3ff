// Vision: the Qwen2.5-VL tower, from patch rows to language-width tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.hpp"
#include "model/config.hpp"
#include "model/layers.hpp"
#include "model/pause.hpp"
#include "model/positions.hpp"
#include "model/trace.hpp"

namespace wallx {

struct VisionBlock {
  const float* norm1 = nullptr;
  const float* norm2 = nullptr;
  Linear qkv, proj, down;
  GatedLinear gate_up;
  bool is_full_attention = false;  // over the whole picture instead of its windows
};

// buffers of one caller; grow to the largest picture set seen and stay
struct VisionWorkspace {
  std::shared_ptr<Stream> stream;  // the context's
  Memory pixels, embedded, hidden, rows, gated, qkv, merged, cos, sin;
  Pause pause;  // after each block
};

class Vision {
 public:
  Vision(const VisionConfig& config, Layers& layers, std::shared_ptr<Backend> backend);

  // pixels on the host (patches x patch_width) in processor order -> out on the device (patches / merge^2 x
  // out_hidden_size) in picture order
  void forward(const float* pixels, std::span<const Grid> grids, VisionWorkspace& work, float* out,
               Trace* trace) const;

 private:
  VisionConfig config_;
  std::shared_ptr<Backend> backend_;
  Linear patch_embed_;
  std::vector<VisionBlock> blocks_;
  Format cache_;  // of keys and values
  const float* merger_norm_ = nullptr;
  Linear merger_in_, merger_out_;
};

}  // namespace wallx
