// Safetensors: one memory-mapped .safetensors file, every claim of its header checked before use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace wallx {

enum class Dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

const char* to_string(Dtype dtype);
std::size_t size_of(Dtype dtype);  // [bytes]

using Shape = std::vector<std::int64_t>;
std::string to_string(const Shape& shape);  // "[2048, 40]"
std::int64_t num_elements(const Shape& shape);

struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  const std::byte* data = nullptr;  // inside the mapping; any alignment
  std::size_t num_bytes = 0;
};

class SafetensorsFile {
 public:
  // Maps the file read-only. Throws CheckpointError: absent, truncated, header not as the format says.
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

  // Gives the whole pages inside [begin, begin + size) back to the system; they are read again when touched.
  static void drop_pages(const std::byte* begin, std::size_t size);

 private:
  void read_header();

  std::string path_;
  const std::byte* mapping_ = nullptr;
  std::size_t size_ = 0;
  std::vector<TensorEntry> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace wallx
