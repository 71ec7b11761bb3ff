// Layers: from tensors by name to layers that the backend can compute.
// SPDX-License-Identifier: Apache-2.0
#include "model/layers.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/errors.hpp"

namespace wallx {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

Shape panels_shape(Format format, std::int64_t panels, std::int64_t in) {
  const std::int64_t group = format == Format::bf16 ? 2 : 4;
  return {panels, round_up(in, kDepth) / group, kPanel, group};
}

bool has_scale(Format format) { return format == Format::int8 || format == Format::w8; }

void run_job(const PackJob& job, const PackTarget& target) {
  const std::int64_t count = num_panels(job.source);
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t i = next++; i < count; i = next++) pack_panel(job.source, job.format, i, target);
  };
  std::vector<std::thread> helpers;
  // starting a thread costs as much as packing some hundred thousand weights
  const std::int64_t most = std::min<std::int64_t>(std::thread::hardware_concurrency(), job.panels_bytes() >> 18);
  for (std::int64_t i = 1; i < most; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  for (const TensorEntry* entry : job.entries) SafetensorsFile::drop_pages(entry->data, entry->num_bytes);
}

const TensorEntry* Layers::source(const std::string& name, const Shape& shape) {
  return &weights_.floats(name, shape);
}

Layers::Part Layers::part(const std::string& prefix, std::int64_t rows, std::int64_t columns, bool has_bias) {
  Part part;
  part.weight = source(prefix + ".weight", {rows, columns});
  if (has_bias) part.bias = source(prefix + ".bias", {rows});
  part.rows = rows;
  part.columns = columns;
  return part;
}

const void* Layers::to_device(const void* host, std::size_t bytes) {
  if (backend_.shares_host_memory()) return host;
  memory_.push_back(backend_.allocate(bytes));
  backend_.upload(*backend_.make_stream(), host, memory_.back().as<void>(), bytes);
  return memory_.back().as<void>();
}

const float* Layers::vector(const std::string& name, const Shape& shape) {
  if (plan_) {
    source(name, shape);
    plan_->copies.emplace_back(name, Format::f32);
    return nullptr;
  }
  return static_cast<const float*>(
      to_device(weights_.take(name, shape), static_cast<std::size_t>(num_elements(shape)) * sizeof(float)));
}

// a tensor of a quantized folder, where it lies or, where that is not aligned, in a copy
const void* Layers::map(const std::string& name, Dtype dtype, const Shape& shape) {
  const TensorEntry& entry = weights_.entry(name);
  if (entry.dtype != dtype || entry.shape != shape)
    throw CheckpointError("tensor " + name + ": expected " + to_string(dtype) + " " + to_string(shape) + ", found " +
                          to_string(entry.dtype) + " " + to_string(entry.shape));
  weights_.skip(name);
  if (reinterpret_cast<std::uintptr_t>(entry.data) % kAlignment == 0) {
    mapped_bytes_ += entry.num_bytes;
    return to_device(entry.data, entry.num_bytes);
  }
  packed_bytes_ += entry.num_bytes;
  memory_.push_back(backend_.allocate(entry.num_bytes));
  backend_.upload(*backend_.make_stream(), entry.data, memory_.back().as<void>(), entry.num_bytes);
  return memory_.back().as<void>();
}

Linear Layers::map(const std::string& name, std::int64_t out, std::int64_t in, bool is_gated, bool has_bias,
                   Format format) {
  // a recipe may have left this one 16-bit
  if (has_scale(format) && weights_.entry(name + ".panels").dtype == Dtype::bf16) format = Format::bf16;
  Linear layer;
  layer.format = format;
  layer.out = out;
  layer.in = in;
  const std::int64_t columns = is_gated ? padded_gated_outputs(out / 2) : padded_outputs(out);
  layer.weight = map(name + ".panels", format == Format::bf16 ? Dtype::bf16 : Dtype::i8,
                     panels_shape(format, columns / kPanel, in));
  if (has_scale(format)) {
    layer.scale = static_cast<const float*>(map(name + ".scale", Dtype::f32, {columns}));
    layer.offset = static_cast<const std::int32_t*>(map(name + ".offset", Dtype::i32, {columns}));
  }
  if (has_bias) layer.bias = static_cast<const float*>(map(name + ".bias", Dtype::f32, {columns}));
  return layer;
}

