// GpuOperations: which kernels an operation launches, over which blocks; the same on a GPU and where tests
// run it. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>

#include "backend/backend.hpp"
#include "backend/cuda/attention.hpp"
#include "backend/cuda/product.hpp"
#include "backend/cuda/rows.hpp"
#include "base/errors.hpp"

namespace wallx::cuda {

struct Grid {
  int x = 1, y = 1, z = 1;
};

template <class Tiling, class Sum, bool kGated>
struct ProductKernel {
  using Arguments = ProductArguments;
  static constexpr int kThreads = Tiling::kThreads, kBlocks = Tiling::kBlocks;
  template <class Lane>
  WALLX_GPU static void run(Lane& lane, const Arguments& args, std::byte* shared) {
    product_kernel<Tiling, Sum, kGated>(lane, args, shared);
  }
};
struct NormKernel {
  using Arguments = NormArguments;
  static constexpr int kThreads = kRowThreads, kBlocks = 1;
  template <class Lane>
  WALLX_GPU static void run(Lane& lane, const Arguments& args, std::byte* shared) {
    norm_kernel(lane, args, shared);
  }
};
struct CacheKernel {
  using Arguments = CacheArguments;
  static constexpr int kThreads = kRowThreads, kBlocks = 1;
  template <class Lane>
  WALLX_GPU static void run(Lane& lane, const Arguments& args, std::byte* shared) {
    rotate_and_cache_kernel(lane, args, shared);
  }
};
template <int Dims>
struct AttentionKernel {
  using Arguments = AttentionArguments;
  static constexpr int kThreads = AttentionBlock<Dims>::kThreads, kBlocks = 1;
  template <class Lane>
  WALLX_GPU static void run(Lane& lane, const Arguments& args, std::byte* shared) {
    attention_kernel<Dims>(lane, args, shared);
  }
};
struct CombineKernel {
  using Arguments = CombineArguments;
  static constexpr int kThreads = kRowThreads, kBlocks = 1;
  template <class Lane>
  WALLX_GPU static void run(Lane& lane, const Arguments& args, std::byte* shared) {
    combine_kernel(lane, args, shared);
  }
};

// Between the halves of an operation. It grows when an operation needs more than any before it, which waits
// for the stream: what is captured into a graph has run once before.
struct GpuStream : Stream {
  Memory workspace;
};

// A Backend but for its memory: Device has launch<Kernel>(stream, grid, shared_bytes, arguments) and
// num_cores(), the GPU's multiprocessors. Weights stay the panels of layout.hpp: an upload is a copy. What is
// not there throws DeviceError, before anything is queued.
template <class Device>
class GpuOperations : public Backend {
 public:
  bool shares_host_memory() const override { return false; }

  void norm(Stream& stream, const float* x, const Norm& norm, const Rows& y) override {
    if (y.count == 0) return;
    launch<NormKernel>(stream, {count(y.count)}, kRowSharedBytes, {x, norm, y});
  }

  void product(Stream& stream, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
               std::int64_t y_stride = 0) override {
    ProductArguments args = arguments("product", x, layer, padded_outputs(layer.out) / kPanel);
    args.out = count(layer.out);
    args.activation = epilogue.activation;
    args.gate = epilogue.gate;
    args.residual = epilogue.residual;
    args.residual_stride = epilogue.residual_stride ? epilogue.residual_stride : layer.out;
    args.y = y;
    args.y_stride = y_stride ? y_stride : layer.out;
    multiply<false>(stream, layer.format, args);
  }

  void gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) override {
    ProductArguments args =
        arguments("gated_product", x, layer.gate, padded_gated_outputs(layer.out) / kPanel);
    args.out = count(layer.out);
    args.is_bf16 = y.format == Format::bf16;
    if (y.format != Format::int8) {
      args.y = y.data;
      args.y_stride = y.stride / (args.is_bf16 ? 2 : 4);
      return multiply<true>(stream, layer.gate.format, args);
    }
    // a row's scale needs all of its outputs, which are many blocks'
    float* values = workspace(stream, y.count * layer.out);
    args.y = values;
    args.y_stride = layer.out;
    multiply<true>(stream, layer.gate.format, args);
    norm(stream, values, {}, y);
  }

  std::size_t cache_bytes(Format format, std::int64_t num_kv_heads, std::int64_t head_dim,
                          std::int64_t capacity) const override {
    check_cache("cache_bytes", format, head_dim);
    return static_cast<std::size_t>(2 * num_kv_heads * capacity * padded_dims(head_dim) * 2);
  }

  void rotate_and_cache(Stream& stream, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                        Format cache, std::int64_t position, const CacheSegment& segment) override {
    check_cache("rotate_and_cache", cache, shape.head_dim);
    if (shape.rows == 0) return;
    CacheArguments args;
    args.qkv = qkv;
    args.num_heads = count(shape.num_heads);
    args.num_kv_heads = count(shape.num_kv_heads);
    args.head_dim = count(shape.head_dim);
    args.rotary = rotary;
    args.cache = static_cast<std::uint16_t*>(segment.data);
    args.capacity = count(segment.capacity);
    args.position = count(position);
    launch<CacheKernel>(stream, {count(shape.rows)}, 0, args);
  }

