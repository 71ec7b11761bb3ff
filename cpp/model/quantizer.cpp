// Quantizer: steps over a PackPlan.
// SPDX-License-Identifier: Apache-2.0
#include "model/quantizer.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.hpp"
#include "base/errors.hpp"

namespace wallx {
namespace {

PackPlan plan_with(const std::vector<std::string>& wide) {
  PackPlan plan;
  plan.wide = wide;
  return plan;
}

LoadOptions options_for(const std::string& precision) {
  return {precision, std::make_shared<CpuBackend>(CpuOptions{1, {}, ""})};
}

bool is_finite(const float* values, std::int64_t count) {
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i] * 0.0f;  // NaN where one is not
  return sum == 0.0f;
}

[[noreturn]] void throw_not_finite(const std::string& name, std::int64_t row) {
  throw CheckpointError(
      name + ": weights of output " + std::to_string(row) +
      " are not finite numbers; they cannot be packed, and the network cannot compute with them");
}

}  // namespace

Quantizer::Quantizer(const std::string& directory, const Slots& dof, const Slots& agent_pos,
                     std::optional<bool> is_state_text, const std::string& precision,
                     const std::vector<std::string>& wide)
    : plan_(plan_with(wide)),
      model_(directory, ModelConfig::load(directory, dof, agent_pos, is_state_text), options_for(precision),
             &plan_) {}

const std::string& Quantizer::name(std::size_t step) const {
  return is_layer(step) ? plan_.packs[step].name : plan_.copies[step - plan_.packs.size()].first;
}

Format Quantizer::format(std::size_t step) const {
  return is_layer(step) ? plan_.packs[step].format : plan_.copies[step - plan_.packs.size()].second;
}

std::vector<PackedTensor> Quantizer::tensors(std::size_t step) const {
  if (!is_layer(step))
    return {{name(step), format(step) == Format::bf16 ? Dtype::bf16 : Dtype::f32,
             model_.weights().entry(name(step)).shape}};
  const PackJob& job = plan_.packs[step];
  const std::int64_t columns = num_panels(job.source) * kPanel;
  std::vector<PackedTensor> out{{job.name + ".panels", job.format == Format::bf16 ? Dtype::bf16 : Dtype::i8,
                                 panels_shape(job.format, columns / kPanel, job.source.in)}};
  if (has_scale(job.format)) {
    out.push_back({job.name + ".scale", Dtype::f32, {columns}});
    out.push_back({job.name + ".offset", Dtype::i32, {columns}});
  }
  if (job.has_bias) out.push_back({job.name + ".bias", Dtype::f32, {columns}});
  return out;
}

void Quantizer::make(std::size_t step, std::byte* to) const {
  if (is_layer(step)) return make_layer(plan_.packs[step], to);
  make_copy(name(step), format(step), to);
}

void Quantizer::make_layer(const PackJob& job, std::byte* to) const {
  const auto find = [&](const auto& scales) {
    const auto found = scales.find(job.name);
    return found == scales.end() ? nullptr : found->second.data();
  };
  const float* inputs = find(inputs_);
  const float* outputs = find(outputs_);
  std::atomic<std::int64_t> damaged{-1};
  PackJob scaled = job;
  scaled.source.read_row = [&](std::int64_t row, float* values) {
    job.source.read_row(row, values);
    const std::int64_t in = job.source.in;
    if (!is_finite(values, in)) {
      damaged = row;
      std::fill_n(values, in, 0.0f);
      return;
    }
    for (std::int64_t i = 0; i < in && inputs; ++i) values[i] *= inputs[i];
    for (std::int64_t i = 0; i < in && outputs; ++i) values[i] *= outputs[row];
  };
  if (job.has_bias)
    scaled.source.read_bias = [&](std::int64_t row) {
      const float value = job.source.read_bias(row);
      if (!std::isfinite(value)) damaged = row;
      return outputs ? value * outputs[row] : value;
    };
  const std::int64_t columns = num_panels(job.source) * kPanel;
  PackTarget target;
  target.panels = to;
  to += job.panels_bytes();
  if (has_scale(job.format)) {
    target.scale = reinterpret_cast<float*>(to);
    target.offset = reinterpret_cast<std::int32_t*>(to + columns * 4);
    to += columns * 8;
  }
  if (job.has_bias) target.bias = reinterpret_cast<float*>(to);
  run_job(scaled, target);
  if (damaged >= 0) throw_not_finite(job.name, damaged);
}

void Quantizer::make_copy(const std::string& name, Format format, std::byte* to) const {
  const TensorEntry& entry = model_.weights().entry(name);
  const auto found = outputs_.find(name);
  const auto count = static_cast<std::size_t>(num_elements(entry.shape));
  constexpr std::size_t kStep = 1 << 18;
  std::vector<float> values(kStep);
  for (std::size_t begin = 0; begin < count; begin += kStep) {
    const std::size_t size = std::min(count, begin + kStep) - begin;
    convert(entry, begin, begin + size, values.data());
    if (!is_finite(values.data(), static_cast<std::int64_t>(size)))
      throw_not_finite(name, static_cast<std::int64_t>(begin));
    for (std::size_t i = 0; i < size && found != outputs_.end(); ++i) values[i] *= found->second[begin + i];
    if (format == Format::f32) {
      std::memcpy(to + begin * 4, values.data(), size * 4);
    } else {
      std::transform(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(size),
                     reinterpret_cast<std::uint16_t*>(to) + begin, bf16_of);
    }
    const std::size_t width = size_of(entry.dtype);
    SafetensorsFile::drop_pages(entry.data + begin * width, size * width);
  }
}

void Quantizer::scale_inputs(const std::string& layer, std::vector<float> scale) {
  for (const PackJob& job : plan_.packs) {
    if (job.name != layer) continue;
    if (static_cast<std::int64_t>(scale.size()) != job.source.in)
      throw ConfigError(layer + ": " + std::to_string(scale.size()) + " scales for " +
                        std::to_string(job.source.in) + " inputs");
    inputs_.insert_or_assign(layer, std::move(scale));
    return;
  }
  throw ConfigError("no layer " + layer + " is packed");
}

void Quantizer::scale_outputs(const std::string& layer, std::vector<float> scale) {
  std::int64_t expected = -1;
  for (const PackJob& job : plan_.packs)
    if (job.name == layer) expected = job.source.out;
  for (const auto& [name, format] : plan_.copies)
    if (name == layer) expected = num_elements(model_.weights().entry(name).shape);
  if (expected < 0) throw ConfigError("no layer or vector " + layer + " is written");
  if (static_cast<std::int64_t>(scale.size()) != expected)
    throw ConfigError(layer + ": " + std::to_string(scale.size()) + " scales for " +
                      std::to_string(expected) + " outputs");
  outputs_.insert_or_assign(layer, std::move(scale));
}

}  // namespace wallx
