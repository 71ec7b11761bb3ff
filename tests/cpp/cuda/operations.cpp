// OperationsTest: the CUDA backend agrees with the reference: the operations of backend/op.hpp that it has.
// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "backend/cuda/fragments.hpp"
#include "backend/op.hpp"
#include "backend/reference/reference_backend.hpp"
#include "base/errors.hpp"
#include "gpu.hpp"

namespace wallx::test {
namespace {

template <class Op>
Floats result_of(const Op& op, Backend& backend) {
  const Ready ready = op.on(backend);
  ready.run();
  return ready.result();
}

template <class Op>
void agree(const std::string& family, const std::vector<Op>& ops) {
  static ReferenceBackend reference;
  Residual residue(family, ops.front().tolerance());
  for (const Op& op : ops) {
    const Floats truth = result_of(op.exact(), reference);
    residue.set_tolerance(op.tolerance());
    residue.compare(op.name(), result_of(op, gpu()), Doubles(truth.begin(), truth.end()));
  }
}

constexpr Format kWeights[] = {Format::bf16, Format::int8};
constexpr Format kRowFormats[] = {Format::f32, Format::bf16, Format::int8};

}  // namespace

// eight threads load 16 bytes at a time: from all 32 banks, or they wait for each other
TEST(fragments_leave_shared_memory_without_bank_conflicts) {
  for (int product = 0; product < 2; ++product)
    for (int half = 0; half < 2; ++half) {
      std::set<int> all;
      for (int first = 0; first < 32; first += 8) {
        std::set<int> panel_banks, row_banks;
        for (int thread = first; thread < first + 8; ++thread) {
          const int i = thread / 4, j = thread % 4;
          const int chunk = cuda::panel_chunk(cuda::word_of_run(j, product, half), cuda::quad_of(i));
          CHECK(0 <= chunk && chunk < 64);
          all.insert(cuda::panel_of(i) * 64 + chunk);
          panel_banks.insert(chunk % 8);
          row_banks.insert(cuda::row_chunk(i, j) % 8);
        }
        CHECK_EQ(panel_banks.size(), 8u);
        CHECK_EQ(row_banks.size(), 8u);
      }
      CHECK_EQ(all.size(), 32u);  // no two threads hold the same outputs
    }
}

TEST(products_agree_at_every_tiling) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    for (const std::int64_t rows : {1, 8, 9, 32, 33, 130})
      for (const std::int64_t in : {1, 40, 200})
        for (const std::int64_t out : {1, 33, 130})
          if (in != 200 || out != 33) ops.push_back({.rows = rows, .in = in, .out = out, .format = format});
    agree(std::string("product, sizes, ") + name_of(format), ops);
  }
}

TEST(products_agree_over_many_stages) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    for (const std::int64_t rows : {1, 32, 65})
      for (const std::int64_t in : {1000, 2048})
        ops.push_back({.rows = rows, .in = in, .out = 64, .format = format});
    agree(std::string("product, depth, ") + name_of(format), ops);
  }
}

TEST(products_agree_with_every_epilogue) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    constexpr std::int64_t kRows[] = {3, 32, 70};
    for (const Activation activation : {Activation::none, Activation::silu, Activation::gelu})
      for (const bool has_bias : {false, true})
        for (const bool has_gate : {false, true})
          for (const Residue residual : {Residue::none, Residue::separate, Residue::in_place})
            for (const std::int64_t gap : {0, 7})
              ops.push_back({.rows = kRows[ops.size() / 2 % 3],
                             .in = 40,
                             .out = 71,
                             .format = format,
                             .activation = activation,
                             .has_bias = has_bias,
                             .has_gate = has_gate,
                             .residual = residual,
                             .gap = gap});
    agree(std::string("product, epilogues, ") + name_of(format), ops);
  }
}

TEST(gated_products_agree) {
  for (const Format format : kWeights)
    for (const Format to : kRowFormats) {
      std::vector<GatedOp> ops;
      for (const std::int64_t rows : {1, 13, 40})
        for (const std::int64_t out : {5, 75})
          for (const bool has_bias : {false, true})
            ops.push_back({.rows = rows,
                           .in = has_bias ? 130 : 17,
                           .out = out,
                           .format = format,
                           .to = to,
                           .has_bias = has_bias});
      agree(std::string("gated product, ") + name_of(format) + " to " + name_of(to), ops);
    }
}