Linear Layers::pack(const std::string& name, const std::vector<Part>& parts, std::int64_t in, bool is_gated,
                    Format format) {
  const auto matches = [&](const std::string& pattern) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; };
  if (plan_ && has_scale(format) && std::ranges::any_of(plan_->wide, matches)) format = Format::bf16;
  PackJob job;
  job.name = name;
  job.format = format;
  job.has_bias = parts.front().bias != nullptr;
  job.source.in = in;
  job.source.is_gated = is_gated;
  for (const Part& part : parts) {
    job.source.out += part.rows;
    if (std::ranges::find(job.entries, part.weight) == job.entries.end()) job.entries.push_back(part.weight);
  }
  const auto locate = [parts](std::int64_t row) {
    auto part = parts.begin();
    while (row >= part->rows) row -= (part++)->rows;
    return std::pair(*part, row + part->first_row);
  };
  job.source.read_row = [locate, in](std::int64_t row, float* to) {
    const auto [part, at] = locate(row);
    const std::int64_t begin = at * part.columns + part.first_column;
    convert(*part.weight, static_cast<std::size_t>(begin), static_cast<std::size_t>(begin + in), to);
  };
  if (job.has_bias)
    job.source.read_bias = [locate](std::int64_t row) {
      const auto [part, at] = locate(row);
      float value = 0;
      convert(*part.bias, static_cast<std::size_t>(at), static_cast<std::size_t>(at) + 1, &value);
      return value;
    };

  Linear layer;
  layer.format = format;
  layer.out = job.source.out;
  layer.in = in;
  if (plan_) {
    plan_->packs.push_back(std::move(job));
    return layer;
  }
  const std::int64_t columns = num_panels(job.source) * kPanel;
  const std::int64_t vector_bytes = round_up(columns * 4, 64);
  const std::int64_t panels = job.panels_bytes();
  const auto bytes = static_cast<std::size_t>(panels + 3 * vector_bytes);
  Memory host;
  std::byte* at = nullptr;
  Memory device = backend_.allocate(bytes);
  std::vector<std::byte> staging;
  if (backend_.shares_host_memory()) {
    at = device.as<std::byte>();
  } else {
    staging.resize(bytes);
    at = staging.data();
  }
  PackTarget target;
  target.panels = at;
  if (has_scale(format)) {
    target.scale = reinterpret_cast<float*>(at + panels);
    target.offset = reinterpret_cast<std::int32_t*>(at + panels + vector_bytes);
  }
  if (job.has_bias) target.bias = reinterpret_cast<float*>(at + panels + 2 * vector_bytes);
  run_job(job, target);
  if (!staging.empty()) backend_.upload(*backend_.make_stream(), staging.data(), device.as<void>(), bytes);
  auto* base = device.as<std::byte>();
  layer.weight = base;
  if (target.scale) layer.scale = reinterpret_cast<const float*>(base + panels);
  if (target.offset) layer.offset = reinterpret_cast<const std::int32_t*>(base + panels + vector_bytes);
  if (target.bias) layer.bias = reinterpret_cast<const float*>(base + panels + 2 * vector_bytes);
  packed_bytes_ += bytes;
  memory_.push_back(std::move(device));
  return layer;
}

Linear Layers::linear(const std::string& prefix, std::int64_t out, std::int64_t in, bool has_bias,
                      Format format) {
  if (format == Format::f32) {
    Linear layer = flat(prefix + ".weight", {out, in}, format);
    if (has_bias) layer.bias = vector(prefix + ".bias", {out});
    return layer;
  }
  if (is_packed(prefix)) return map(prefix, out, in, false, has_bias, format);
  return pack(prefix, {part(prefix, out, in, has_bias)}, in, false, format);
}

Linear Layers::flat(const std::string& name, const Shape& shape, Format format) {
  Linear layer;
  layer.out = shape.front();
  layer.in = num_elements(shape) / std::max<std::int64_t>(shape.front(), 1);
  if (format == Format::f32) {
    layer.weight = vector(name, shape);
    return layer;
  }
  const std::string prefix = name.substr(0, name.rfind('.'));
  if (is_packed(prefix)) return map(prefix, layer.out, layer.in, false, false, format);
  Part part;
  part.weight = source(name, shape);
  part.rows = layer.out;
  part.columns = layer.in;
  return pack(prefix, {part}, layer.in, false, format);
}

Linear Layers::columns(const std::string& prefix, std::int64_t out, std::int64_t columns, std::int64_t first,
                       std::int64_t in, Format format) {
  const std::string name = prefix + ".columns" + std::to_string(first);
  if (is_packed(name)) return map(name, out, in, false, false, format);
  Part part = this->part(prefix, out, columns, false);
  part.first_column = first;
  if (format != Format::f32) return pack(name, {part}, in, false, format);
  Linear layer;
  layer.out = out;
  layer.in = in;
  if (plan_) {
    if (first == 0) plan_->copies.emplace_back(prefix + ".weight", format);
    return layer;
  }
  memory_.push_back(backend_.allocate(static_cast<std::size_t>(out * in) * sizeof(float)));
  packed_bytes_ += memory_.back().size();
  std::vector<float> row(static_cast<std::size_t>(in));
  const std::unique_ptr<Stream> stream = backend_.make_stream();
  for (std::int64_t r = 0; r < out; ++r) {
    const auto begin = static_cast<std::size_t>(r * columns + first);
    convert(*part.weight, begin, begin + row.size(), row.data());
    backend_.upload(*stream, row.data(), memory_.back().as() + r * in, row.size() * sizeof(float));
  }
  backend_.synchronize(*stream);
  layer.weight = memory_.back().as<void>();
  return layer;
}

