// CpuBackend: how operations are shared out among the threads.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/cpu_backend.hpp"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "backend/cpu/fp32.hpp"
#include "backend/cpu/packed_attention.hpp"
#include "backend/cpu/packed_rows.hpp"
#include "backend/cpu/vector.hpp"

namespace wallx {
namespace {

using namespace cpu;

struct CpuStream : Stream {
  std::vector<float> values;   // between the two halves of an operation
  std::vector<float> largest;  // per thread, of each lane of each row
};

float* sized(std::vector<float>& buffer, std::int64_t size) {
  if (buffer.size() < static_cast<std::size_t>(size)) buffer.resize(static_cast<std::size_t>(size));
  return buffer.data();
}

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// runs of a size that leaves each thread several to take
std::int64_t run_length(std::int64_t count, int threads) {
  return std::max<std::int64_t>(1, count / (threads * 6));
}

Dense dense(const Linear& layer, std::int64_t first, std::int64_t out) {
  return {static_cast<const float*>(layer.weight) + first * layer.in,
          layer.bias ? layer.bias + first : nullptr, out, layer.in};
}

}  // namespace

CpuBackend::CpuBackend(const CpuOptions& options)
    : kernels_(options.kernels.empty() ? *available_kernels().front() : find_kernels(options.kernels)),
      pool_(options.threads == 0 ? usable_cores() : options.threads, options.cores) {}

std::string CpuBackend::name() const { return std::string("cpu ") + kernels_.name; }

Memory CpuBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  constexpr std::size_t kHuge = 2 << 20;
  if (bytes < kHuge) {
    const std::size_t size = (bytes + 63) / 64 * 64;
    void* data = std::aligned_alloc(64, size);
    if (!data) throw std::bad_alloc();
    std::memset(data, 0, size);
    return {data, bytes, [](void* at, std::size_t) { std::free(at); }};
  }
  // straight from the system: zeros, on large pages where there are some
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  madvise(data, bytes, MADV_HUGEPAGE);
  return {data, bytes, [](void* at, std::size_t size) { munmap(at, size); }};
}

std::unique_ptr<Stream> CpuBackend::make_stream() { return std::make_unique<CpuStream>(); }

void CpuBackend::upload(Stream&, const void* host, void* device, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}

void CpuBackend::download(Stream&, const void* device, void* host, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}

void CpuBackend::copy(Stream&, const void* from, void* to, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

void CpuBackend::to_rows(const float* x, const Rows& y) {
  pool_.for_each(y.count, run_length(y.count, num_threads()),
                 [&](std::int64_t r) { to_row(x + r * y.width, -1.0f, offset(), r, y); });
}

void CpuBackend::norm(Stream&, const float* x, const Norm& norm, const Rows& y) {
  if (y.format == Format::f32) {
    const std::int64_t run = run_length(y.count, num_threads());
    pool_.for_each((y.count + run - 1) / run, 1, [&](std::int64_t i) {
      const std::int64_t begin = i * run, rows = std::min(run, y.count - begin);
      normalize(x + begin * y.width, rows, y.width, norm, static_cast<float*>(y.data) + begin * y.width);
    });
    return;
  }
  if (norm.kind == Norm::Kind::none) return to_rows(x, y);
  pool_.for_each(y.count, run_length(y.count, num_threads()), [&](std::int64_t r) {
    thread_local std::vector<float> buffer;
    float* normed = sized(buffer, y.width);
    normalize_row(x + r * y.width, y.width, norm, normed);
    to_row(normed, -1.0f, offset(), r, y);
  });
}

// finish(sums, first row, rows, pair, thread) for every tile of a packed product
template <class F>
void CpuBackend::multiply(const Rows& x, const Linear& layer, std::int64_t num_pairs, F finish) {
  const std::int64_t num_tiles = (x.count + kernels_.max_rows - 1) / kernels_.max_rows;
  const std::int64_t pair_bytes = 2 * panel_bytes(layer.format, layer.in);
  const bool is_wide = layer.format == Format::w8;
  const Format rows_format = is_wide ? Format::bf16 : layer.format;
  const std::int64_t groups = panel_bytes(rows_format, layer.in) / 64;
  const TileKernel* kernels = rows_format == Format::int8 ? kernels_.int8_tiles : kernels_.bf16_tiles;
  // The next panels come from memory while these are computed, a share of them with every tile. A single row
  // is done before they could come; there the processor's own prefetch does better.
  const int lines = x.count <= 4 || is_wide ? 0 : static_cast<int>((8 + num_tiles - 1) / num_tiles);
  Shares shares(num_pairs, num_threads());
  auto share = [&](int thread) {
    alignas(64) float sums[kMaxTileRows * 2 * kPanel];
    thread_local std::vector<std::byte> wide_buffer;
    const auto* weights = static_cast<const std::byte*>(layer.weight);
    std::byte* wide = nullptr;
    if (is_wide) {
      wide_buffer.resize(static_cast<std::size_t>(2 * pair_bytes) + 64);
      wide = reinterpret_cast<std::byte*>(
          round_up(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(wide_buffer.data())), 64));
    }
    std::int64_t pair = 0;
    while (shares.next(thread, pair)) {
      Tile tile;
      tile.first = weights + pair * pair_bytes;
      tile.stride = x.stride;
      tile.groups = groups;
      tile.offset = layer.offset ? layer.offset + pair * 2 * kPanel : nullptr;
      tile.sums = sums;
      tile.lines = lines;
      const std::byte* next = weights + (pair + 1 < num_pairs ? pair + 1 : pair) * pair_bytes;
      if (is_wide) {
        widen_panels(tile.first, panel_bytes(Format::int8, layer.in) / 64, wide);
        tile.first = wide;
      }
      tile.second = tile.first + groups * 64;
      for (std::int64_t t = 0; t < num_tiles; ++t) {
        const std::int64_t row = x.count * t / num_tiles;
        const int rows = static_cast<int>(x.count * (t + 1) / num_tiles - row);
        tile.rows = static_cast<const std::byte*>(x.data) + row * x.stride;
        tile.next = next + t * lines * (groups / 4) * 64;
        kernels[rows](tile);
        finish(sums, row, rows, pair, thread);
      }
    }
  };
  pool_.run(share);
}

