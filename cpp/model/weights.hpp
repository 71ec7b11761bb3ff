// Weights: a checkpoint folder's tensors as fp32; mapped in place where the file holds fp32, else widened.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/safetensors.hpp"

namespace wallx {

class Weights {
 public:
  // Maps the folder's model*.safetensors, or where it has model.safetensors.index.json the files that this
  // names. Throws CheckpointError: none there, damaged, a tensor twice, folder and index do not agree.
  explicit Weights(const std::string& directory);

  // The tensor as fp32, valid as long as this object. Throws CheckpointError naming tensor, expected and
  // found shape.
  const float* take(const std::string& name, const Shape& shape);
  // where take has put a tensor, or mapped it
  const std::unordered_map<const void*, std::string>& taken() const { return taken_; }
  bool contains(const std::string& name) const { return entries_.count(name) != 0; }
  const TensorEntry& entry(const std::string& name) const;  // CheckpointError when absent
  // Marks a tensor as known without loading it.
  void skip(const std::string& name) { used_.insert_or_assign(name, true); }
  // Throws CheckpointError naming the first tensors that nothing asked for.
  void require_all_used() const;

  std::vector<std::string> names() const;
  // The entry of a tensor that is floats of this shape, marked as known; errors as those of take.
  const TensorEntry& floats(const std::string& name, const Shape& shape);
  // Written by `wallx-edge quantize`: the precision that its layers are packed in, empty for other folders.
  const std::string& packed_precision() const { return packed_precision_; }

  // What `quantize` says of the folder in its file's header; empty for other folders.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // A copy as fp32, for small tensors such as statistics.
  std::vector<float> read(const std::string& name) const;

  std::size_t widened_bytes() const { return widened_bytes_; }
  std::size_t mapped_bytes() const { return mapped_bytes_; }

 private:
  void add(const std::string& path, const std::set<std::string>* expected);
  const float* widen(const TensorEntry& entry);

  std::string directory_;
  std::string packed_precision_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unordered_map<std::string, const TensorEntry*> entries_;
  std::unordered_map<std::string, bool> used_;
  std::unordered_map<const void*, std::string> taken_;
  std::vector<std::unique_ptr<float[]>> owned_;
  std::size_t widened_bytes_ = 0;
  std::size_t mapped_bytes_ = 0;
};

// numbers [begin, end) of a tensor of floats
void convert(const TensorEntry& entry, std::size_t begin, std::size_t end, float* out);

}  // namespace wallx
