// Weights: finding, checking and widening tensors.
// SPDX-License-Identifier: Apache-2.0
#include "model/weights.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/errors.hpp"
#include "model/shard_index.hpp"

namespace wallx {
namespace {

float widen_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

float widen_f16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1F;
  const std::uint32_t mantissa = bits & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent == 0) {  // zero and subnormals: exact in fp32
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

bool is_readable(Dtype dtype) { return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16; }

}  // namespace

void convert(const TensorEntry& entry, std::size_t begin, std::size_t end, float* out) {
  if (entry.dtype == Dtype::f32) {
    std::memcpy(out, entry.data + begin * 4, (end - begin) * 4);
    return;
  }
  const bool is_bf16 = entry.dtype == Dtype::bf16;
  for (std::size_t i = begin; i < end; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, entry.data + i * 2, 2);
    out[i - begin] = is_bf16 ? widen_bf16(bits) : widen_f16(bits);
  }
}

Weights::Weights(const std::string& directory) : directory_(directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(directory, error))
    // model.safetensors, or shards model-00001-of-00002.safetensors; other files may stand beside them
    if (item.path().extension() == ".safetensors" && item.path().filename().string().rfind("model", 0) == 0)
      names.push_back(item.path().filename().string());
  if (error) throw CheckpointError(directory + ": cannot read the folder: " + error.message());
  std::sort(names.begin(), names.end());
  const bool has_index = ShardIndex::is_in(directory);
  if (names.empty() && !has_index)
    throw CheckpointError(directory + ": no model.safetensors (or model-*.safetensors) in this folder");
  if (!has_index) {
    for (const std::string& name : names) add(directory + "/" + name, nullptr);
    return;
  }
  const ShardIndex index = ShardIndex::read(directory);
  for (const std::string& name : names)
    if (!index.files.count(name))
      throw CheckpointError(directory + "/" + name +
                            ": not named by model.safetensors.index.json; remove the one or the other");
  for (const auto& [name, tensors] : index.files) add(ShardIndex::resolve(directory, name), &tensors);
}

// the formats of `quantize` are written in whole files
constexpr std::string_view kFormatKey = "wallx_format", kPrecisionKey = "wallx_precision";
constexpr int kFormatVersion = 1;

// maps one file; with an index it must hold the tensors that the index says, and no others
void Weights::add(const std::string& path, const std::set<std::string>* expected) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const auto& [key, value] : files_.back()->metadata()) {
    if (key == kFormatKey && value != std::to_string(kFormatVersion))
      throw CheckpointError(path + ": written in format " + value +
                            " of wallx-edge quantize, this version reads " + std::to_string(kFormatVersion) +
                            "; quantize it again, or install a newer wallx-edge");
    if (key == kPrecisionKey) packed_precision_ = value;
    if (key.starts_with("wallx_")) metadata_[key] = value;
  }
  if (metadata_.contains(std::string(kFormatKey)) != metadata_.contains(std::string(kPrecisionKey)))
    throw CheckpointError(path +
                          ": its metadata has only one of wallx_format and wallx_precision; quantize the "
                          "checkpoint again");
  for (const TensorEntry& entry : files_.back()->tensors()) {
    if (expected && !expected->count(entry.name))
      throw CheckpointError(path + ": tensor " + entry.name +
                            ": model.safetensors.index.json does not say that it is in this file");
    if (!entries_.emplace(entry.name, &entry).second)
      throw CheckpointError(path + ": tensor " + entry.name + " stands in more than one file of the folder");
  }
  if (!expected) return;
  for (const std::string& name : *expected) {
    const auto found = entries_.find(name);
    if (found == entries_.end())
      throw CheckpointError(path + ": tensor " + name +
                            ": missing, model.safetensors.index.json says that it is in this file");
  }
}

const TensorEntry& Weights::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw CheckpointError(directory_ + ": tensor " + name + ": missing");
  return *found->second;
}

const TensorEntry& Weights::floats(const std::string& name, const Shape& shape) {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw CheckpointError(directory_ + ": tensor " + name + ": missing, expected shape " + to_string(shape));
  const TensorEntry& entry = *found->second;
  if (entry.shape != shape)
    throw CheckpointError(directory_ + ": tensor " + name + ": expected shape " + to_string(shape) +
                          ", found " + to_string(entry.shape));
  if (!is_readable(entry.dtype))
    throw CheckpointError(directory_ + ": tensor " + name + ": expected F32, BF16 or F16, found " +
                          to_string(entry.dtype));
  used_.insert_or_assign(name, true);
  return entry;
}

const float* Weights::take(const std::string& name, const Shape& shape) {
  const TensorEntry& entry = floats(name, shape);
  if (entry.dtype == Dtype::f32 && reinterpret_cast<std::uintptr_t>(entry.data) % alignof(float) == 0) {
    mapped_bytes_ += entry.num_bytes;
    taken_.emplace(entry.data, name);
    return reinterpret_cast<const float*>(entry.data);
  }
  const float* values = widen(entry);
  taken_.emplace(values, name);
  return values;
}

const float* Weights::widen(const TensorEntry& entry) {
  const std::size_t count = static_cast<std::size_t>(num_elements(entry.shape));
  // plain new: the pages become resident only as they are written, while the source's are given back
  owned_.push_back(std::unique_ptr<float[]>(new float[count]));
  constexpr std::size_t kStep = 1 << 20;
  for (std::size_t begin = 0; begin < count; begin += kStep) {
    const std::size_t end = std::min(count, begin + kStep);
    convert(entry, begin, end, owned_.back().get() + begin);
    const std::size_t size = size_of(entry.dtype);
    SafetensorsFile::drop_pages(entry.data + begin * size, (end - begin) * size);
  }
  widened_bytes_ += count * sizeof(float);
  return owned_.back().get();
}

void Weights::require_all_used() const {
  std::vector<std::string> surplus;
  for (const auto& [name, entry] : entries_)
    if (!used_.count(name)) surplus.push_back(name + " " + to_string(entry->shape));
  if (surplus.empty()) return;
  std::sort(surplus.begin(), surplus.end());
  std::string list;
  for (std::size_t i = 0; i < std::min<std::size_t>(surplus.size(), 5); ++i)
    list += (i ? ", " : "") + surplus[i];
  throw CheckpointError(directory_ + ": " + std::to_string(surplus.size()) +
                        " surplus tensors that this architecture does not have: " + list +
                        (surplus.size() > 5 ? ", ..." : ""));
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<float> Weights::read(const std::string& name) const {
  const TensorEntry& found = entry(name);
  if (!is_readable(found.dtype))
    throw CheckpointError(directory_ + ": tensor " + name + ": expected F32, BF16 or F16, found " +
                          to_string(found.dtype));
  std::vector<float> out(static_cast<std::size_t>(num_elements(found.shape)));
  convert(found, 0, out.size(), out.data());
  return out;
}

}  // namespace wallx