void CpuBackend::product(Stream&, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
                         std::int64_t y_stride) {
  if (y_stride == 0) y_stride = layer.out;
  const std::int64_t residual_stride = epilogue.residual_stride ? epilogue.residual_stride : layer.out;
  if (layer.format == Format::f32) {
    // a run of columns of their own keeps the weights streaming through once
    const std::int64_t run = round_up(run_length(layer.out, num_threads()), 32);
    pool_.for_each((layer.out + run - 1) / run, 1, [&](std::int64_t i) {
      const std::int64_t first = i * run, out = std::min(run, layer.out - first);
      Epilogue part = epilogue;
      if (part.gate) part.gate += first;
      if (part.residual) part.residual += first;
      part.residual_stride = residual_stride;
      linear(static_cast<const float*>(x.data), x.count, dense(layer, first, out), part, y + first, y_stride);
    });
    return;
  }
  multiply(x, layer, (layer.out + 2 * kPanel - 1) / (2 * kPanel),
           [&](const float* sums, std::int64_t row, int rows, std::int64_t pair, int) {
             const std::int64_t column = pair * 2 * kPanel;
             Finish finish;
             finish.is_int = layer.format == Format::int8;
             finish.row_scale = x.scale ? x.scale + row : nullptr;
             finish.scale = layer.scale ? layer.scale + column : nullptr;
             finish.bias = layer.bias ? layer.bias + column : nullptr;
             finish.gate = epilogue.gate ? epilogue.gate + column : nullptr;
             finish.activation = epilogue.activation;
             if (epilogue.residual) finish.residual = epilogue.residual + row * residual_stride + column;
             finish.residual_stride = residual_stride;
             finish_tile(sums, rows, std::min(2 * kPanel, layer.out - column), finish,
                         y + row * y_stride + column, y_stride);
           });
}

void CpuBackend::gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) {
  auto& work = static_cast<CpuStream&>(stream);
  if (layer.gate.format == Format::f32) {
    const bool is_direct = y.format == Format::f32;
    float* values = is_direct ? static_cast<float*>(y.data) : sized(work.values, x.count * layer.out);
    const std::int64_t run = round_up(run_length(layer.out, num_threads()), 32);
    pool_.for_each((layer.out + run - 1) / run, 1, [&](std::int64_t i) {
      const std::int64_t first = i * run, out = std::min(run, layer.out - first);
      gated_linear(static_cast<const float*>(x.data), x.count, dense(layer.gate, first, out),
                   dense(layer.up, first, out), values + first, layer.out);
    });
    if (!is_direct) to_rows(values, y);
    return;
  }
  float* values = sized(work.values, x.count * layer.out);
  work.largest.assign(static_cast<std::size_t>(num_threads() * x.count * kLanes), 0.0f);
  multiply(x, layer.gate, (layer.out + kPanel - 1) / kPanel,
           [&](const float* sums, std::int64_t row, int rows, std::int64_t pair, int thread) {
             Finish finish;
             finish.is_int = layer.gate.format == Format::int8;
             finish.row_scale = x.scale ? x.scale + row : nullptr;
             finish.scale = layer.gate.scale ? layer.gate.scale + pair * 2 * kPanel : nullptr;
             finish.bias = layer.gate.bias ? layer.gate.bias + pair * 2 * kPanel : nullptr;
             finish_gated_tile(sums, rows, std::min(kPanel, layer.out - pair * kPanel), finish,
                               values + row * layer.out + pair * kPanel, layer.out,
                               work.largest.data() + (thread * x.count + row) * kLanes);
           });
  pool_.for_each(y.count, run_length(y.count, num_threads()), [&](std::int64_t r) {
    float largest = 0;
    for (int thread = 0; thread < num_threads(); ++thread)
      largest = larger_magnitude(
          largest, largest_magnitude(work.largest.data() + (thread * x.count + r) * kLanes, kLanes));
    to_row(values + r * y.width, largest, offset(), r, y);
  });
}

