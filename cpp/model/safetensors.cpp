// Safetensors: 8 bytes of header length, a JSON header, then the tensors back to back.
// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>

#include "base/errors.hpp"
#include "base/json.hpp"

namespace wallx {
namespace {

constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the format's own bound

struct DtypeRow {
  std::string_view name;
  Dtype dtype;
  std::size_t size;
};
constexpr DtypeRow kDtypes[] = {
    {"F64", Dtype::f64, 8}, {"F32", Dtype::f32, 4},      {"F16", Dtype::f16, 2}, {"BF16", Dtype::bf16, 2},
    {"I64", Dtype::i64, 8}, {"I32", Dtype::i32, 4},      {"I16", Dtype::i16, 2}, {"I8", Dtype::i8, 1},
    {"U8", Dtype::u8, 1},   {"BOOL", Dtype::boolean, 1},
};

// one member of the header; `where` begins its messages
TensorEntry read_entry(const std::string& name, const Json& value, const std::string& where,
                       const std::byte* data, std::uint64_t data_bytes) {
  const Json* dtype = value.find("dtype");
  const Json* shape = value.find("shape");
  const Json* offsets = value.find("data_offsets");
  if (!dtype || !shape || !offsets)
    throw CheckpointError(where + "the header lacks dtype, shape or data_offsets");
  TensorEntry entry;
  entry.name = name;
  const auto* row = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                 [&](const DtypeRow& r) { return r.name == dtype->string(); });
  if (row == std::end(kDtypes)) throw CheckpointError(where + "unknown dtype " + dtype->string());
  entry.dtype = row->dtype;
  std::uint64_t bytes = row->size;
  for (const Json& dim : shape->array()) {
    const std::int64_t n = dim.integer();
    if (n < 0) throw CheckpointError(where + "negative dimension " + std::to_string(n));
    entry.shape.push_back(n);
    if (n > 0 && bytes > std::numeric_limits<std::uint64_t>::max() / static_cast<std::uint64_t>(n))
      throw CheckpointError(where + "shape " + to_string(entry.shape) + " is too large");
    bytes *= static_cast<std::uint64_t>(n);
  }
  if (offsets->array().size() != 2) throw CheckpointError(where + "data_offsets must have two entries");
  const std::int64_t begin = offsets->array()[0].integer();
  const std::int64_t end = offsets->array()[1].integer();
  if (begin < 0 || end < begin) throw CheckpointError(where + "data_offsets are not a range");
  if (static_cast<std::uint64_t>(end) > data_bytes)
    throw CheckpointError(where + "truncated file: it ends at byte " + std::to_string(end) +
                          " of the data, the file has " + std::to_string(data_bytes));
  if (static_cast<std::uint64_t>(end - begin) != bytes)
    throw CheckpointError(where + "shape " + to_string(entry.shape) + " of " + dtype->string() + " needs " +
                          std::to_string(bytes) + " bytes, data_offsets give " + std::to_string(end - begin));
  entry.data = data + begin;
  entry.num_bytes = bytes;
  return entry;
}

}  // namespace

const char* to_string(Dtype dtype) {
  for (const DtypeRow& row : kDtypes)
    if (row.dtype == dtype) return row.name.data();
  return "?";
}

std::size_t size_of(Dtype dtype) {
  for (const DtypeRow& row : kDtypes)
    if (row.dtype == dtype) return row.size;
  return 0;
}

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::int64_t num_elements(const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t dim : shape) count *= dim;
  return count;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw CheckpointError(path + ": cannot open: " + std::strerror(errno));
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw CheckpointError(path + ": not a regular file");
  }
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ < 8) {
    ::close(fd);
    throw CheckpointError(path + ": truncated: " + std::to_string(size_) +
                          " bytes, a safetensors file has at least 8");
  }
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  ::close(fd);
  if (mapping == MAP_FAILED) throw CheckpointError(path + ": cannot map: " + std::strerror(error));
  // Read ahead in large pages where the file system has them: faster to read, and fewer translations to look
  // up. Elsewhere this is refused, which is no matter.
  ::madvise(mapping, size_, MADV_HUGEPAGE);
  mapping_ = static_cast<const std::byte*>(mapping);
  try {
    read_header();
  } catch (const JsonError& e) {
    ::munmap(mapping, size_);
    throw CheckpointError(path + ": header: " + e.what());
  } catch (...) {
    ::munmap(mapping, size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<std::byte*>(mapping_), size_); }

void SafetensorsFile::read_header() {
  std::uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | std::to_integer<std::uint64_t>(mapping_[i]);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size_ - 8)
    throw CheckpointError(path_ + ": truncated or not a safetensors file: its header claims " +
                          std::to_string(header_bytes) + " bytes, the file has " + std::to_string(size_ - 8) +
                          " after the length");
  const Json header =
      Json::parse({reinterpret_cast<const char*>(mapping_) + 8, static_cast<std::size_t>(header_bytes)});
  if (!header.is_object()) throw CheckpointError(path_ + ": the header is not a JSON object");
  const std::byte* data = mapping_ + 8 + header_bytes;
  const std::uint64_t data_bytes = size_ - 8 - header_bytes;

  for (const auto& [name, value] : header.members()) {
    try {
      if (name == "__metadata__") {
        for (const auto& [key, text] : value.members()) metadata_.emplace_back(key, text.string());
      } else {
        tensors_.push_back(read_entry(name, value, path_ + ": tensor " + name + ": ", data, data_bytes));
      }
    } catch (const JsonError& e) {
      throw CheckpointError(path_ + ": " + (name == "__metadata__" ? "" : "tensor ") + name + ": " +
                            e.what());
    }
  }

  std::vector<const TensorEntry*> order;
  for (const TensorEntry& entry : tensors_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->data, a->num_bytes) < std::pair(b->data, b->num_bytes);
  });
  const std::byte* at = data;
  for (const TensorEntry* entry : order) {
    if (entry->data != at)
      throw CheckpointError(path_ + ": tensor " + entry->name +
                            (entry->data < at ? " overlaps" : " leaves a hole after") +
                            " the tensor before it");
    at += entry->num_bytes;
  }
  if (at != data + data_bytes)
    throw CheckpointError(path_ + ": " + std::to_string(data + data_bytes - at) +
                          " bytes after the last tensor belong to none");
}

void SafetensorsFile::drop_pages(const std::byte* begin, std::size_t size) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(begin) + size) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace wallx
