// OpsTest: every backend of this machine agrees with the reference, at every number of threads.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/op.hpp"
#include "backend/reference/reference_backend.hpp"

namespace wallx::test {
namespace {

struct Named {
  std::string name;
  int threads;
  std::unique_ptr<Backend> backend;
};

const std::vector<Named>& backends() {
  static const std::vector<Named> all = [] {
    std::vector<Named> found;
    for (const cpu::Kernels* kernels : cpu::available_kernels())
      for (const int threads : {1, 2, 3}) {
        auto backend = std::make_unique<CpuBackend>(CpuOptions{threads, {}, kernels->name});
        const std::string name = backend->name() + ", threads " + std::to_string(threads);
        found.push_back({name, threads, std::move(backend)});
      }
    return found;
  }();
  return all;
}

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
    const Doubles expected(truth.begin(), truth.end());
    Floats alone;
    for (const Named& one : backends()) {
      const Floats found = result_of(op, *one.backend);
      residue.set_tolerance(op.tolerance());
      residue.compare(op.name() + " on " + one.name, found, expected);
      // how rows are shared out among threads must change no bit
      if (one.threads == 1) alone = found;
      if (found != alone)
        fail(__FILE__, __LINE__, op.name() + " on " + one.name + ": other bits than one thread");
    }
  }
}

constexpr Format kWeights[] = {Format::f32, Format::bf16, Format::int8, Format::w8};
constexpr Format kRowFormats[] = {Format::f32, Format::bf16, Format::int8};

}  // namespace

TEST(products_agree_at_every_number_of_rows) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    for (std::int64_t rows = 1; rows <= 40; ++rows)
      ops.push_back({.rows = rows, .in = 50, .out = 70, .format = format});
    for (const std::int64_t rows : {246, 504})
      ops.push_back({.rows = rows, .in = 33, .out = 65, .format = format});
    agree(std::string("product, 1..504 rows, ") + name_of(format), ops);
  }
}

TEST(products_agree_at_every_odd_size) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    for (const std::int64_t in : {1, 2, 15, 16, 17, 63, 64, 65, 200})
      for (const std::int64_t out : {1, 15, 16, 17, 31, 32, 33, 100})
        for (const std::int64_t rows : {1, 5})
          ops.push_back({.rows = rows, .in = in, .out = out, .format = format});
    ops.push_back({.rows = 3, .in = 2048, .out = 96, .format = format});
    ops.push_back({.rows = 2, .in = 11008, .out = 40, .format = format});
    agree(std::string("product, odd sizes, ") + name_of(format), ops);
  }
}

