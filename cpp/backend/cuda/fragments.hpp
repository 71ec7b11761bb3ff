// Fragments: which bytes of panels, rows and caches each thread of a tensor-core product holds; pure
// arithmetic. SPDX-License-Identifier: Apache-2.0
#pragma once

// A tensor-core product of a warp (mma.sync m16n8, depth 32 bytes: 32 of int8 or 16 of bf16) takes words of
// four bytes. Thread 4 i + j holds of the first operand, 16 rows, the words of rows i and i + 8 at depths j
// and j + 4, and of the second, 8 rows, those of row i at j and j + 4. Of the sums it holds rows i and i + 8
// at columns 2 j and 2 j + 1. The order of depth is free as long as both operands have the same; so is the
// order of rows.
//
// A group of layout.hpp is such a word, and two panels are 32 rows of the first operand: weights go to the
// tensor cores as they lie on disk. Depth is taken in runs of 64 bytes, two products deep, so that both
// operands leave shared memory by 16 bytes: the word of depth (product s, half h, thread j) is 4 j + 2 s + h
// of its run. Of a pair of panels thread i has four outputs next to each other, so that results leave by 16
// bytes too.
#ifdef __CUDACC__
#define WALLX_INDEX __host__ __device__ constexpr
#else
#define WALLX_INDEX constexpr
#endif

namespace wallx::cuda {

inline constexpr int kRunBytes = 64;  // of depth
inline constexpr int kRunWords = 16;
inline constexpr int kPairOutputs = 32;
inline constexpr int kPairRunBytes = kPairOutputs * kRunBytes;  // one run of two panels
inline constexpr int kRowsOfTile = 8;                           // of the second operand

// the place in its run of a word of depth
WALLX_INDEX int word_of_run(int j, int product, int half) { return 4 * j + 2 * product + half; }

// The first operand: one run of one panel in shared memory, 1024 bytes in 64 chunks of four outputs of one
// group, as in memory but for a turn that lets eight threads meet 32 different banks.
WALLX_INDEX int panel_chunk(int word, int quad) {
  const int line = word / 2, column = word % 2 * 4 + quad;
  return line * 8 + (column ^ (line / 2 % 4 * 2));  // [16 bytes]
}
// which four outputs of a pair thread i has: those of quad i % 4 of panel i / 4
WALLX_INDEX int panel_of(int i) { return i / 4; }
WALLX_INDEX int quad_of(int i) { return i % 4; }
// The four words of a chunk are rows i and i + 8 of the pair's first product, then of its second.
WALLX_INDEX int output_of(int i, int tile, int upper) { return i * 4 + tile * 2 + upper; }  // of the pair

// The second operand: one run of rows in shared memory, 64 bytes a row. Thread 4 i + j takes chunk j of row
// i: its words in the order of word_of_run.
WALLX_INDEX int row_chunk(int row, int j) { return row * 4 + j; }  // [16 bytes]

// A head's keys lie by tokens, its values by pairs of tokens, as the words of the second product want them;
// dims are padded to 16. One segment: keys of all heads, then values of all heads.
WALLX_INDEX long long padded_dims(long long head_dim) { return (head_dim + 15) / 16 * 16; }
WALLX_INDEX long long key_at(long long capacity, long long head_dim, long long head, long long token,
                             long long dim) {  // [bf16]
  return (head * capacity + token) * padded_dims(head_dim) + dim;
}
WALLX_INDEX long long value_at(long long num_kv_heads, long long capacity, long long head_dim, long long head,
                               long long token, long long dim) {  // [bf16]
  const long long padded = padded_dims(head_dim);
  return (num_kv_heads + head) * capacity * padded + (token / 2 * padded + dim) * 2 + token % 2;
}

}  // namespace wallx::cuda
