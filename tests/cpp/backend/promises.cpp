// PromisesTest: what holds for rows on every kernel set: no bit depends on company, and NaN is never hidden.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/op.hpp"
#include "base/errors.hpp"

namespace wallx::test {
namespace {

constexpr Format kWeights[] = {Format::f32, Format::bf16, Format::int8, Format::w8};

template <class Body>
void on_every_backend(Body body) {
  for (const cpu::Kernels* kernels : cpu::available_kernels())
    for (const int threads : {1, 3}) {
      CpuBackend backend({threads, {}, kernels->name});
      body(backend);
    }
}

bool has_same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

// a token's numbers must not depend on how many others are computed with it
TEST(a_row_has_the_same_bits_in_any_company) {
  constexpr std::int64_t kIn = 83, kOut = 45, kGated = 29, kRows = 31;
  std::mt19937 random(5);
  const Floats x = random_floats(random, kRows * kIn), weight = random_floats(random, kOut * kIn),
               bias = random_floats(random, 2 * kGated), gated = random_floats(random, 2 * kGated * kIn);
  on_every_backend([&](Backend& backend) {
    for (const Format format : kWeights) {
      Device device(backend);
      const Linear layer = device.layer(format, kOut, kIn, weight, {});
      const GatedLinear pair = device.gated(format, kGated, kIn, gated, bias);
      const auto results = [&](const Floats& from) {
        const Rows rows = device.rows(row_format(format), from, kIn);
        Floats found(static_cast<std::size_t>(rows.count * kOut));
        float* y = device.put(found);
        device.backend.product(*device.stream, rows, layer, {.activation = Activation::silu}, y);
        found = device.get(y, rows.count * kOut);
        const Rows next = device.rows(row_format(format), rows.count, kGated);
        device.backend.gated_product(*device.stream, rows, pair, next);
        return std::pair(found, device.get(next));
      };
      const auto [products, gates] = results(x);
      for (std::int64_t r = 0; r < kRows; ++r) {
        const auto [product, gate] = results({x.begin() + r * kIn, x.begin() + (r + 1) * kIn});
        CHECK(std::equal(product.begin(), product.end(), products.begin() + r * kOut));
        CHECK(std::equal(gate.begin(), gate.end(), gates.begin() + r * kGated));
      }
    }
  });
}

// the engine refuses results that are not finite: rounding must not make numbers of them
TEST(what_is_not_finite_is_never_hidden) {
  constexpr std::int64_t kIn = 50, kOut = 20, kRows = 16;
  std::mt19937 random(6);
  Floats x = random_floats(random, kRows * kIn);
  const auto at = [&](std::int64_t row, std::int64_t column) -> float& {
    return x[static_cast<std::size_t>(row * kIn + column)];
  };
  for (std::int64_t r = 0; r < kRows; ++r)
    if (r % 4 == 1) {
      at(r, r) = NAN;
    } else if (r % 4 == 2) {
      at(r, 49 - r) = r < 8 ? INFINITY : -INFINITY;
      at(r, 3) = NAN;
    }
  const Floats weight = random_floats(random, 2 * kOut * kIn);
  const Floats ones(kIn, 1.0f);
  on_every_backend([&](Backend& backend) {
    for (const Format format : kWeights)
      for (const Norm::Kind kind : {Norm::Kind::none, Norm::Kind::rms}) {
        Device device(backend);
        const Rows rows = device.rows(row_format(format), kRows, kIn);
        backend.norm(*device.stream, device.put(x), {kind, device.put(ones), nullptr, 1e-6f}, rows);
        const GatedLinear layer = device.gated(format, kOut, kIn, weight, {});
        const Rows gated = device.rows(row_format(format), kRows, kOut);
        backend.gated_product(*device.stream, rows, layer, gated);
        const Linear head = device.layer(format, 1, kOut, Floats(kOut, 1.0f), {});
        float* y = device.put(Floats(kRows));
        backend.product(*device.stream, gated, head, {}, y);
        const Floats found = device.get(y, kRows);
        for (std::int64_t r = 0; r < kRows; ++r)
          CHECK_EQ(std::isfinite(found[static_cast<std::size_t>(r)]), r % 4 == 0 || r % 4 == 3);
      }
  });
}

TEST(a_row_of_zeros_stays_zeros) {
  on_every_backend([&](Backend& backend) {
    for (const Format format : kWeights) {
      Device device(backend);
      const Rows rows = device.rows(row_format(format), Floats(40), 20);
      const Linear layer = device.layer(format, 3, 20, Floats(60, 0.5f), {});
      float* y = device.put(Floats(6, 1.0f));
      backend.product(*device.stream, rows, layer, {}, y);
      CHECK(has_same_bits(device.get(y, 6), Floats(6, 0.0f)));
    }
  });
}

TEST(products_of_whole_numbers_are_the_same_on_every_kernel_set) {
  const ProductOp op{.rows = 17, .in = 300, .out = 50, .format = Format::int8};
  Floats first;
  on_every_backend([&](Backend& backend) {
    const Ready ready = op.on(backend);
    ready.run();
    const Floats found = ready.result();
    if (first.empty()) first = found;
    CHECK(has_same_bits(found, first));
  });
}

TEST(bad_options_are_named) {
  std::string names;
  for (const cpu::Kernels* kernels : cpu::available_kernels()) names += std::string(" ") + kernels->name;
  std::printf("  kernels:%s\n", names.c_str());
  CHECK(names.ends_with(" plain"));  // runs anywhere
  CHECK_THROWS(CpuBackend({1, {}, "mmx"}), ConfigError, "kernels 'mmx': this processor has ");
  CHECK_THROWS(CpuBackend({1025, {}, ""}), ConfigError, "threads is 1025, expected 1 to 1024");
  CHECK_THROWS(CpuBackend({-1, {}, ""}), ConfigError, "threads is -1, expected 1 to 1024");
  CHECK_THROWS(CpuBackend({2, {-1}, ""}), ConfigError, "cores: -1 is not a core of this machine");
  CHECK_THROWS(CpuBackend({2, {1 << 20}, ""}), ConfigError, "cores: 1048576 is not a core of this machine");
  CHECK_THROWS(CpuBackend({2, {1000}, ""}), ConfigError,
               "cores: 1000 is not a core that this process may use");
}

}  // namespace wallx::test
