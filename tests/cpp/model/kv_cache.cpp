// KvCacheTest: copies share what they hold and never see what another writes.
// SPDX-License-Identifier: Apache-2.0
#include "model/kv_cache.hpp"

#include <random>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/fp32.hpp"
#include "check.hpp"

namespace wallx::test {
namespace {

constexpr std::int64_t kLayers = 2, kHeads = 3, kDim = 4;

KvCache empty_cache() {
  static const auto backend =
      std::make_shared<CpuBackend>(CpuOptions{.threads = 1, .cores = {}, .kernels = ""});
  return {backend, Format::f32, kLayers, kHeads, kDim};
}

cpu::CacheView view(const CacheSegment& segment) { return cpu::view(segment, {0, kHeads, kHeads, kDim}); }

using Values = std::vector<float>;  // one number per token: all of its entries

float entry(float token, std::int64_t layer, std::int64_t head, std::int64_t d, bool is_value) {
  return token + static_cast<float>(layer) * 0.25f + static_cast<float>(head) * 0.0625f +
         static_cast<float>(d) * 0.015625f + (is_value ? 0.0078125f : 0);
}

void append(KvCache& cache, Values& values, std::int64_t rows, float token) {
  cache.append(rows);
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    const CacheSegment block = cache.last_block(layer);
    const cpu::CacheView to = view(block);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t h = 0; h < kHeads; ++h)
        for (std::int64_t d = 0; d < kDim; ++d) {
          const std::int64_t at = (h * block.capacity + cache.place_of_last(rows) + r) * kDim + d;
          to.key[at] = entry(token + static_cast<float>(r), layer, h, d, false);
          to.value[at] = entry(token + static_cast<float>(r), layer, h, d, true);
        }
  }
  for (std::int64_t r = 0; r < rows; ++r) values.push_back(token + static_cast<float>(r));
}

bool holds(const KvCache& cache, const Values& values) {
  if (cache.length() != std::ssize(values)) return false;
  std::vector<CacheSegment> segments;
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    cache.segments(layer, segments);
    std::size_t token = 0;
    for (const CacheSegment& segment : segments) {
      const cpu::CacheView from = view(segment);
      for (std::int64_t t = 0; t < segment.length; ++t, ++token)
        for (std::int64_t h = 0; h < kHeads; ++h)
          for (std::int64_t d = 0; d < kDim; ++d) {
            const std::int64_t at = (h * segment.capacity + t) * kDim + d;
            if (from.key[at] != entry(values[token], layer, h, d, false) ||
                from.value[at] != entry(values[token], layer, h, d, true))
              return false;
          }
    }
    if (token != values.size()) return false;
  }
  return true;
}

}  // namespace

TEST(copies_grow_shrink_and_end_without_disturbing_one_another) {
  std::mt19937 random(3);
  std::vector<std::pair<KvCache, Values>> copies;
  copies.emplace_back(empty_cache(), Values());
  float next = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::size_t at = random() % copies.size();
    switch (random() % 8) {
      case 0:
        if (copies.size() < 5) copies.push_back(copies[at]);
        break;
      case 1:
        if (copies.size() > 1) copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 2:
      case 3: {
        auto& [cache, values] = copies[at];
        const std::size_t length = random() % (values.size() + 1);
        cache.truncate(static_cast<std::int64_t>(length));
        values.resize(length);
        break;
      }
      default: {
        const auto rows = static_cast<std::int64_t>(random() % 90 + 1);
        append(copies[at].first, copies[at].second, rows, next);
        next = static_cast<float>(static_cast<int>(next + 100) % 100000);
      }
    }
    for (const auto& [cache, values] : copies) REQUIRE(holds(cache, values));
  }
}

TEST(one_token_after_another_fills_blocks) {
  KvCache cache = empty_cache();
  Values values;
  for (int i = 0; i < 640; ++i) append(cache, values, 1, static_cast<float>(i));
  CHECK(holds(cache, values));
  CHECK_EQ(cache.num_bytes(), 640u * 2 * kLayers * kHeads * kDim * sizeof(float));
  // what was dropped is written again, in place
  for (int i = 0; i < 50; ++i) {
    cache.truncate(600);
    values.resize(600);
    append(cache, values, 30, static_cast<float>(1000 + i));
  }
  CHECK(holds(cache, values));
  CHECK_EQ(cache.num_bytes(), 640u * 2 * kLayers * kHeads * kDim * sizeof(float));
  cache.truncate(0);
  CHECK_EQ(cache.length(), 0);
}

TEST(a_copy_costs_nothing_until_it_grows) {
  KvCache first = empty_cache();
  Values values;
  append(first, values, 70, 0);
  const KvCache second = first;
  std::vector<CacheSegment> a, b;
  first.segments(1, a);
  second.segments(1, b);
  REQUIRE(a.size() == 1 && b.size() == 1);
  CHECK(a[0].data == b[0].data);
  append(first, values, 1, 500);
  first.segments(1, a);
  CHECK_EQ(a.size(), 2u);  // the common block is not written, though it has room
  CHECK(holds(first, values));
  values.resize(70);
  CHECK(holds(second, values));
}

}  // namespace wallx::test