  void cache_attention(Stream& stream, const float* qkv, const AttentionShape& shape, bool is_causal,
                       Format cache, std::span<const CacheSegment> segments, const Rows& y) override {
    check_cache("cache_attention", cache, shape.head_dim);
    if (shape.rows == 0) return;
    if (segments.size() > kMaxSegments)
      throw DeviceError("cuda: cache_attention over " + std::to_string(segments.size()) +
                        " blocks, expected at most " + std::to_string(kMaxSegments) +
                        "; start a new context");
    AttentionArguments args;
    args.qkv = qkv;
    args.rows = count(shape.rows);
    args.num_heads = count(shape.num_heads);
    args.num_kv_heads = count(shape.num_kv_heads);
    args.head_dim = count(shape.head_dim);
    args.is_causal = is_causal;
    for (const CacheSegment& segment : segments) {
      args.segments[args.num_segments++] = {static_cast<const std::uint16_t*>(segment.data),
                                            count(segment.capacity), count(segment.length)};
      args.length += count(segment.length);
      args.num_steps += (count(segment.length) + kTokens - 1) / kTokens;
    }
    const int tiles = (args.rows * (args.num_heads / args.num_kv_heads) + kQueries - 1) / kQueries;
    // as many blocks as fill the GPU twice
    args.num_splits = std::clamp(2 * device().num_cores() / (tiles * args.num_kv_heads), 1,
                                 std::min(args.num_steps, kMaxSplits));
    const std::int64_t heads = static_cast<std::int64_t>(args.num_splits) * args.rows * args.num_heads;
    args.values = workspace(stream, heads * (args.head_dim + 2));
    args.weight = args.values + heads * args.head_dim;
    const Grid grid{tiles, args.num_kv_heads, args.num_splits};
    if (args.head_dim <= 64) {
      launch<AttentionKernel<64>>(stream, grid, AttentionBlock<64>::kSharedBytes, args);
    } else {
      launch<AttentionKernel<128>>(stream, grid, AttentionBlock<128>::kSharedBytes, args);
    }
    launch<CombineKernel>(stream, {args.rows}, kRowSharedBytes + args.num_splits * args.num_heads * 4,
                          {args.values, args.weight, args.num_splits, args.num_heads, args.head_dim, y});
  }

  void window_attention(Stream&, float*, const AttentionShape&, const Rotary&, Format,
                        std::span<const std::int32_t>, const Rows&) override {
    absent("window_attention");
  }
  void euler(Stream&, const EulerStep&) override { absent("euler"); }
  void embed(Stream&, std::span<const std::int64_t>, Format, const void*, std::int64_t, float*) override {
    absent("embed");
  }

 private:
  static constexpr int kMaxSplits = 16;

  Device& device() { return static_cast<Device&>(*this); }
  static int count(std::int64_t value) { return static_cast<int>(value); }

  [[noreturn]] static void absent(const std::string& what) {
    throw DeviceError("cuda: " + what +
                      " is not there yet; docs/cuda.md has what is, the cpu backend has all");
  }
  static void check_cache(const std::string& what, Format cache, std::int64_t head_dim) {
    if (cache != Format::bf16) absent(what + " with a cache that is not bf16");
    if (head_dim > kMaxHeadDim)
      absent(what + " with heads of more than " + std::to_string(kMaxHeadDim) + " dims");
  }

  template <class Kernel>
  void launch(Stream& stream, Grid grid, int shared_bytes, const typename Kernel::Arguments& args) {
    device().template launch<Kernel>(stream, grid, shared_bytes, args);
  }

  float* workspace(Stream& stream, std::int64_t size) {
    Memory& memory = static_cast<GpuStream&>(stream).workspace;
    // what is queued may still be using it
    if (memory.size() < static_cast<std::size_t>(size) * sizeof(float)) this->synchronize(stream);
    return reserve(*this, memory, size);
  }

  static ProductArguments arguments(const std::string& what, const Rows& x, const Linear& layer,
                                    std::int64_t num_panels) {
    if (layer.format != Format::bf16 && layer.format != Format::int8)
      absent(what + (layer.format == Format::f32 ? " with fp32 weights"
                                                 : " with int8 weights and 16-bit rows (w8)"));
    ProductArguments args;
    args.panels = static_cast<const std::byte*>(layer.weight);
    args.panel_stride = panel_bytes(layer.format, layer.in);
    args.num_panels = count(num_panels);
    args.rows = static_cast<const std::byte*>(x.data);
    args.row_stride = x.stride;
    args.num_rows = count(x.count);
    args.depth = count(round_up(layer.in, kDepth) * bytes_per_weight(layer.format));
    args.row_scale = x.scale;
    args.scale = layer.scale;
    args.bias = layer.bias;
    return args;
  }

  template <bool kGated>
  void multiply(Stream& stream, Format format, const ProductArguments& args) {
    if (args.num_rows == 0) return;
    if (format == Format::int8) {
      multiply_as<kGated, std::int32_t>(stream, args);
    } else {
      multiply_as<kGated, float>(stream, args);
    }
  }
  template <bool kGated, class Sum>
  void multiply_as(Stream& stream, const ProductArguments& args) {
    if (args.num_rows <= OneRow::kBlockRows) {
      multiply_by<OneRow, kGated, Sum>(stream, args);
    } else if (args.num_rows <= FewRows::kBlockRows) {
      multiply_by<FewRows, kGated, Sum>(stream, args);
    } else {
      multiply_by<ManyRows, kGated, Sum>(stream, args);
    }
  }
  template <class Tiling, bool kGated, class Sum>
  void multiply_by(Stream& stream, const ProductArguments& args) {
    const Grid grid{(args.num_panels + 2 * Tiling::kBlockPairs - 1) / (2 * Tiling::kBlockPairs),
                    (args.num_rows + Tiling::kBlockRows - 1) / Tiling::kBlockRows};
    launch<ProductKernel<Tiling, Sum, kGated>>(stream, grid, Tiling::kSharedBytes, args);
  }
};

}  // namespace wallx::cuda
