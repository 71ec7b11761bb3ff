// AttentionTest: the CUDA backend's cache and its attention against plain loops in double precision.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "base/errors.hpp"
#include "gpu.hpp"

namespace wallx::test {
namespace {

double rounded(double value) {
  return static_cast<double>(float_of_bf16(bf16_of(static_cast<float>(value))));
}

struct AttentionCase {
  std::int64_t rows = 1, num_heads = 1, num_kv_heads = 1, head_dim = 16;
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;  // capacity and length; the last has the rows
  bool is_causal = false;
  Format to = Format::f32;

  std::string name() const {
    return std::to_string(rows) + " rows, " + std::to_string(num_heads) + "/" + std::to_string(num_kv_heads) +
           " heads of " + std::to_string(head_dim) + ", " + std::to_string(blocks.size()) + " blocks" +
           (is_causal ? " causal" : "") + " to " + std::to_string(static_cast<int>(to));
  }

  void run(std::mt19937& random, Residual& residual) const {
    const auto stream = gpu().make_stream();
    const std::int64_t dim = head_dim, width = (num_heads + 2 * num_kv_heads) * dim;
    std::vector<Device> caches;
    std::vector<CacheSegment> segments;
    std::vector<std::vector<Doubles>> keys(static_cast<std::size_t>(num_kv_heads)), values(keys);
    Floats rotated;  // of the query rows
    std::vector<Device> kept;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const auto [capacity, length] = blocks[b];
      const std::size_t bytes = gpu().cache_bytes(Format::bf16, num_kv_heads, dim, capacity);
      caches.emplace_back(Floats(bytes / sizeof(float), 3.0f));  // what is not in use may be anything finite
      segments.push_back({caches.back().at<void>(), capacity, length});
      // the rows' own come by themselves, behind the rest of their block
      const std::int64_t own = b + 1 == blocks.size() ? rows : 0;
      for (const auto& [position, count] :
           {std::pair<std::int64_t, std::int64_t>{0, length - own}, {length - own, own}}) {
        if (count == 0) continue;
        const Floats qkv = random_floats(random, count * width, 2.0f),
                     cos = random_floats(random, count * dim), sin = random_floats(random, count * dim);
        const Device device_cos(cos), device_sin(sin);
        kept.emplace_back(qkv);
        gpu().rotate_and_cache(*stream, kept.back().at(), {count, num_heads, num_kv_heads, dim},
                               {device_cos.at(), device_sin.at()}, Format::bf16, position, segments.back());
        const Floats after = kept.back().read(*stream);
        for (std::int64_t r = 0; r < count; ++r)
          for (std::int64_t h = 0; h < num_heads + 2 * num_kv_heads; ++h) {
            Doubles turned;
            for (std::int64_t i = 0; i < dim; ++i) {
              const auto at = [&](std::int64_t k) {
                return static_cast<double>(qkv[static_cast<std::size_t>(r * width + h * dim + k)]);
              };
              const auto c = static_cast<double>(cos[static_cast<std::size_t>(r * dim + i)]);
              const auto s = static_cast<double>(sin[static_cast<std::size_t>(r * dim + i)]);
              const double v = h >= num_heads + num_kv_heads ? at(i)
                               : i < dim / 2                 ? at(i) * c - at(i + dim / 2) * s
                                                             : at(i) * c + at(i - dim / 2) * s;
              CHECK_NEAR(static_cast<double>(after[static_cast<std::size_t>(r * width + h * dim + i)]), v,
                         1e-6);
              // the backend's own float, so that both round the same number
              turned.push_back(
                  rounded(static_cast<double>(after[static_cast<std::size_t>(r * width + h * dim + i)])));
            }
            if (h >= num_heads + num_kv_heads) {
              values[static_cast<std::size_t>(h - num_heads - num_kv_heads)].push_back(turned);
            } else if (h >= num_heads) {
              keys[static_cast<std::size_t>(h - num_heads)].push_back(turned);
            }
          }
        rotated = after;
      }
    }
    const DeviceRows y(to, rows, num_heads * dim);
    gpu().cache_attention(*stream, kept.back().at(), {rows, num_heads, num_kv_heads, dim}, is_causal,
                          Format::bf16, segments, y.rows);
    const std::vector<Doubles> found = y.read(*stream, true);
    const Floats scales =
        to == Format::int8 ? y.scales(*stream) : Floats(static_cast<std::size_t>(rows), 1.0f);
    for (std::int64_t r = 0; r < rows; ++r) {
      Doubles expected;
      double largest = 1e-30;
      for (std::int64_t h = 0; h < num_heads; ++h) {
        const auto kv = static_cast<std::size_t>(h / (num_heads / num_kv_heads));
        const std::size_t seen = keys[kv].size() - (is_causal ? static_cast<std::size_t>(rows - 1 - r) : 0);
        Doubles weights, out(static_cast<std::size_t>(dim), 0.0);
        double top = -INFINITY, total = 0;
        for (std::size_t t = 0; t < seen; ++t) {
          double score = 0;
          for (std::size_t i = 0; i < static_cast<std::size_t>(dim); ++i)
            score +=
                rounded(static_cast<double>(rotated[static_cast<std::size_t>(r * width + h * dim) + i])) *
                keys[kv][t][i];
          weights.push_back(score / std::sqrt(static_cast<double>(dim)));
          top = std::max(top, weights.back());
        }
        for (double& w : weights) total += w = std::exp(w - top);
        for (std::size_t t = 0; t < seen; ++t)
          for (std::size_t i = 0; i < out.size(); ++i) out[i] += weights[t] / total * values[kv][t][i];
        expected.insert(expected.end(), out.begin(), out.end());
      }
      for (double v : expected) largest = std::max(largest, std::abs(v));
      const auto row = static_cast<std::size_t>(r);
      for (std::size_t i = 0; i < expected.size(); ++i)
        residual.compare(name(), found[row][i] * static_cast<double>(scales[row]), expected[i], largest);
      for (std::size_t i = expected.size(); i < found[row].size(); ++i) CHECK_EQ(found[row][i], 0.0);
    }
  }
};

constexpr double kTolerance = 4e-3;  // weights are rounded to bf16: half of 2^-8, relative

}  // namespace

