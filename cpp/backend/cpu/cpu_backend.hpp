// CpuBackend: the operations on the processor's own cores.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "backend/backend.hpp"
#include "backend/cpu/kernels.hpp"
#include "backend/cpu/thread_pool.hpp"

namespace wallx {

struct CpuOptions {
  int threads = 0;         // that compute, the caller's included; 0: one for each core this process may use
  std::vector<int> cores;  // the others are pinned to these, in turn; empty: not pinned
  std::string kernels;     // of cpu::available_kernels; empty: the fastest
};

// Operations run before they return. Streams may be used by several threads at once: their operations take
// turns.
class CpuBackend : public Backend {
 public:
  // Throws ConfigError: no such kernels, threads or cores.
  explicit CpuBackend(const CpuOptions& options);

  std::string name() const override;
  int num_threads() const { return pool_.num_threads(); }
  const cpu::Kernels& kernels() const { return kernels_; }
  cpu::ThreadPool& pool() { return pool_; }

  Memory allocate(std::size_t bytes) override;
  bool shares_host_memory() const override { return true; }
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

 private:
  std::uint8_t offset() const { return kernels_.has_offset ? 128 : 0; }
  template <class Finish>
  void multiply(const Rows& x, const Linear& layer, std::int64_t num_pairs, Finish finish);
  void to_rows(const float* x, const Rows& y);

  const cpu::Kernels& kernels_;
  cpu::ThreadPool pool_;
};

}  // namespace wallx
