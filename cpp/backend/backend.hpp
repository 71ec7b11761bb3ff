// Backend: the fused operations that the model's graph is written in, over device memory and a stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "backend/layout.hpp"

namespace wallx {

// Owned device memory. The graph computes addresses in it and never looks: only upload, download and operations
// do.
class Memory {
 public:
  Memory() = default;
  Memory(void* data, std::size_t size, void (*release)(void*, std::size_t))
      : data_(data), size_(size), release_(release) {}
  ~Memory() {
    if (data_) release_(data_, size_);
  }
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
    return *this;
  }

  template <class T = float>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t size() const { return size_; }  // [bytes]

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
  void (*release_)(void*, std::size_t) = nullptr;
};

// Work in order: an operation begins when those before it on the same stream have ended. One thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
};

enum class Activation : std::uint8_t { none, silu, gelu };  // gelu: the one with erf

// y = x W^T + b; weights as backend/layout.hpp says
struct Linear {
  Format format = Format::f32;
  std::int64_t out = 0;
  std::int64_t in = 0;
  const void* weight = nullptr;          // (out x in), or panels
  const float* scale = nullptr;          // int8, w8: of each output  (padded outputs)
  const std::int32_t* offset = nullptr;  // int8, w8: -128 times the sum of an output's weights  (padded outputs)
  const float* bias = nullptr;           // (out, padded for panels), or null

  explicit operator bool() const { return weight != nullptr; }
};

// silu(gate(x)) * up(x). Packed: `gate` has both, its panels alternate, and `up` is empty.
struct GatedLinear {
  Linear gate, up;
  std::int64_t out = 0;
};

// rows of numbers, as a product with weights of `format` takes them
struct Rows {
  Format format = Format::f32;  // f32, bf16 or int8
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::int64_t stride = 0;  // [bytes]
  void* data = nullptr;     // zeros between width and the padded width
  float* scale = nullptr;   // int8: of each row  (count)
};
// [bytes]
constexpr std::size_t rows_bytes(Format format, std::int64_t count, std::int64_t width) {
  const std::int64_t scales = format == Format::int8 ? round_up(count * 4, 64) : 0;
  return static_cast<std::size_t>(count * row_stride(format, width) + scales);
}
// in memory of at least rows_bytes
inline Rows rows_in(void* memory, Format format, std::int64_t count, std::int64_t width) {
  Rows rows{row_format(format), count, width, row_stride(format, width), memory, nullptr};
  if (format == Format::int8)
    rows.scale = reinterpret_cast<float*>(static_cast<std::byte*>(memory) + count * rows.stride);
  return rows;
}

struct Norm {
  enum class Kind : std::uint8_t {
    none,     // y = x
    rms,      // y = x / rms(x) * weight, rms(x) = sqrt(mean(x^2) + eps)
    adaptive  // y = x / rms(x) * (1 + modulation[:width]) + modulation[width:]
  };
  Kind kind = Kind::none;
  const float* weight = nullptr;      // (width)
  const float* modulation = nullptr;  // (2 x width): scale, shift
  float eps = 0;
};

// y = residual + gate * activation(x W^T + b)
struct Epilogue {
  Activation activation = Activation::none;
  const float* gate = nullptr;       // (out), or null
  const float* residual = nullptr;   // (rows x out), or null; may be y itself
  std::int64_t residual_stride = 0;  // [floats] 0: out
};

// rotates each head: (a, b) -> (a cos - b sin, b cos + a sin), a the first, b the second half
struct Rotary {
  const float* cos = nullptr;  // (rows x head_dim)
  const float* sin = nullptr;  // (rows x head_dim)
};

// A run of one layer's keys and values, as the backend lays them out (Backend::cache_bytes).
struct CacheSegment {
  void* data = nullptr;
  std::int64_t capacity = 0;  // [tokens], a multiple of kCacheTokens
  std::int64_t length = 0;    // [tokens] in use
};
inline constexpr std::int64_t kCacheTokens = 16;

