// PackedAttention: attention by the kernels of packed products: keys and values are panels of bf16.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/backend.hpp"
#include "backend/cpu/kernels.hpp"

namespace wallx::cpu {

// One head's keys and values. Keys are outputs: panels of 16 tokens over the head's dims. Values are inputs:
// panels of 16 dims over the tokens. What is not written yet is zero.
struct PackedHead {
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
  std::int64_t capacity = 0;  // [tokens], a multiple of kPanel
  std::int64_t length = 0;    // [tokens]
};
// [bytes] of one head's
std::int64_t packed_keys_bytes(std::int64_t head_dim, std::int64_t capacity);
std::int64_t packed_values_bytes(std::int64_t head_dim, std::int64_t capacity);
PackedHead packed_head(const CacheSegment& segment, std::int64_t head_dim, std::int64_t head);

// token `at` of the head; key and value (head_dim)
void write_token(const PackedHead& head, std::int64_t at, std::int64_t head_dim, const float* key,
                 const float* value);
// Values of the tokens from `begin` to the end of their panel become zeros: forgotten ones may be infinite, and no
// weight of zero would hide that.
void clear_values(const PackedHead& head, std::int64_t begin, std::int64_t head_dim);
// out = the head's vector rotated                                                (head_dim)
void rotate_head(const float* head, std::int64_t head_dim, const float* cos, const float* sin, float* out);

// queries that are computed together
struct QueryTile {
  int rows = 0;                                 // at most kMaxTileRows
  const float* queries[kMaxTileRows] = {};      // each (head_dim)
  float* outputs[kMaxTileRows] = {};            // each (head_dim)
  std::int64_t visible[kMaxTileRows] = {};      // keys that each sees, from the first on; not falling
};
void attend(const Kernels& kernels, const QueryTile& tile, std::int64_t head_dim,
            std::span<const PackedHead> parts);

}  // namespace wallx::cpu