TEST(norms_agree) {
  for (const Format to : kRowFormats) {
    std::vector<NormOp> ops;
    for (const Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms, Norm::Kind::adaptive})
      for (const std::int64_t width : {1, 2, 31, 130})
        ops.push_back({.rows = 3, .width = width, .kind = kind, .to = to});
    // wide ones are read through no product: it would take a matrix of their width
    if (to == Format::f32)
      for (const Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms, Norm::Kind::adaptive})
        ops.push_back({.rows = 2, .width = 3001, .kind = kind, .to = to, .scale = 1e4f});
    agree(std::string("norm to ") + name_of(to), ops);
  }
}

TEST(attention_over_a_cache_agrees) {
  std::vector<CacheOp> ops;
  for (const bool is_causal : {true, false}) {
    for (const std::int64_t rows : {1, 5, 33})
      for (const std::vector<std::int64_t>& before :
           std::vector<std::vector<std::int64_t>>{{}, {16, 1}, {31, 33, 0, 15}}) {
        std::vector<std::int64_t> segments = before;
        segments.push_back(rows + (rows == 5 ? 3 : 0));
        ops.push_back({.rows = rows,
                       .num_heads = 4,
                       .num_kv_heads = 2,
                       .head_dim = 16,
                       .segments = segments,
                       .is_causal = is_causal,
                       .format = Format::bf16});
      }
    for (const std::int64_t dim : {2, 18, 64, 80, 128})
      ops.push_back({.rows = 7,
                     .num_heads = 6,
                     .num_kv_heads = 2,
                     .head_dim = dim,
                     .segments = {20, 13},
                     .is_causal = is_causal,
                     .format = Format::bf16,
                     .is_right_angled = false});
  }
  agree("cache attention", ops);
}

TEST(attention_of_an_action_step_agrees) {
  agree("cache attention, 32 queries of 16 heads", std::vector<CacheOp>{{.rows = 32,
                                                                         .num_heads = 16,
                                                                         .num_kv_heads = 2,
                                                                         .head_dim = 128,
                                                                         .segments = {246, 32},
                                                                         .is_causal = false,
                                                                         .format = Format::bf16}});
}

TEST(queries_and_keys_are_rotated_in_place) {
  std::vector<CacheOp> ops;
  for (const std::int64_t dim : {2, 18, 80, 128})
    ops.push_back({.rows = 5,
                   .num_heads = 6,
                   .num_kv_heads = 2,
                   .head_dim = dim,
                   .segments = {5, 8},
                   .format = Format::bf16,
                   .is_right_angled = false,
                   .is_of_rotation = true});
  agree("rotation", ops);
}

TEST(attention_makes_rows_for_the_next_product) {
  for (const Format to : {Format::bf16, Format::int8})
    agree(std::string("cache attention to ") + name_of(to), std::vector<CacheOp>{{.rows = 9,
                                                                                  .num_heads = 6,
                                                                                  .num_kv_heads = 2,
                                                                                  .head_dim = 20,
                                                                                  .segments = {17, 12},
                                                                                  .format = Format::bf16,
                                                                                  .to = to}});
}

// scores of a thousand: their exponentials must not overflow, and the largest wins
TEST(attention_survives_sharp_scores) {
  agree("cache attention, sharp", std::vector<CacheOp>{{.rows = 6,
                                                        .num_heads = 2,
                                                        .num_kv_heads = 1,
                                                        .head_dim = 16,
                                                        .segments = {10, 6},
                                                        .is_causal = true,
                                                        .format = Format::bf16,
                                                        .scale = 30.0f}});
}

TEST(a_row_of_zeros_stays_zeros) {
  for (const Format format : kWeights) {
    Device device(gpu());
    const Rows rows = device.rows(format, Floats(40), 20);
    float* y = device.put(Floats(6, 1.0f));
    gpu().product(*device.stream, rows, device.layer(format, 3, 20, Floats(60, 0.5f), {}), {}, y);
    for (const float v : device.get(y, 6)) CHECK_EQ(v, 0.0f);
  }
}

