// Fp32AttentionTest: rotation, the cache and both attentions, against loops in double precision.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend/naive.hpp"

namespace wallx::test {
namespace {

struct Tables {
  Floats cos, sin;
  Rotary rotary() const { return {cos.data(), sin.data()}; }
};

// both halves get angles of their own, so that a mix-up of halves shows
Tables random_tables(std::mt19937& random, std::int64_t rows, std::int64_t dim) {
  Tables tables;
  for (float angle : random_floats(random, rows * dim, 3.0f)) {
    tables.cos.push_back(std::cos(angle));
    tables.sin.push_back(std::sin(angle));
  }
  return tables;
}

Doubles rotated(const Floats& x, std::int64_t at, std::int64_t dim, const Tables& tables, std::int64_t row) {
  const Doubles cos = slice(tables.cos, row * dim, dim), sin = slice(tables.sin, row * dim, dim);
  return naive_rotate(slice(x, at, dim), cos.data(), sin.data());
}

struct CacheCase {
  std::int64_t rows = 1, position = 0, num_heads = 1, num_kv_heads = 1, dim = 8;
  bool is_causal = true;
  std::int64_t spare = 0;  // entries of the cache that are not in use
  float scale = 1.0f;      // of queries and keys

  std::string name() const {
    return std::to_string(rows) + " rows at " + std::to_string(position) + ", heads " +
           std::to_string(num_heads) + "/" + std::to_string(num_kv_heads) + " x " + std::to_string(dim) +
           (is_causal ? " causal" : " block");
  }

  AttentionShape shape() const { return {rows, num_heads, num_kv_heads, dim}; }

  Floats attended(const Floats& qkv, std::span<const CacheSegment> segments) const {
    Floats y(static_cast<std::size_t>(rows * num_heads * dim + 1), kSentinel);
    for (std::int64_t head = 0; head < num_heads; ++head)
      cpu::cache_attention(qkv.data(), shape(), is_causal, segments, head, y.data());
    CHECK_EQ(y.back(), kSentinel);
    y.pop_back();
    return y;
  }

  // the same entries in several places, some of them empty, give the same bits
  void check_parts(const Floats& qkv, const CacheSegment& whole, const Floats& expected,
                   std::mt19937& random) const {
    for (int round = 0; round < 4; ++round) {
      std::vector<Floats> places;
      std::vector<CacheSegment> parts;
      for (std::int64_t at = 0; at < whole.length;) {
        const std::int64_t length =
            std::min<std::int64_t>(whole.length - at, static_cast<std::int64_t>(random() % 9));
        const std::int64_t room = length + static_cast<std::int64_t>(random() % 3);
        Floats& place = places.emplace_back(static_cast<std::size_t>(2 * num_kv_heads * room * dim), NAN);
        // keys of all heads, then values of all heads
        const auto* data = static_cast<const float*>(whole.data);
        for (std::int64_t plane = 0; plane < 2 * num_kv_heads; ++plane)
          std::copy_n(data + (plane * whole.capacity + at) * dim, length * dim,
                      place.begin() + plane * room * dim);
        parts.push_back({place.data(), room, length});
        at += length;
      }
      CHECK(attended(qkv, parts) == expected);
    }
  }

  void run(std::mt19937& random, Residual& residue) const {
    const std::int64_t capacity = position + rows + spare;
    const std::int64_t stride = (num_heads + 2 * num_kv_heads) * dim;
    const std::int64_t plane = num_kv_heads * capacity * dim;
    Floats cache = random_floats(random, plane, scale);
    const Floats values_before = random_floats(random, plane);
    cache.insert(cache.end(), values_before.begin(), values_before.end());
    float *key = cache.data(), *value = key + plane;
    // whatever stands behind the last entry must not matter, not even NaN
    for (std::int64_t h = 0; h < num_kv_heads; ++h)
      for (std::int64_t i = (h * capacity + position) * dim; i < (h + 1) * capacity * dim; ++i)
        key[i] = value[i] = NAN;
    const Floats old_key(key, key + plane), old_value(value, value + plane);
    const Floats qkv = random_floats(random, rows * stride, scale);
    const Tables tables = random_tables(random, rows, dim);
    const CacheSegment whole{cache.data(), capacity, position + rows};

    Floats work = qkv;
    cpu::rotate_and_cache(work.data(), shape(), tables.rotary(), position, whole);
    Floats found_cache;
    Doubles expected_cache;
    std::vector<std::vector<Doubles>> keys(static_cast<std::size_t>(num_kv_heads)), values = keys;
    for (std::int64_t h = 0; h < num_kv_heads; ++h) {
      const auto head = static_cast<std::size_t>(h);
      for (std::int64_t t = 0; t < capacity; ++t) {
        const std::int64_t at = (h * capacity + t) * dim, r = t - position;
        if (r < 0 || r >= rows) {
          for (auto i = static_cast<std::size_t>(at); i < static_cast<std::size_t>(at + dim); ++i) {
            CHECK(key[i] == old_key[i] || (std::isnan(key[i]) && std::isnan(old_key[i])));
            CHECK(value[i] == old_value[i] || (std::isnan(value[i]) && std::isnan(old_value[i])));
          }
          if (r >= rows) continue;
          keys[head].push_back(slice(old_key, at, dim));
          values[head].push_back(slice(old_value, at, dim));
          continue;
        }
        keys[head].push_back(rotated(qkv, r * stride + (num_heads + h) * dim, dim, tables, r));
        values[head].push_back(slice(qkv, r * stride + (num_heads + num_kv_heads + h) * dim, dim));
        for (std::int64_t i = 0; i < dim; ++i) {
          const auto entry = static_cast<std::size_t>(at + i);
          found_cache.insert(found_cache.end(), {key[entry], value[entry]});
          expected_cache.insert(expected_cache.end(), {keys[head].back()[static_cast<std::size_t>(i)],
                                                       values[head].back()[static_cast<std::size_t>(i)]});
        }
      }
    }
    residue.compare(name() + " cache", found_cache, expected_cache);

    const Floats y = attended(work, {&whole, 1});
    check_parts(work, whole, y, random);
    Doubles expected;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t h = 0; h < num_heads; ++h) {
        const auto kv = static_cast<std::size_t>(h / (num_heads / num_kv_heads));
        const std::int64_t seen = position + (is_causal ? r + 1 : rows);
        const Doubles one = naive_attend(rotated(qkv, r * stride + h * dim, dim, tables, r),
                                         {keys[kv].begin(), keys[kv].begin() + seen},
                                         {values[kv].begin(), values[kv].begin() + seen});
        expected.insert(expected.end(), one.begin(), one.end());
      }
    residue.compare(name(), y, expected);
  }
};

}  // namespace

