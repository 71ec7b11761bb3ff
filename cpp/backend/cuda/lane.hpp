// Lane: what a kernel asks of the thread that runs it; a GPU's thread, or one that a test makes on the
// processor. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define WALLX_GPU __device__ __forceinline__
#define WALLX_UNROLL _Pragma("unroll")
#else
#define WALLX_GPU inline
#define WALLX_UNROLL
#endif

// Kernels are templates over a Lane, so that the same source runs on a GPU and, under the op tests, on any
// computer. A Lane has
//   int thread(), block(axis)             its place                              (axis 0, 1, 2)
//   void barrier()                        waits for the block's other threads
//   void copy(to, from, is_there)         16 bytes from memory into the block's; zeros where nothing is there
//   void commit(), wait<N>()              closes a group of copies; waits for all groups but the newest N
//   void multiply(sums, a, b)             sums += a b^T of the warp's 16 x 8 tile, over 32 bytes of depth
//   float exchange(value, mask)           the value of the warp's thread ^ mask
//   std::uint32_t two_bf16(low, high)     rounded to nearest, ties to even
namespace wallx::cuda {

inline constexpr int kWarp = 32;

struct alignas(16) Four {
  float v[4];
};
struct alignas(16) Words {
  std::uint32_t v[4];
};

// The larger of two magnitudes. Their bits as integers have their order, with NaN above all: it must not get
// lost.
WALLX_GPU float larger_magnitude(float a, float b) {
  std::int32_t first, second;
  memcpy(&first, &a, sizeof first);
  memcpy(&second, &b, sizeof second);
  return first > second ? a : b;
}

// the largest magnitude and the sum of a value over the block's threads; scratch: a float a warp, free to be
// overwritten
template <class Lane, int kThreads>
WALLX_GPU float block_largest(Lane& lane, float value, float* scratch) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = larger_magnitude(value, lane.exchange(value, mask));
  lane.barrier();
  if (lane.thread() % kWarp == 0) scratch[lane.thread() / kWarp] = value;
  lane.barrier();
  value = scratch[0];
  for (int i = 1; i < kThreads / kWarp; ++i) value = larger_magnitude(value, scratch[i]);
  return value;
}

template <class Lane, int kThreads>
WALLX_GPU float block_sum(Lane& lane, float value, float* scratch) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += lane.exchange(value, mask);
  lane.barrier();
  if (lane.thread() % kWarp == 0) scratch[lane.thread() / kWarp] = value;
  lane.barrier();
  value = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) value += scratch[i];
  return value;
}

}  // namespace wallx::cuda