// the engine refuses results that are not finite: rounding must not make numbers of them
TEST(what_is_not_finite_is_never_hidden) {
  constexpr std::int64_t kIn = 50, kOut = 20, kRows = 12;
  std::mt19937 random(6);
  Floats x = random_floats(random, kRows * kIn);
  for (std::int64_t r = 0; r < kRows; ++r)
    if (r % 3 != 0)
      x[static_cast<std::size_t>(r * kIn + 4 * r)] = r % 3 == 1 ? NAN : r < 6 ? INFINITY : -INFINITY;
  const Floats weight = random_floats(random, 2 * kOut * kIn), ones(kIn, 1.0f);
  for (const Format format : kWeights)
    for (const Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms}) {
      Device device(gpu());
      const Rows rows = device.rows(format, kRows, kIn);
      gpu().norm(*device.stream, device.put(x), {kind, device.put(ones), nullptr, 1e-6f}, rows);
      const Rows gated = device.rows(format, kRows, kOut);
      gpu().gated_product(*device.stream, rows, device.gated(format, kOut, kIn, weight, {}), gated);
      float* y = device.put(Floats(kRows));
      gpu().product(*device.stream, gated, device.layer(format, 1, kOut, Floats(kOut, 1.0f), {}), {}, y);
      const Floats found = device.get(y, kRows);
      for (std::int64_t r = 0; r < kRows; ++r)
        CHECK_EQ(std::isfinite(found[static_cast<std::size_t>(r)]), r % 3 == 0);
    }
}

// rows in reused memory: behind their padded width, and in lines between, there may be anything
TEST(what_lies_behind_rows_does_not_matter) {
  for (const Format format : kWeights) {
    Device device(gpu());
    constexpr std::int64_t kRows = 5, kIn = 20;
    std::mt19937 random(7);
    const Floats x = random_floats(random, kRows * kIn), weight = random_floats(random, 40 * kIn);
    Floats results[2];
    for (const int fill : {0x00, 0xFF}) {
      const std::vector<std::uint8_t> before(rows_bytes(format, kRows, kIn), static_cast<std::uint8_t>(fill));
      const Rows rows = rows_in(device.put(before), format, kRows, kIn);
      gpu().norm(*device.stream, device.put(x), {}, rows);
      float* y = device.put(Floats(kRows * 40));
      gpu().product(*device.stream, rows, device.layer(format, 40, kIn, weight, {}), {}, y);
      results[fill != 0] = device.get(y, kRows * 40);
    }
    CHECK(results[0] == results[1]);
  }
}

TEST(what_is_not_there_is_refused_by_name) {
  Device device(gpu());
  float* y = device.put(Floats(64));
  const Rows x = device.rows(Format::bf16, 1, 16);
  Linear layer;
  layer.out = layer.in = 16;
  CHECK_THROWS(gpu().product(*device.stream, x, layer, {}, y), DeviceError, "product with fp32 weights");
  layer.format = Format::w8;
  CHECK_THROWS(gpu().product(*device.stream, x, layer, {}, y), DeviceError, "(w8)");
  CHECK_THROWS(gpu().cache_bytes(Format::f32, 2, 128, 16), DeviceError, "cache that is not bf16");
  CHECK_THROWS(gpu().cache_bytes(Format::bf16, 2, 256, 16), DeviceError, "more than 128 dims");
  CHECK_THROWS(gpu().window_attention(*device.stream, y, {}, {}, Format::bf16, {}, x), DeviceError,
               "window_attention");
  CHECK_THROWS(gpu().euler(*device.stream, {}), DeviceError, "euler");
  CHECK_THROWS(gpu().embed(*device.stream, {}, Format::bf16, nullptr, 16, y), DeviceError, "embed");
  const std::vector<CacheSegment> segments(129, {y, 16, 1});
  CHECK_THROWS(gpu().cache_attention(*device.stream, y, {1, 1, 1, 16}, true, Format::bf16, segments, x),
               DeviceError, "129 blocks, expected at most 128");
}

}  // namespace wallx::test
