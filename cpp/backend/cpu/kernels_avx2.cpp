// KernelsAvx2: 256-bit vectors of processors without VNNI.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/tiles.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "backend/cpu/tiles_avx.hpp"

namespace wallx::cpu {
namespace {

struct Madd {
  static constexpr bool kHasOffset = false;
  // |x| w with x's sign moved to w: both are at most 127 in magnitude, so that pairs fit 16 bits
  static __m256i add(__m256i sum, __m256i x, __m256i w) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(x, x), _mm256_sign_epi8(w, x));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

constexpr Kernels kKernels{"avx2", Madd::kHasOffset, false, kRows, kInt8Tiles<Madd>.data(),
                           kBf16Tiles.data()};

}  // namespace

const Kernels* const kAvx2Kernels = &kKernels;

}  // namespace wallx::cpu
#pragma GCC pop_options
#else
namespace wallx::cpu {
const Kernels* const kAvx2Kernels = nullptr;
}
#endif