TEST(attention_matches_plain_loops_over_many_blocks) {
  std::mt19937 random(1);
  Residual residual("cache_attention, blocks", kTolerance);
  for (bool is_causal : {false, true})
    for (std::int64_t dim : {8, 64, 80, 128}) {
      AttentionCase{1, 2, 1, dim, {{16, 1}}, is_causal}.run(random, residual);
      AttentionCase{5, 4, 2, dim, {{64, 33}, {64, 64}, {16, 7}}, is_causal}.run(random, residual);
      AttentionCase{32, 6, 2, dim, {{64, 50}, {64, 1}, {128, 100}, {64, 37}}, is_causal}.run(random,
                                                                                             residual);
      AttentionCase{40, 3, 3, dim, {{64, 40}}, is_causal}.run(random, residual);
    }
}

TEST(attention_of_an_action_step_matches_plain_loops) {
  std::mt19937 random(2);
  Residual residual("cache_attention, 32 queries of 16 heads", kTolerance);
  AttentionCase{32, 16, 2, 128, {{256, 246}, {64, 32}}, false}.run(random, residual);
  AttentionCase{32, 16, 2, 128, {{256, 246}, {64, 32}}, true}.run(random, residual);
}

TEST(attention_rounds_for_the_next_product) {
  std::mt19937 random(3);
  Residual residual("cache_attention, rounded", 8.1e-3);
  for (Format to : {Format::bf16, Format::int8})
    for (std::int64_t dim : {20, 128})
      AttentionCase{7, 4, 2, dim, {{64, 31}, {64, 20}}, true, to}.run(random, residual);
}

TEST(attention_refuses_more_blocks_than_it_can_take) {
  const auto stream = gpu().make_stream();
  const Device x(Floats(64));
  const DeviceRows y(Format::f32, 1, 16);
  const std::vector<CacheSegment> segments(129, {x.at<void>(), 16, 1});
  CHECK_THROWS(gpu().cache_attention(*stream, x.at(), {1, 1, 1, 16}, true, Format::bf16, segments, y.rows),
               DeviceError, "129 blocks, expected at most 128");
}

}  // namespace wallx::test