TEST(rotary_matches_plain_loops_and_leaves_other_columns) {
  std::mt19937 random(11);
  Residual residue("apply_rotary", 5e-7);
  for (std::int64_t rows : {1, 5})
    for (std::int64_t heads : {1, 3})
      for (std::int64_t dim : {2, 6, 80, 128})
        for (std::int64_t gap : {0, 5}) {
          const std::int64_t stride = heads * dim + gap;
          const Floats before = random_floats(random, rows * stride);
          const Tables tables = random_tables(random, rows, dim);
          Floats x = before;
          cpu::apply_rotary(x.data(), rows, stride, heads, dim, tables.rotary());
          Doubles expected;
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t h = 0; h < heads; ++h) {
              const Doubles head = rotated(before, r * stride + h * dim, dim, tables, r);
              expected.insert(expected.end(), head.begin(), head.end());
            }
            for (std::int64_t i = heads * dim; i < stride; ++i)
              CHECK_EQ(x[static_cast<std::size_t>(r * stride + i)],
                       before[static_cast<std::size_t>(r * stride + i)]);
            for (std::int64_t i = heads * dim; i < stride; ++i)
              expected.push_back(before[static_cast<std::size_t>(r * stride + i)]);
          }
          residue.compare(std::to_string(heads) + " heads of " + std::to_string(dim), x, expected);
        }
}

TEST(cache_attention_matches_plain_loops) {
  std::mt19937 random(12);
  Residual residue("cache attention", 3e-6);
  for (bool is_causal : {true, false})
    for (std::int64_t rows : {1, 2, 9, 33})
      for (std::int64_t position : {0, 1, 40})
        for (std::int64_t dim : {2, 8, 20})
          for (std::int64_t kv_heads : {1, 2})
            for (std::int64_t group : {1, 4})
              CacheCase{rows, position, kv_heads * group, kv_heads, dim, is_causal, 3}.run(random, residue);
  CacheCase{32, 300, 16, 2, 128, false, 10}.run(random, residue);
}

TEST(cache_attention_survives_scores_that_overflow_exp) {
  std::mt19937 random(13);
  Residual residue("cache attention, sharp", 1e-4);  // scores of +-1000 round by 6e-5 each
  CacheCase{6, 10, 2, 1, 16, true, 0, 30.0f}.run(random, residue);
  CacheCase{6, 10, 2, 1, 16, false, 0, 30.0f}.run(random, residue);
}

TEST(window_attention_matches_plain_loops) {
  std::mt19937 random(14);
  Residual residue("window attention", 3e-6);
  const std::vector<std::vector<std::int32_t>> layouts{
      {0, 1}, {0, 16}, {0, 1, 2, 3}, {0, 16, 24, 28, 44}, {0, 5, 5, 9} /* an empty one */, {0, 70, 75}};
  for (const auto& offsets : layouts)
    for (std::int64_t heads : {1, 3})
      for (std::int64_t dim : {4, 20, 80}) {
        const std::int64_t rows = offsets.back(), width = heads * dim;
        const Floats qkv = random_floats(random, rows * 3 * width);
        Floats y(static_cast<std::size_t>(rows * width + 1), kSentinel);
        for (std::size_t s = 1; s < offsets.size(); ++s)
          for (std::int64_t h = 0; h < heads; ++h)
            cpu::window_attention(qkv.data(), {rows, heads, heads, dim}, offsets[s - 1], offsets[s], h,
                                  y.data());
        CHECK_EQ(y.back(), kSentinel);
        y.pop_back();
        Doubles expected(y.size());
        for (std::size_t s = 1; s < offsets.size(); ++s)
          for (std::int64_t h = 0; h < heads; ++h)
            for (std::int64_t r = offsets[s - 1]; r < offsets[s]; ++r) {
              std::vector<Doubles> keys, values;
              for (std::int64_t t = offsets[s - 1]; t < offsets[s]; ++t) {
                keys.push_back(slice(qkv, t * 3 * width + width + h * dim, dim));
                values.push_back(slice(qkv, t * 3 * width + 2 * width + h * dim, dim));
              }
              const Doubles one = naive_attend(slice(qkv, r * 3 * width + h * dim, dim), keys, values);
              std::copy(one.begin(), one.end(), expected.begin() + r * width + h * dim);
            }
        residue.compare(std::to_string(offsets.size() - 1) + " windows, " + std::to_string(heads) +
                            " heads of " + std::to_string(dim),
                        y, expected);
      }
}

}  // namespace wallx::test