TEST(products_agree_with_every_epilogue) {
  for (const Format format : kWeights) {
    std::vector<ProductOp> ops;
    for (const Activation activation : {Activation::none, Activation::silu, Activation::gelu})
      for (const bool has_bias : {false, true})
        for (const bool has_gate : {false, true})
          for (const Residue residual : {Residue::none, Residue::separate, Residue::in_place})
            for (const std::int64_t gap : {0, 7})
              ops.push_back({.rows = 13,
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
      for (const std::int64_t rows : {1, 2, 13, 30})
        for (const std::int64_t in : {17, 64})
          for (const std::int64_t out : {1, 16, 33, 100})
            for (const bool has_bias : {false, true})
              ops.push_back(
                  {.rows = rows, .in = in, .out = out, .format = format, .to = to, .has_bias = has_bias});
      agree(std::string("gated product, ") + name_of(format) + " to " + name_of(to), ops);
    }
}

TEST(norms_agree) {
  for (const Format to : kRowFormats) {
    std::vector<NormOp> ops;
    for (const Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms, Norm::Kind::adaptive})
      for (const std::int64_t rows : {1, 3, 37})
        for (const std::int64_t width : {1, 2, 15, 16, 31, 128, 300})
          for (const float scale : {1e-3f, 1.0f, 1e4f})
            ops.push_back({.rows = rows, .width = width, .kind = kind, .to = to, .scale = scale});
    agree(std::string("norm to ") + name_of(to), ops);
  }
}

TEST(attention_over_a_cache_agrees) {
  for (const Format format : {Format::f32, Format::bf16})
    for (const bool is_right_angled : {true, false}) {
      std::vector<CacheOp> ops;
      const auto add = [&](CacheOp op) {
        op.format = format;
        op.is_right_angled = is_right_angled;
        ops.push_back(op);
      };
      for (const bool is_causal : {true, false}) {
        for (const std::int64_t rows : {1, 2, 5, 16, 33})
          for (const std::vector<std::int64_t>& before :
               std::vector<std::vector<std::int64_t>>{{}, {1}, {16, 1}, {64, 7}, {31, 33, 0, 15}})
            for (const std::int64_t room : {0, 3}) {
              std::vector<std::int64_t> segments = before;
              segments.push_back(rows + room);
              add({.rows = rows,
                   .num_heads = 4,
                   .num_kv_heads = 2,
                   .head_dim = 16,
                   .segments = segments,
                   .is_causal = is_causal});
            }
        for (const std::int64_t dim : {2, 6, 18, 30, 80, 128})
          for (const std::int64_t group : {1, 3, 8})
            add({.rows = 7,
                 .num_heads = 2 * group,
                 .num_kv_heads = 2,
                 .head_dim = dim,
                 .segments = {20, 13},
                 .is_causal = is_causal});
      }
      add({.rows = 32,
           .num_heads = 8,
           .num_kv_heads = 2,
           .head_dim = 128,
           .segments = {246, 32},
           .is_causal = false});
      agree(std::string("cache attention, ") + name_of(format) + (is_right_angled ? "" : ", turned"), ops);
    }
}

TEST(queries_and_keys_are_rotated_in_place) {
  std::vector<CacheOp> ops;
  for (const Format format : {Format::f32, Format::bf16})
    for (const std::int64_t rows : {1, 2, 33})
      for (const std::int64_t dim : {2, 18, 80, 128})
        ops.push_back({.rows = rows,
                       .num_heads = 6,
                       .num_kv_heads = 2,
                       .head_dim = dim,
                       .segments = {5, rows + 3},
                       .format = format,
                       .is_right_angled = false,
                       .is_of_rotation = true});
  agree("rotation", ops);
}

TEST(attention_makes_rows_for_the_next_product) {
  for (const Format to : {Format::bf16, Format::int8})
    for (const Format format : {Format::f32, Format::bf16}) {
      agree(std::string("cache attention to ") + name_of(to), std::vector<CacheOp>{{.rows = 9,
                                                                                    .num_heads = 6,
                                                                                    .num_kv_heads = 2,
                                                                                    .head_dim = 20,
                                                                                    .segments = {17, 12},
                                                                                    .format = format,
                                                                                    .to = to}});
      agree(std::string("window attention to ") + name_of(to),
            std::vector<WindowOp>{
                {.num_heads = 3, .head_dim = 20, .offsets = {0, 9, 30}, .format = format, .to = to}});
    }
}

TEST(attention_inside_windows_agrees) {
  for (const Format format : {Format::f32, Format::bf16})
    for (const bool is_right_angled : {true, false}) {
      std::vector<WindowOp> ops;
      for (const std::vector<std::int32_t>& offsets : std::vector<std::vector<std::int32_t>>{
               {0, 1}, {0, 16}, {0, 1, 2, 3}, {0, 16, 24, 28, 44}, {0, 0, 5, 5, 9, 9}, {0, 70, 75}})
        for (const std::int64_t heads : {1, 3})
          for (const std::int64_t dim : {2, 16, 20, 80, 128})
            ops.push_back({.num_heads = heads,
                           .head_dim = dim,
                           .offsets = offsets,
                           .format = format,
                           .is_right_angled = is_right_angled});
      agree(std::string("window attention, ") + name_of(format) + (is_right_angled ? "" : ", turned"), ops);
    }
}

// scores of a thousand: their exponentials must not overflow, and the largest wins
TEST(attention_survives_sharp_scores) {
  std::vector<CacheOp> ops;
  for (const bool is_causal : {true, false})
    ops.push_back({.rows = 6,
                   .num_heads = 2,
                   .num_kv_heads = 1,
                   .head_dim = 16,
                   .segments = {10, 6},
                   .is_causal = is_causal,
                   .format = Format::bf16,
                   .scale = 30.0f});
  agree("cache attention, sharp", ops);
}

TEST(euler_steps_agree) {
  std::vector<EulerOp> ops;
  for (const std::int64_t rows : {1, 32})
    for (const std::int64_t dim : {1, 7})
      for (const std::int64_t gap : {0, 7})
        for (const bool has_padding : {false, true})
          for (const bool does_predict_actions : {false, true})
            for (const float time : {0.0f, 0.5f, 0.99f})
              ops.push_back({rows, dim, gap, has_padding, does_predict_actions, time});
  agree("euler", ops);
}

TEST(embeddings_agree) {
  agree("embed", std::vector<EmbedOp>{{{0}, 1, Format::f32},
                                      {{4, 0, 4, 2}, 33, Format::f32},
                                      {{4, 0, 4, 2}, 33, Format::bf16},
                                      {{9}, 128, Format::bf16}});
}

}  // namespace wallx::test
