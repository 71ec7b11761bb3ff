// ReferenceBackend: the operations as loops in double precision, to which every other backend is held.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "backend/backend.hpp"

namespace wallx {

// Computes in double on the calling thread and rounds once, where a result is stored. Its memory is never
// read by the caller, as that of a device. A cache holds keys, then values, (kv_heads x capacity x head_dim)
// each, as fp32 rounded to the cache's format.
class ReferenceBackend : public Backend {
 public:
  std::string name() const override { return "reference"; }
  Memory allocate(std::size_t bytes) override;
  bool shares_host_memory() const override { return false; }
  std::unique_ptr<Stream> make_stream() override;
  void upload(Stream& stream, const void* host, void* device, std::size_t bytes) override;
  void download(Stream& stream, const void* device, void* host, std::size_t bytes) override;
  void copy(Stream& stream, const void* from, void* to, std::size_t bytes) override;
  void synchronize(Stream&) override {}
  void norm(Stream& stream, const float* x, const Norm& norm, const Rows& y) override;
  void product(Stream& stream, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
               std::int64_t y_stride = 0) override;
  void gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) override;
  std::size_t cache_bytes(Format format, std::int64_t num_kv_heads, std::int64_t head_dim,
                          std::int64_t capacity) const override;
  void rotate_and_cache(Stream& stream, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                        Format cache, std::int64_t position, const CacheSegment& segment) override;
  void cache_attention(Stream& stream, const float* qkv, const AttentionShape& shape, bool is_causal,
                       Format cache, std::span<const CacheSegment> segments, const Rows& y) override;
  void window_attention(Stream& stream, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                        Format format, std::span<const std::int32_t> offsets, const Rows& y) override;
  void euler(Stream& stream, const EulerStep& step) override;
  void embed(Stream& stream, std::span<const std::int64_t> ids, Format format, const void* table,
             std::int64_t width, float* y) override;
};

}  // namespace wallx
