// Op: the operations' names, and their buffers.
// SPDX-License-Identifier: Apache-2.0
#include "backend/op.hpp"

#include <algorithm>

namespace wallx::test {
namespace {

// every operation draws its numbers anew, the same ones on every backend
constexpr unsigned kSeed = 20;

std::string text(std::int64_t value) { return std::to_string(value); }

std::string to_text(Format format, Format to) {
  return std::string(" ") + name_of(format) + (to == Format::f32 ? "" : std::string(" to ") + name_of(to));
}

struct Tables {
  Floats cos, sin;
};

Tables turns(std::mt19937& random, std::int64_t rows, std::int64_t dim, bool is_right_angled) {
  Tables tables;
  for (std::int64_t i = 0; i < rows * dim; ++i) {
    const auto quarter = static_cast<int>(random() % 4);
    const float angle = 3 * (static_cast<float>(random() >> 8) * 0x1p-23f - 1);
    constexpr float kCos[] = {1, 0, -1, 0};
    tables.cos.push_back(is_right_angled ? kCos[quarter] : std::cos(angle));
    tables.sin.push_back(is_right_angled ? kCos[(quarter + 3) % 4] : std::sin(angle));
  }
  return tables;
}

Floats random_qkv(std::mt19937& random, std::int64_t size, float scale) {
  Floats values = random_floats(random, size, scale);
  for (float& v : values) v = float_of_bf16(bf16_of(v));
  return values;
}

}  // namespace

std::string ProductOp::name() const {
  return text(rows) + "x" + text(in) + "->" + text(out) + " " + name_of(format) + " activation " +
         text(static_cast<int>(activation)) + (has_bias ? " bias" : "") + (has_gate ? " gate" : "") +
         (residual == Residue::separate   ? " residual"
          : residual == Residue::in_place ? " residual in place"
                                          : "") +
         (gap ? " gap " + text(gap) : "");
}

Ready ProductOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const Rows x = device->rows(row_format(format), exact_rows(random, format, rows, in), in);
  const Floats weight = random_floats(random, out * in, 1 / std::sqrt(static_cast<float>(in)));
  const Floats bias = has_bias ? random_floats(random, out) : Floats();
  const Linear layer = device->layer(format, out, in, weight, bias);
  Epilogue epilogue;
  epilogue.activation = activation;
  if (has_gate) epilogue.gate = device->put(random_floats(random, out, 2.0f));
  const std::int64_t stride = out + gap, residual_stride = out + 3 * gap;
  // around and between the columns of y nobody may write
  Floats before(static_cast<std::size_t>(rows * stride + 7), kSentinel);
  if (residual == Residue::in_place)
    for (std::int64_t i = 0; i < rows * stride; ++i)
      if (i % stride < out) before[static_cast<std::size_t>(i)] = random_floats(random, 1)[0];
  float* y = device->put(before);
  if (residual == Residue::separate) {
    epilogue.residual = device->put(random_floats(random, rows * residual_stride));
    epilogue.residual_stride = residual_stride;
  } else if (residual == Residue::in_place) {
    epilogue.residual = y;
    epilogue.residual_stride = stride;
  }
  return {[=] { device->backend.product(*device->stream, x, layer, epilogue, y, stride); },
          [device, y, stride, size = std::ssize(before), columns = out, count = rows] {
            Floats found;
            const Floats all = device->get(y, size);
            for (std::int64_t i = 0; i < size; ++i)
              if (i < count * stride && i % stride < columns) {
                found.push_back(all[static_cast<std::size_t>(i)]);
              } else {
                CHECK_EQ(all[static_cast<std::size_t>(i)], kSentinel);
              }
            return found;
          }};
}

std::string GatedOp::name() const {
  return text(rows) + "x" + text(in) + "->" + text(out) + to_text(format, to) + (has_bias ? " bias" : "");
}

GatedOp GatedOp::exact() const {
  GatedOp op = *this;
  op.to = Format::f32;
  return op;
}

