// Vision: blocks run on patches in window order, so that a window is a run of rows.
// SPDX-License-Identifier: Apache-2.0
#include "model/vision.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace wallx {
namespace {

constexpr float kEps = 1e-6f;  // fixed in the reference, not in config.json

// The newer reference pads gate, up and down with zeros to a multiple of 128 and fuses the first two; files
// of all kinds are around. What the padding computes is zero.
void take_feed_forward(Layers& layers, const std::string& prefix, const VisionConfig& config,
                       VisionBlock& block) {
  constexpr std::int64_t kPadTo = 128;
  const std::int64_t width = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t padded = (inner + kPadTo - 1) / kPadTo * kPadTo;
  const Weights& weights = layers.weights();
  const Format format = layers.precision().vision;
  const auto is_padded = [&](const std::string& name, std::size_t axis, std::int64_t parts) {
    const Shape shape = weights.contains(name) ? weights.entry(name).shape : Shape{};
    return axis < shape.size() && shape[axis] == parts * padded;
  };
  const bool is_wide =
      is_padded(prefix + "gate_up_proj.weight", 0, 2) || is_padded(prefix + "gate_proj.weight", 0, 1);
  const bool is_down_wide = is_wide && is_padded(prefix + "down_proj.weight", 1, 1);
  std::int64_t used = is_down_wide ? padded : inner;
  if (const std::string panels = prefix + "down_proj.panels"; weights.contains(panels)) {
    // packed layers keep what was used, and only that
    const Shape& shape = weights.entry(panels).shape;
    if (shape.size() == 4 && shape[1] * shape[3] == padded) used = padded;
  }
  block.gate_up = layers.gated(prefix + "gate_up_proj", prefix + "gate_proj", prefix + "up_proj",
                               is_wide ? padded : inner, used, width, true, format);
  block.down = layers.linear(prefix + "down_proj", width, used, true, format);
}

}  // namespace

Vision::Vision(const VisionConfig& config, Layers& layers, std::shared_ptr<Backend> backend)
    : config_(config), backend_(std::move(backend)), cache_(layers.precision().cache) {
  const std::int64_t width = config.hidden_size;
  const Format format = layers.precision().vision;
  // the reference's Conv3d with kernel = stride is a product over flattened patches
  patch_embed_ = layers.flat(
      "visual.patch_embed.proj.weight",
      {width, config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size},
      layers.precision().edge);
  for (std::int64_t i = 0; i < config.depth; ++i) {
    const std::string prefix = "visual.blocks." + std::to_string(i) + ".";
    VisionBlock block;
    block.norm1 = layers.vector(prefix + "norm1.weight", {width});
    block.norm2 = layers.vector(prefix + "norm2.weight", {width});
    block.qkv = layers.linear(prefix + "attn.qkv", 3 * width, width, true, format);
    block.proj = layers.linear(prefix + "attn.proj", width, width, true, format);
    take_feed_forward(layers, prefix + "mlp.", config, block);
    block.is_full_attention =
        std::count(config.full_attention_blocks.begin(), config.full_attention_blocks.end(), i) > 0;
    blocks_.push_back(block);
  }
  const std::int64_t merged = width * config.spatial_merge_size * config.spatial_merge_size;
  merger_norm_ = layers.vector("visual.merger.ln_q.weight", {width});
  merger_in_ = layers.linear("visual.merger.mlp.0", merged, merged, true, format);
  merger_out_ = layers.linear("visual.merger.mlp.2", config.out_hidden_size, merged, true, format);
}

