// Vector: sixteen floats at a time, in plain C++ that each compiler turns into the processor's own
// instructions. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>

// one binary, the widest vectors the processor has
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define WALLX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WALLX_CLONES
#endif
#define WALLX_INLINE inline __attribute__((always_inline))

namespace wallx::cpu {

constexpr std::int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef std::int32_t IntLanes __attribute__((vector_size(kLanes * sizeof(std::int32_t))));

// vectors go by reference: by value their ABI would depend on the processor
WALLX_INLINE void load(const float* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }
WALLX_INLINE void store(const Lanes& lanes, float* to) { std::memcpy(to, &lanes, sizeof lanes); }

// the first `count` lanes, zeros in the others
WALLX_INLINE void load_part(const float* from, std::int64_t count, Lanes& lanes) {
  float padded[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = from[i];
  load(padded, lanes);
}

WALLX_INLINE float sum(const Lanes& lanes) {
  float total[kLanes];
  store(lanes, total);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t i = 0; i < width; ++i) total[i] += total[i + width];
  return total[0];
}

// sums[i] = sum of the lanes of parts[i]: halves of neighbours are added until one vector is left
WALLX_INLINE void sum_all(Lanes (&parts)[kLanes], Lanes& sums) {
  for (int i = 0; i < 8; ++i) {
    const Lanes &a = parts[2 * i], &b = parts[2 * i + 1];
    parts[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  for (int i = 0; i < 4; ++i) {
    const Lanes &a = parts[2 * i], &b = parts[2 * i + 1];
    parts[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  for (int i = 0; i < 2; ++i) {
    const Lanes &a = parts[2 * i], &b = parts[2 * i + 1];
    parts[i] = __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
               __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
  }
  const Lanes &a = parts[0], &b = parts[1];
  sums = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// e^x to two units in the last place between -87 and 88, clamped there: x = n ln 2 + r, e^r by a polynomial
// of degree 6 on [-ln 2 / 2, ln 2 / 2] (Moshier, Cephes expf), 2^n through the exponent's bits
WALLX_INLINE void exponential(Lanes& x) {
  x = x < -87.0f ? Lanes{} - 87.0f : x;
  x = x > 88.0f ? Lanes{} + 88.0f : x;
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits
  const Lanes n = (x * 1.44269504f + to_integer) - to_integer;
  const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = Lanes{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const IntLanes bits = (__builtin_convertvector(n, IntLanes) + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &bits, sizeof scale);
  x = p * scale;
}

WALLX_INLINE void silu(Lanes& x) {
  Lanes e = -x;
  exponential(e);
  x = x / (1.0f + e);
}

typedef std::uint16_t HalfLanes __attribute__((vector_size(kLanes * 2)));
typedef std::uint8_t ByteLanes __attribute__((vector_size(kLanes)));
typedef std::uint32_t WordLanes __attribute__((vector_size(kLanes * 4)));

WALLX_INLINE void load_up_to(const float* from, std::int64_t count, Lanes& lanes) {
  if (count >= kLanes) {
    load(from, lanes);
  } else {
    load_part(from, count, lanes);
  }
}

WALLX_INLINE void store_up_to(const Lanes& lanes, std::int64_t count, float* to) {
  if (count >= kLanes) {
    store(lanes, to);
  } else {
    std::memcpy(to, &lanes, static_cast<std::size_t>(count) * sizeof(float));
  }
}

// nearest, ties to even
WALLX_INLINE void round_bf16(const Lanes& lanes, HalfLanes& out) {
  WordLanes bits;
  std::memcpy(&bits, &lanes, sizeof bits);
  bits += 0x7FFF + ((bits >> 16) & 1);
  out = __builtin_convertvector(bits >> 16, HalfLanes);
}

// y[r][c] = x[r] . w[c] over `depth`; rows of x, w and y are their strides apart
void product(const float* x, std::int64_t x_stride, std::int64_t rows, const float* w, std::int64_t w_stride,
             std::int64_t columns, std::int64_t depth, float* y, std::int64_t y_stride);

}  // namespace wallx::cpu