Ready GatedOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const Rows x = device->rows(row_format(format), exact_rows(random, format, rows, in), in);
  const Floats weight = random_floats(random, 2 * out * in, 2 / std::sqrt(static_cast<float>(in)));
  const Floats bias = has_bias ? random_floats(random, 2 * out) : Floats();
  const GatedLinear layer = device->gated(format, out, in, weight, bias);
  const Rows y = device->rows(to, rows, out);
  return {[=] { device->backend.gated_product(*device->stream, x, layer, y); },
          [=] { return device->get(y); }};
}

std::string NormOp::name() const {
  constexpr const char* kNames[] = {"none", "rms", "adaptive"};
  return text(rows) + "x" + text(width) + " " + kNames[static_cast<int>(kind)] + to_text(Format::f32, to);
}

NormOp NormOp::exact() const {
  NormOp op = *this;
  op.to = Format::f32;
  return op;
}

Ready NormOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const float* x = device->put(random_floats(random, rows * width, scale));
  Norm norm;
  norm.kind = kind;
  norm.eps = 1e-6f;
  norm.weight = device->put(random_floats(random, width));
  norm.modulation = device->put(random_floats(random, 2 * width, 2.0f));
  const Rows y = device->rows(to, rows, width);
  return {[=] { device->backend.norm(*device->stream, x, norm, y); }, [=] { return device->get(y); }};
}

std::string CacheOp::name() const {
  std::string parts;
  for (const std::int64_t length : segments) {
    if (!parts.empty()) parts += '+';
    parts += text(length);
  }
  return text(rows) + " rows over " + parts + ", heads " + text(num_heads) + "/" + text(num_kv_heads) +
         " x " + text(head_dim) + (is_causal ? " causal" : " block") + to_text(format, to) +
         (is_right_angled ? "" : " turned") + (is_of_rotation ? ", rotation" : "");
}

CacheOp CacheOp::exact() const {
  CacheOp op = *this;
  op.to = Format::f32;
  return op;
}

double CacheOp::work() const {
  std::int64_t length = 0;
  for (const std::int64_t one : segments) length += one;
  return 4e-9 * static_cast<double>(rows * num_heads * head_dim * length);
}

Ready CacheOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const std::int64_t stride = (num_heads + 2 * num_kv_heads) * head_dim;
  // the next `count` tokens of a segment from `position` on; returns their qkv, rotated
  const auto append = [&](const CacheSegment& segment, std::int64_t position, std::int64_t count,
                          bool is_stale) {
    Floats qkv = random_qkv(random, count * stride, scale);
    if (is_stale) std::fill(qkv.begin(), qkv.end(), std::numeric_limits<float>::quiet_NaN());
    const Tables tables = turns(random, count, head_dim, is_right_angled);
    float* rotated = device->put(qkv);
    device->backend.rotate_and_cache(*device->stream, rotated, {count, num_heads, num_kv_heads, head_dim},
                                     {device->put(tables.cos), device->put(tables.sin)}, format, position,
                                     segment);
    return rotated;
  };
  std::vector<CacheSegment> parts;
  float* qkv = nullptr;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const bool is_last = s + 1 == segments.size();
    const std::int64_t length = segments[s], before = is_last ? length - rows : length;
    CacheSegment segment;
    segment.capacity = round_up(length + 5, kCacheTokens);
    segment.length = length;
    segment.data = device->room(backend.cache_bytes(format, num_kv_heads, head_dim, segment.capacity));
    // tokens that were forgotten must not matter, whatever they were
    append(segment, 0, segment.capacity, true);
    for (std::int64_t at = 0; at < before;) {
      const std::int64_t count =
          std::min<std::int64_t>(before - at, static_cast<std::int64_t>(random() % 9 + 1));
      append(segment, at, count, false);
      at += count;
    }
    if (is_last) qkv = append(segment, before, rows, false);
    parts.push_back(segment);
  }
  const Rows y = device->rows(to, rows, num_heads * head_dim);
  const AttentionShape shape{rows, num_heads, num_kv_heads, head_dim};
  const CacheOp op = *this;
  return {[=] {
            device->backend.cache_attention(*device->stream, qkv, shape, op.is_causal, op.format, parts, y);
          },
          [=] { return op.is_of_rotation ? device->get(qkv, shape.rows * stride) : device->get(y); }};
}

