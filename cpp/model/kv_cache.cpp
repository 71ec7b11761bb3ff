// KvCache: a block is written by the copy that alone holds it.
// SPDX-License-Identifier: Apache-2.0
#include "model/kv_cache.hpp"

#include <algorithm>
#include <atomic>

namespace wallx {
namespace {

constexpr std::int64_t kBlockTokens = 64;

}  // namespace

std::size_t KvCache::num_bytes() const {
  std::size_t count = 0;
  for (const Part& part : parts_)
    count += static_cast<std::size_t>(2 * num_layers_ * num_kv_heads_ * part.block->capacity * head_dim_);
  return count * sizeof(float);
}

void KvCache::append(std::int64_t rows) {
  const auto is_ours = [](const Part& part) {
    if (part.block.use_count() != 1) return false;
    // another copy may have been the last to read it, on another thread
    std::atomic_thread_fence(std::memory_order_acquire);
    return true;
  };
  if (parts_.empty() || parts_.back().block->capacity - parts_.back().length < rows ||
      !is_ours(parts_.back())) {
    if (!parts_.empty() && parts_.back().length == 0) parts_.pop_back();
    auto block = std::make_shared<Block>();
    block->capacity = (rows + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
    block->data = std::make_unique_for_overwrite<float[]>(
        static_cast<std::size_t>(2 * num_layers_ * num_kv_heads_ * block->capacity * head_dim_));
    parts_.push_back({std::move(block), 0});
  }
  parts_.back().length += rows;
  length_ += rows;
}

void KvCache::truncate(std::int64_t length) {
  while (length_ > length) {
    Part& last = parts_.back();
    const std::int64_t dropped = std::min(length_ - length, last.length);
    last.length -= dropped;
    length_ -= dropped;
    // an empty block of our own is kept for the next append
    if (last.length == 0 && (length_ > length || last.block.use_count() != 1)) parts_.pop_back();
  }
}

CacheView KvCache::last_block(std::int64_t layer) {
  const Block& block = *parts_.back().block;
  float* key = block.data.get() + plane(layer, block);
  return {key, key + plane(num_layers_, block), block.capacity, num_kv_heads_, head_dim_};
}

void KvCache::segments(std::int64_t layer, std::vector<CacheSegment>& out) const {
  out.clear();
  for (const Part& part : parts_) {
    const float* key = part.block->data.get() + plane(layer, *part.block);
    out.push_back({key, key + plane(num_layers_, *part.block), part.block->capacity, part.length});
  }
}

}  // namespace wallx
