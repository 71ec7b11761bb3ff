// KernelsAvxVnni: 256-bit vectors with VNNI.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/tiles.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")
#include "backend/cpu/tiles_avx.hpp"

namespace wallx::cpu {
namespace {

// four products of bytes, added to each 32-bit sum
struct Vnni {
  static constexpr bool kHasOffset = true;
  static __m256i add(__m256i sum, __m256i x, __m256i w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
};

constexpr Kernels kKernels{"avx-vnni", Vnni::kHasOffset, false, kRows, kInt8Tiles<Vnni>.data(),
                           kBf16Tiles.data()};

}  // namespace

const Kernels* const kAvxVnniKernels = &kKernels;

}  // namespace wallx::cpu
#pragma GCC pop_options
#else
namespace wallx::cpu {
const Kernels* const kAvxVnniKernels = nullptr;
}
#endif