std::size_t CpuBackend::cache_bytes(Format format, std::int64_t num_kv_heads, std::int64_t head_dim,
                                    std::int64_t capacity) const {
  return static_cast<std::size_t>(
      num_kv_heads * (format == Format::f32
                          ? 2 * capacity * head_dim * 4
                          : packed_keys_bytes(head_dim, capacity) + packed_values_bytes(head_dim, capacity)));
}

void CpuBackend::rotate_and_cache(Stream&, float* qkv, const AttentionShape& shape, const Rotary& rotary,
                                  Format cache, std::int64_t position, const CacheSegment& segment) {
  if (cache == Format::f32) return cpu::rotate_and_cache(qkv, shape, rotary, position, segment);
  const std::int64_t dim = shape.head_dim, heads = shape.num_heads + shape.num_kv_heads;
  const std::int64_t stride = (heads + shape.num_kv_heads) * dim;
  // rows by two: two tokens share the words that hold their values
  pool_.for_each((position + shape.rows + 1) / 2 - position / 2, 8, [&](std::int64_t pair) {
    const std::int64_t first = (position / 2 + pair) * 2;
    const float* values[2] = {};
    for (int i = 0; i < 2; ++i) {
      const std::int64_t at = first + i, r = at - position;
      if (r < 0 || r >= shape.rows) continue;
      float* row = qkv + r * stride;
      values[i] = row + heads * dim;
      apply_rotary(row, 1, stride, heads, dim, {rotary.cos + r * dim, rotary.sin + r * dim});
      for (std::int64_t h = 0; h < shape.num_kv_heads; ++h)
        write_key(packed_head(segment, dim, h), at, dim, row + (shape.num_heads + h) * dim);
    }
    for (std::int64_t h = 0; h < shape.num_kv_heads; ++h)
      write_values(packed_head(segment, dim, h), first, dim, values[0] ? values[0] + h * dim : nullptr,
                   values[1] ? values[1] + h * dim : nullptr);
  });
  for (std::int64_t h = 0; h < shape.num_kv_heads; ++h)
    clear_values(packed_head(segment, dim, h), position + shape.rows, dim);
}

void CpuBackend::cache_attention(Stream& stream, const float* qkv, const AttentionShape& shape,
                                 bool is_causal, Format cache, std::span<const CacheSegment> segments,
                                 const Rows& y) {
  auto& work = static_cast<CpuStream&>(stream);
  const std::int64_t dim = shape.head_dim, width = shape.num_heads * dim;
  float* values =
      y.format == Format::f32 ? static_cast<float*>(y.data) : sized(work.values, shape.rows * width);
  if (cache == Format::f32) {
    pool_.for_each(shape.num_heads, 1, [&](std::int64_t head) {
      cpu::cache_attention(qkv, shape, is_causal, segments, head, values);
    });
  } else {
    const std::int64_t stride = width + 2 * shape.num_kv_heads * dim;
    const std::int64_t group = shape.num_heads / shape.num_kv_heads;  // heads that share keys
    const std::int64_t num_queries = shape.rows * group;
    const std::int64_t num_tiles = (num_queries + kernels_.max_rows - 1) / kernels_.max_rows;
    std::int64_t length = 0;
    for (const CacheSegment& segment : segments) length += segment.length;
    // the last rows see the most: they go first
    pool_.for_each(shape.num_kv_heads * num_tiles, 1, [&](std::int64_t item) {
      const std::int64_t head = item % shape.num_kv_heads;
      const std::int64_t t = num_tiles - 1 - item / shape.num_kv_heads;
      thread_local std::vector<PackedHead> parts;
      parts.clear();
      for (const CacheSegment& segment : segments) parts.push_back(packed_head(segment, dim, head));
      QueryTile tile;
      for (std::int64_t i = num_queries * t / num_tiles; i < num_queries * (t + 1) / num_tiles; ++i) {
        const std::int64_t row = i / group, column = (head * group + i % group) * dim;
        tile.queries[tile.rows] = qkv + row * stride + column;
        tile.outputs[tile.rows] = values + row * width + column;
        tile.visible[tile.rows++] = is_causal ? length - shape.rows + 1 + row : length;
      }
      attend(kernels_, tile, dim, parts);
    });
  }
  if (y.format != Format::f32) to_rows(values, y);
}