void Vision::forward(const float* pixels, std::span<const Grid> grids, VisionWorkspace& work, float* out,
                     Trace* trace) const {
  Backend& backend = *backend_;
  Stream& stream = *work.stream;
  const std::int64_t width = config_.hidden_size, head_dim = config_.head_dim();
  const std::int64_t unit = config_.spatial_merge_size * config_.spatial_merge_size;
  std::vector<std::int32_t> pictures{0};
  for (const auto& [frames, rows, columns] : grids)
    for (std::int64_t t = 0; t < frames; ++t)
      pictures.push_back(pictures.back() + static_cast<std::int32_t>(rows * columns));
  const std::int64_t patches = pictures.back();
  const WindowOrder windows = window_order(grids, config_);
  const auto record = [&](const std::string& name, const float* data, std::int64_t rows,
                          std::int64_t columns) {
    if (trace) trace->append(name, backend, stream, data, rows, columns);
  };
  // x as rows for a product with `layer`
  const auto as_rows = [&](const float* x, std::int64_t rows, const Norm& norm, const Linear& layer) {
    const Rows out_rows = reserve_rows(backend, work.rows, row_format(layer.format), rows, layer.in);
    backend.norm(stream, x, norm, out_rows);
    return out_rows;
  };

  const std::int64_t num_pixels = patches * config_.patch_width();
  float* device_pixels = reserve(backend, work.pixels, num_pixels);
  backend.upload(stream, pixels, device_pixels, static_cast<std::size_t>(num_pixels) * sizeof(float));
  float* embedded =
      reserve(backend, work.embedded, std::max(patches * width, patches / unit * merger_out_.out));
  backend.product(stream, as_rows(device_pixels, patches, {}, patch_embed_), patch_embed_, {}, embedded);
  record("vision.patch_embed", embedded, patches, width);

  // to window order; patches that merge into one token stay together
  float* hidden = reserve(backend, work.hidden, patches * width);
  const std::vector<float> angles = patch_angles(grids, config_);
  if (trace) trace->append("vision.angles", angles.data(), patches, head_dim / 2);
  std::vector<float> cos, sin;
  const auto unit_bytes = static_cast<std::size_t>(unit * width) * sizeof(float);
  for (std::size_t i = 0; i < windows.index.size(); ++i) {
    backend.copy(stream, embedded + windows.index[i] * unit * width,
                 hidden + static_cast<std::int64_t>(i) * unit * width, unit_bytes);
    for (std::int64_t p = 0; p < unit; ++p) {
      const auto at = static_cast<std::size_t>((windows.index[i] * unit + p) * (head_dim / 2));
      for (int half = 0; half < 2; ++half)
        for (std::size_t d = at; d < at + static_cast<std::size_t>(head_dim / 2); ++d) {
          cos.push_back(std::cos(angles[d]));
          sin.push_back(std::sin(angles[d]));
        }
    }
  }
  const Rotary rotary{reserve(backend, work.cos, patches * head_dim),
                      reserve(backend, work.sin, patches * head_dim)};
  backend.upload(stream, cos.data(), work.cos.as(), cos.size() * sizeof(float));
  backend.upload(stream, sin.data(), work.sin.as(), sin.size() * sizeof(float));

  float* qkv = reserve(backend, work.qkv, patches * 3 * width);
  const AttentionShape shape{patches, config_.num_heads, config_.num_heads, head_dim};
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const VisionBlock& block = blocks_[i];
    const std::string name = "vision.blocks." + std::to_string(i);
    backend.product(stream,
                    as_rows(hidden, patches, {Norm::Kind::rms, block.norm1, nullptr, kEps}, block.qkv),
                    block.qkv, {}, qkv);
    const std::vector<std::int32_t>& segments = block.is_full_attention ? pictures : windows.offsets;
    const Rows attended = reserve_rows(backend, work.rows, row_format(block.proj.format), patches, width);
    backend.window_attention(stream, qkv, shape, rotary, cache_, segments, attended);
    if (trace) {
      backend.product(stream, attended, block.proj, {}, embedded);
      record(name + ".attn", embedded, patches, width);
    }
    Epilogue add;
    add.residual = hidden;
    backend.product(stream, attended, block.proj, add, hidden);
    const Rows normed =
        as_rows(hidden, patches, {Norm::Kind::rms, block.norm2, nullptr, kEps}, block.gate_up.gate);
    const Rows gated =
        reserve_rows(backend, work.gated, row_format(block.down.format), patches, block.gate_up.out);
    backend.gated_product(stream, normed, block.gate_up, gated);
    if (trace) {
      backend.product(stream, gated, block.down, {}, embedded);
      record(name + ".mlp", embedded, patches, width);
    }
    backend.product(stream, gated, block.down, add, hidden);
    record(name, hidden, patches, width);
    if (work.pause) work.pause(0);
  }

  // four neighbours are one row of the merger
  const std::int64_t tokens = patches / unit;
  const Rows normed = reserve_rows(backend, work.gated, Format::f32, patches, width);
  backend.norm(stream, hidden, {Norm::Kind::rms, merger_norm_, nullptr, kEps}, normed);
  float* merged = reserve(backend, work.merged, tokens * merger_in_.out);
  backend.product(stream, as_rows(static_cast<const float*>(normed.data), tokens, {}, merger_in_), merger_in_,
                  {.activation = Activation::gelu}, merged);
  backend.product(stream, as_rows(merged, tokens, {}, merger_out_), merger_out_, {}, embedded);
  record("vision.merger", embedded, tokens, merger_out_.out);
  for (std::int64_t i = 0; i < tokens; ++i)
    backend.copy(stream, embedded + i * merger_out_.out,
                 out + windows.index[static_cast<std::size_t>(i)] * merger_out_.out,
                 static_cast<std::size_t>(merger_out_.out) * sizeof(float));
  backend.synchronize(stream);
  record("vision.out", out, tokens, merger_out_.out);
}

}  // namespace wallx