std::string WindowOp::name() const {
  return text(std::ssize(offsets) - 1) + " windows of " + text(offsets.back()) + " rows, heads " +
         text(num_heads) + " x " + text(head_dim) + to_text(format, to) + (is_right_angled ? "" : " turned");
}

WindowOp WindowOp::exact() const {
  WindowOp op = *this;
  op.to = Format::f32;
  return op;
}

double WindowOp::work() const {
  double total = 0;
  for (std::size_t w = 1; w < offsets.size(); ++w)
    total += std::pow(static_cast<double>(offsets[w] - offsets[w - 1]), 2);
  return 4e-9 * total * static_cast<double>(num_heads * head_dim);
}

Ready WindowOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const std::int64_t rows = offsets.back(), width = num_heads * head_dim;
  const Floats qkv = random_qkv(random, rows * 3 * width, 1.0f);
  const Tables tables = turns(random, rows, head_dim, is_right_angled);
  const Rotary rotary{device->put(tables.cos), device->put(tables.sin)};
  const float* given = device->put(qkv);
  float* work = device->put(qkv);
  const Rows y = device->rows(to, rows, width);
  const WindowOp op = *this;
  return {[=, bytes = qkv.size() * sizeof(float)] {
            // the operation changes its input
            device->backend.copy(*device->stream, given, work, bytes);
            device->backend.window_attention(*device->stream, work,
                                             {rows, op.num_heads, op.num_heads, op.head_dim}, rotary,
                                             op.format, op.offsets, y);
          },
          [=] { return device->get(y); }};
}

std::string EulerOp::name() const {
  return text(rows) + "x" + text(dim) + (has_padding ? " padding" : "") +
         (does_predict_actions ? " actions" : "") + (gap ? " gap " + text(gap) : "") + " at " +
         std::to_string(time);
}

Ready EulerOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  EulerStep step;
  step.rows = rows;
  step.dim = dim;
  step.x_stride = dim + gap;
  step.x = device->put(random_floats(random, rows * step.x_stride + 1));
  step.velocity = device->put(random_floats(random, rows * dim));
  step.noise = device->put(random_floats(random, rows * dim));
  Floats mask = random_floats(random, rows * dim);
  for (float& one : mask) one = one < 0 ? 0.0f : 1.0f;
  step.mask = device->put(mask);
  if (has_padding) step.padding = device->put(random_floats(random, dim));
  step.does_predict_actions = does_predict_actions;
  step.time = time;
  step.dt = 0.1f;
  return {[=] { device->backend.euler(*device->stream, step); },
          [=] {
            Floats found = device->get(step.x, step.rows * step.x_stride + 1);
            const Floats velocity = device->get(step.velocity, step.rows * step.dim);
            found.insert(found.end(), velocity.begin(), velocity.end());
            return found;
          }};
}

std::string EmbedOp::name() const {
  return text(std::ssize(ids)) + " ids of " + text(width) + " " + name_of(format);
}

Ready EmbedOp::on(Backend& backend) const {
  std::mt19937 random(kSeed);
  auto device = std::make_shared<Device>(backend);
  const std::int64_t count = 1 + *std::max_element(ids.begin(), ids.end());
  const Floats table = random_floats(random, count * width);
  const void* at = nullptr;
  if (format == Format::f32) {
    at = device->put(table);
  } else {
    std::vector<std::uint16_t> halves;
    for (const float v : table) halves.push_back(bf16_of(v));
    at = device->put(halves);
  }
  float* y = device->put(Floats(ids.size() * static_cast<std::size_t>(width) + 1, kSentinel));
  const EmbedOp op = *this;
  return {[=] { device->backend.embed(*device->stream, op.ids, op.format, at, op.width, y); },
          [=] { return device->get(y, std::ssize(op.ids) * op.width + 1); }};  // the sentinel too
}

}  // namespace wallx::test