void CpuBackend::window_attention(Stream& stream, float* qkv, const AttentionShape& shape,
                                  const Rotary& rotary, Format format, std::span<const std::int32_t> offsets,
                                  const Rows& y) {
  auto& work = static_cast<CpuStream&>(stream);
  const std::int64_t dim = shape.head_dim, heads = shape.num_heads, width = heads * dim;
  float* values =
      y.format == Format::f32 ? static_cast<float*>(y.data) : sized(work.values, shape.rows * width);
  const auto windows = static_cast<std::int64_t>(offsets.size()) - 1;
  if (format == Format::f32) {
    pool_.for_each(shape.rows, run_length(shape.rows, num_threads()), [&](std::int64_t r) {
      apply_rotary(qkv + r * 3 * width, 1, 3 * width, 2 * heads, dim,
                   {rotary.cos + r * dim, rotary.sin + r * dim});
    });
    pool_.for_each(windows * heads, 1, [&](std::int64_t item) {
      const auto window = static_cast<std::size_t>(item / heads);
      cpu::window_attention(qkv, shape, offsets[window], offsets[window + 1], item % heads, values);
    });
  } else {
    pool_.for_each(windows * heads, 1, [&](std::int64_t item) {
      thread_local std::vector<std::byte> panels;
      thread_local std::vector<float> rotated;
      const auto window = static_cast<std::size_t>(item / heads);
      const std::int64_t begin = offsets[window], length = offsets[window + 1] - begin;
      const std::int64_t capacity = round_up(length, kPanel), head = item % heads;
      const std::int64_t keys = packed_keys_bytes(dim, capacity);
      panels.assign(static_cast<std::size_t>(keys + packed_values_bytes(dim, capacity)) + 64, std::byte{0});
      auto* at = reinterpret_cast<std::byte*>(
          round_up(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(panels.data())), 64));
      const PackedHead part{at, at + keys, capacity, length};
      float* turned = sized(rotated, (length + 1) * dim);  // queries, and one key
      for (std::int64_t i = 0; i < length; ++i) {
        const std::int64_t row = begin + i;
        const float* q = qkv + row * 3 * width + head * dim;
        const float *cos = rotary.cos + row * dim, *sin = rotary.sin + row * dim;
        rotate_head(q, dim, cos, sin, turned + i * dim);
        rotate_head(q + width, dim, cos, sin, turned + length * dim);
        write_key(part, i, dim, turned + length * dim);
        if (i % 2 == 0) write_values(part, i, dim, q + 2 * width, i + 1 < length ? q + 5 * width : nullptr);
      }
      const std::int64_t num_tiles = (length + kernels_.max_rows - 1) / kernels_.max_rows;
      for (std::int64_t t = 0; t < num_tiles; ++t) {
        QueryTile tile;
        for (std::int64_t i = length * t / num_tiles; i < length * (t + 1) / num_tiles; ++i) {
          tile.queries[tile.rows] = turned + i * dim;
          tile.outputs[tile.rows] = values + (begin + i) * width + head * dim;
          tile.visible[tile.rows++] = length;
        }
        attend(kernels_, tile, dim, {&part, 1});
      }
    });
  }
  if (y.format != Format::f32) to_rows(values, y);
}

void CpuBackend::euler(Stream&, const EulerStep& step) {
  for (std::int64_t r = 0; r < step.rows; ++r)
    for (std::int64_t d = 0; d < step.dim; ++d) {
      const std::int64_t i = r * step.dim + d;
      float& x = step.x[r * step.x_stride + d];
      float& v = step.velocity[i];
      // the bound is the newer reference's
      if (step.does_predict_actions) v = (v - x) / std::max(1 - step.time, 0.05f);
      if (step.padding) {
        const float straight = step.padding[d] - step.noise[i];
        v = v * step.mask[i] + straight * (1 - step.mask[i]);
      }
      x += v * step.dt;
    }
}

void CpuBackend::embed(Stream&, std::span<const std::int64_t> ids, Format format, const void* table,
                       std::int64_t width, float* y) {
  for (std::size_t i = 0; i < ids.size(); ++i, y += width) {
    if (format == Format::f32) {
      std::copy_n(static_cast<const float*>(table) + ids[i] * width, width, y);
      continue;
    }
    const auto* row = static_cast<const std::uint16_t*>(table) + ids[i] * width;
    for (std::int64_t d = 0; d < width; ++d) {
      const std::uint32_t bits = static_cast<std::uint32_t>(row[d]) << 16;
      std::memcpy(y + d, &bits, sizeof bits);
    }
  }
}

}  // namespace wallx