// One step of the flow, in place.
struct EulerStep {
  std::int64_t rows = 0;
  std::int64_t dim = 0;
  float* x = nullptr;                // rows x_stride floats apart
  std::int64_t x_stride = 0;         // [floats]
  float* velocity = nullptr;         // (rows x dim); becomes the velocity that x follows
  const float* noise = nullptr;      // where x began  (rows x dim)
  const float* mask = nullptr;       // 1: in use  (rows x dim)
  const float* padding = nullptr;    // where dims that are not in use go: velocity = padding - noise  (dim), or null
  bool does_predict_actions = false; // velocity comes as the clean action: (velocity - x) / max(1 - time, 0.05)
  float time = 0;
  float dt = 0;
};

struct AttentionShape {
  std::int64_t rows = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
};

// Operations are queued on the stream and may return before they have run; download and synchronize wait.
// Pointers are to device memory unless said otherwise; buffers are row-major, fp32 where no format is named.
// Outputs never alias inputs unless a comment allows it. Sizes are the caller's to get right: nothing here
// throws but allocation.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // such as "cpu avx512"

  virtual Memory allocate(std::size_t bytes) = 0;  // zeros, aligned to 64 bytes; std::bad_alloc
  // whether operations read the host's memory too: then weights stay where they are mapped
  virtual bool shares_host_memory() const = 0;
  virtual std::unique_ptr<Stream> make_stream() = 0;
  virtual void upload(Stream& stream, const void* host, void* device, std::size_t bytes) = 0;
  virtual void download(Stream& stream, const void* device, void* host, std::size_t bytes) = 0;  // waits
  virtual void copy(Stream& stream, const void* from, void* to, std::size_t bytes) = 0;  // on the device
  virtual void synchronize(Stream& stream) = 0;

  // Normalises rows and turns them into what the next product takes.
  virtual void norm(Stream& stream, const float* x, const Norm& norm, const Rows& y) = 0;
  // rows of y are y_stride floats apart (0: layer.out)
  virtual void product(Stream& stream, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
                       std::int64_t y_stride = 0) = 0;
  // y = silu(gate(x)) * up(x), as rows for the next product
  virtual void gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) = 0;

  // size of one layer's cache of so many tokens; which layout is the format's and the backend's  [bytes]
  virtual std::size_t cache_bytes(Format format, std::int64_t num_kv_heads, std::int64_t head_dim,
                                  std::int64_t capacity) const = 0;
  // Rotates q and k in place and writes k and v to entries [position, position + rows) of the segment.
  // qkv (rows x (num_heads + 2 num_kv_heads) * head_dim), order q | k | v
  virtual void rotate_and_cache(Stream& stream, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                                Format cache, std::int64_t position, const CacheSegment& segment) = 0;
  // softmax(q k^T / sqrt(head_dim)) v over a cache whose last `rows` entries are the query rows' own: row i
  // sees all before them and itself (causal), or all.  y (rows x num_heads * head_dim)
  virtual void cache_attention(Stream& stream, const float* qkv, const AttentionShape& shape, bool is_causal,
                               Format cache, std::span<const CacheSegment> segments, const Rows& y) = 0;
  // The same inside each window [offsets[i], offsets[i + 1]) of the rows, where all see all, with q and k
  // rotated first.  qkv (rows x 3 num_heads * head_dim), changed; offsets on the host; y (rows x num_heads *
  // head_dim)
  virtual void window_attention(Stream& stream, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                                Format format, std::span<const std::int32_t> offsets, const Rows& y) = 0;

  virtual void euler(Stream& stream, const EulerStep& step) = 0;
  // y[i] = table[ids[i]]; table (. x width) of f32 or bf16, ids on the host
  virtual void embed(Stream& stream, std::span<const std::int64_t> ids, Format format, const void* table,
                     std::int64_t width, float* y) = 0;
};

// `count` values of at least; what was there before is lost when it has to grow
template <class T = float>
T* reserve(Backend& backend, Memory& memory, std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  if (memory.size() < bytes) memory = backend.allocate(bytes);
  return memory.as<T>();
}
inline Rows reserve_rows(Backend& backend, Memory& memory, Format format, std::int64_t count,
                         std::int64_t width) {
  const std::size_t bytes = rows_bytes(format, count, width);
  return rows_in(reserve<std::byte>(backend, memory, static_cast<std::int64_t>(bytes)), format, count, width);
}

}  // namespace wallx
