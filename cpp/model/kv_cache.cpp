// KvCache: a block is written by the copy that alone holds it.
// SPDX-License-Identifier: Apache-2.0
#include "model/kv_cache.hpp"

#include <algorithm>
#include <atomic>

namespace wallx {
namespace {

constexpr std::int64_t kBlockTokens = 64;
static_assert(kBlockTokens % kCacheTokens == 0);

}  // namespace

std::size_t KvCache::num_bytes() const {
  std::size_t count = 0;
  for (const Part& part : parts_) count += part.block->data.size();
  return count;
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
    block->data = backend_->allocate(static_cast<std::size_t>(num_layers_) * layer_bytes(*block));
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

CacheSegment KvCache::segment(const Part& part, std::int64_t layer) const {
  auto* data = part.block->data.as<std::byte>() + static_cast<std::size_t>(layer) * layer_bytes(*part.block);
  return {data, part.block->capacity, part.length};
}

CacheSegment KvCache::last_block(std::int64_t layer) const { return segment(parts_.back(), layer); }

void KvCache::segments(std::int64_t layer, std::vector<CacheSegment>& out) const {
  out.clear();
  for (const Part& part : parts_) out.push_back(segment(part, layer));
}

}  // namespace wallx