std::vector<Linear> Layers::stacked(const std::string& stacked,
                                    const std::vector<std::pair<std::string, std::int64_t>>& prefixes_and_outs,
                                    std::int64_t in, bool has_bias, Format format) {
  std::int64_t rows = 0;
  for (const auto& [prefix, out] : prefixes_and_outs) rows += out;
  if (format != Format::f32) {
    if (is_packed(stacked)) return {map(stacked, rows, in, false, has_bias, format)};
    std::vector<Part> parts;
    if (weights_.contains(stacked + ".weight")) {
      parts.push_back(part(stacked, rows, in, has_bias));
    } else {
      for (const auto& [prefix, out] : prefixes_and_outs) parts.push_back(part(prefix, out, in, has_bias));
    }
    return {pack(stacked, parts, in, false, format)};
  }
  std::vector<Linear> layers;
  if (!weights_.contains(stacked + ".weight")) {
    for (const auto& [prefix, out] : prefixes_and_outs)
      layers.push_back(linear(prefix, out, in, has_bias, format));
    return layers;
  }
  Linear rest = linear(stacked, rows, in, has_bias, format);
  for (const auto& [prefix, out] : prefixes_and_outs) {
    rest.out = out;
    layers.push_back(rest);
    if (plan_) continue;
    rest.weight = static_cast<const float*>(rest.weight) + out * in;
    if (rest.bias) rest.bias += out;
  }
  return layers;
}

GatedLinear Layers::gated(const std::string& stacked, const std::string& gate, const std::string& up,
                          std::int64_t rows, std::int64_t out, std::int64_t in, bool has_bias, Format format) {
  GatedLinear layer;
  layer.out = out;
  if (format == Format::f32) {
    const std::vector<Linear> halves =
        this->stacked(stacked, {{gate, rows}, {up, rows}}, in, has_bias, format);
    layer.gate = halves[0];
    layer.up = halves[1];
    layer.gate.out = layer.up.out = out;
    return layer;
  }
  if (is_packed(stacked)) {
    layer.gate = map(stacked, 2 * out, in, true, has_bias, format);
    return layer;
  }
  std::vector<Part> parts;
  if (weights_.contains(stacked + ".weight")) {
    Part both = part(stacked, 2 * rows, in, has_bias);
    both.rows = out;
    parts.push_back(both);
    both.first_row = rows;
    parts.push_back(both);
  } else {
    for (const std::string& prefix : {gate, up}) {
      parts.push_back(part(prefix, rows, in, has_bias));
      parts.back().rows = out;
    }
  }
  layer.gate = pack(stacked, parts, in, true, format);
  return layer;
}

const void* Layers::table(const std::string& name, const Shape& shape) {
  if (precision_.edge == Format::f32) return vector(name, shape);
  const TensorEntry* entry = source(name, shape);
  if (plan_) {
    plan_->copies.emplace_back(name, Format::bf16);
    return nullptr;
  }
  if (entry->dtype == Dtype::bf16 && reinterpret_cast<std::uintptr_t>(entry->data) % 2 == 0) {
    mapped_bytes_ += entry->num_bytes;
    return to_device(entry->data, entry->num_bytes);
  }
  const auto count = static_cast<std::size_t>(num_elements(shape));
  memory_.push_back(backend_.allocate(count * 2));
  const std::unique_ptr<Stream> stream = backend_.make_stream();
  constexpr std::size_t kStep = 1 << 18;
  std::vector<float> values(kStep);
  std::vector<std::uint16_t> rounded(kStep);
  for (std::size_t begin = 0; begin < count; begin += kStep) {
    const std::size_t end = std::min(count, begin + kStep);
    convert(*entry, begin, end, values.data());
    std::transform(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(end - begin), rounded.begin(),
                   bf16_of);
    backend_.upload(*stream, rounded.data(), memory_.back().as<std::uint16_t>() + begin, (end - begin) * 2);
    backend_.synchronize(*stream);
    SafetensorsFile::drop_pages(entry->data + begin * size_of(entry->dtype), (end - begin) * size_of(entry->dtype));
  }
  packed_bytes_ += count * 2;
  return memory_.back().as<void>();
}

Linear Layers::tied_head(const std::string& table_name, const Shape& shape, const void* table) {
  if (precision_.head == Format::f32) {
    Linear head;
    head.out = shape[0];
    head.in = shape[1];
    head.weight = table;
    return head;
  }
  if (is_packed("lm_head")) return map("lm_head", shape[0], shape[1], false, false, precision_.head);
  Part part;
  part.weight = source(table_name, shape);
  part.rows = shape[0];
  part.columns = shape[1];
  return pack("lm_head", {part}, shape[1], false, precision_.head);
}

}  // namespace wallx
