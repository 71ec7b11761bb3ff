// Vision: blocks run on patches in window order, so that a window is a run of rows.
// SPDX-License-Identifier: Apache-2.0
#include "model/vision.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace wallx {
namespace {

constexpr float kEps = 1e-6f;  // fixed in the reference, not in config.json

float* sized(std::vector<float>& buffer, std::int64_t size) {
  if (buffer.size() < static_cast<std::size_t>(size)) buffer.resize(static_cast<std::size_t>(size));
  return buffer.data();
}

// The newer reference pads gate, up and down with zeros to a multiple of 128 and fuses the first two; files
// of all kinds are around. What the padding computes is zero.
void take_feed_forward(Weights& weights, const std::string& prefix, const VisionConfig& config,
                       VisionBlock& block) {
  constexpr std::int64_t kPadTo = 128;
  const std::int64_t width = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t padded = (inner + kPadTo - 1) / kPadTo * kPadTo;
  const auto is_padded = [&](const std::string& name, std::size_t axis, std::int64_t parts) {
    const Shape shape = weights.contains(name) ? weights.entry(name).shape : Shape{};
    return axis < shape.size() && shape[axis] == parts * padded;
  };
  const bool is_wide =
      is_padded(prefix + "gate_up_proj.weight", 0, 2) || is_padded(prefix + "gate_proj.weight", 0, 1);
  const std::int64_t rows = is_wide ? padded : inner;
  const std::vector<Linear> halves = weights.take_stacked(
      prefix + "gate_up_proj", {{prefix + "gate_proj", rows}, {prefix + "up_proj", rows}}, width, true);
  block.gate = halves[0];
  block.up = halves[1];
  const bool is_down_wide = is_wide && is_padded(prefix + "down_proj.weight", 1, 1);
  block.down = weights.take_linear(prefix + "down_proj", width, is_down_wide ? padded : inner, true);
  block.gate.out = block.up.out = block.down.in;
}

}  // namespace

Vision::Vision(const VisionConfig& config, Weights& weights) : config_(config) {
  const std::int64_t width = config.hidden_size;
  // the reference's Conv3d with kernel = stride is a product over flattened patches
  patch_embed_.out = width;
  patch_embed_.in = config.patch_width();
  patch_embed_.weight = weights.take(
      "visual.patch_embed.proj.weight",
      {width, config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size});
  for (std::int64_t i = 0; i < config.depth; ++i) {
    const std::string prefix = "visual.blocks." + std::to_string(i) + ".";
    VisionBlock block;
    block.norm1 = weights.take(prefix + "norm1.weight", {width});
    block.norm2 = weights.take(prefix + "norm2.weight", {width});
    block.qkv = weights.take_linear(prefix + "attn.qkv", 3 * width, width, true);
    block.proj = weights.take_linear(prefix + "attn.proj", width, width, true);
    take_feed_forward(weights, prefix + "mlp.", config, block);
    widest_ = std::max(widest_, block.down.in);
    block.is_full_attention =
        std::count(config.full_attention_blocks.begin(), config.full_attention_blocks.end(), i) > 0;
    blocks_.push_back(block);
  }
  const std::int64_t merged = width * config.spatial_merge_size * config.spatial_merge_size;
  merger_norm_ = weights.take("visual.merger.ln_q.weight", {width});
  merger_in_ = weights.take_linear("visual.merger.mlp.0", merged, merged, true);
  merger_out_ = weights.take_linear("visual.merger.mlp.2", config.out_hidden_size, merged, true);
}

void Vision::forward(const float* pixels, std::span<const Grid> grids, VisionWorkspace& work, float* out,
                     Trace* trace) const {
  const std::int64_t width = config_.hidden_size, head_dim = config_.head_dim();
  const std::int64_t unit = config_.spatial_merge_size * config_.spatial_merge_size;
  std::vector<std::int32_t> pictures{0};
  for (const auto& [frames, rows, columns] : grids)
    for (std::int64_t t = 0; t < frames; ++t)
      pictures.push_back(pictures.back() + static_cast<std::int32_t>(rows * columns));
  const std::int64_t patches = pictures.back();
  const WindowOrder windows = window_order(grids, config_);

  float* embedded = sized(work.ordered, patches * width);
  linear(pixels, patches, patch_embed_, Activation::none, nullptr, embedded);
  if (trace) trace->append("vision.patch_embed", embedded, patches, width);

  // to window order; patches that merge into one token stay together
  float* hidden = sized(work.hidden, patches * width);
  const std::vector<float> angles = patch_angles(grids, config_);
  if (trace) trace->append("vision.angles", angles.data(), patches, head_dim / 2);
  work.cos.clear();
  work.sin.clear();
  for (std::size_t i = 0; i < windows.index.size(); ++i) {
    std::copy_n(embedded + windows.index[i] * unit * width, unit * width,
                hidden + static_cast<std::int64_t>(i) * unit * width);
    for (std::int64_t p = 0; p < unit; ++p)
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const std::int64_t at = (windows.index[i] * unit + p) * (head_dim / 2) + d % (head_dim / 2);
        work.cos.push_back(std::cos(angles[static_cast<std::size_t>(at)]));
        work.sin.push_back(std::sin(angles[static_cast<std::size_t>(at)]));
      }
  }

  float* normed = sized(work.normed, patches * width);
  float* qkv = sized(work.qkv, patches * 3 * width);
  float* attended = sized(work.attended, patches * width);
  float* gated = sized(work.gated, patches * widest_);
  float* scores = sized(work.scores, kAttentionRows * patches);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const VisionBlock& block = blocks_[i];
    const std::string name = "vision.blocks." + std::to_string(i);
    rms_norm(hidden, patches, width, block.norm1, kEps, normed);
    linear(normed, patches, block.qkv, Activation::none, nullptr, qkv);
    apply_rotary(qkv, patches, 3 * width, 2 * config_.num_heads, head_dim,
                 {work.cos.data(), work.sin.data()});
    const std::vector<std::int32_t>& segments = block.is_full_attention ? pictures : windows.offsets;
    segment_attention(qkv, segments.data(), static_cast<std::int64_t>(segments.size()) - 1, config_.num_heads,
                      head_dim, scores, attended);
    if (trace) {
      linear(attended, patches, block.proj, Activation::none, nullptr, normed);
      trace->append(name + ".attn", normed, patches, width);
    }
    linear(attended, patches, block.proj, Activation::none, hidden, hidden);
    rms_norm(hidden, patches, width, block.norm2, kEps, normed);
    gated_linear(normed, patches, block.gate, block.up, gated);
    linear(gated, patches, block.down, Activation::none, hidden, hidden);
    if (trace) trace->append(name, hidden, patches, width);
    if (work.pause) work.pause(0);
  }

  rms_norm(hidden, patches, width, merger_norm_, kEps, normed);
  const std::int64_t tokens = patches / unit;
  float* merged = sized(work.merged, tokens * merger_in_.out);
  linear(normed, tokens, merger_in_, Activation::gelu, nullptr, merged);
  float* merged_out = sized(work.merged_out, tokens * merger_out_.out);
  linear(merged, tokens, merger_out_, Activation::none, nullptr, merged_out);
  if (trace) trace->append("vision.merger", merged_out, tokens, merger_out_.out);
  for (std::int64_t i = 0; i < tokens; ++i)
    std::copy_n(merged_out + i * merger_out_.out, merger_out_.out,
                out + windows.index[static_cast<std::size_t>(i)] * merger_out_.out);
  if (trace) trace->append("vision.out", out, tokens, merger_out_.out);
}

}  // namespace wallx
