// KvCache: keys and values of every layer in blocks that copies share; what is shared is never written again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.hpp"

namespace wallx {

// A copy holds the same tokens, costs no memory for them, and may grow by itself. Two copies may be used by
// two threads, one copy by one thread at a time.
class KvCache {
 public:
  KvCache(std::shared_ptr<Backend> backend, Format format, std::int64_t num_layers, std::int64_t num_kv_heads,
          std::int64_t head_dim)
      : backend_(std::move(backend)),
        format_(format),
        num_layers_(num_layers),
        num_kv_heads_(num_kv_heads),
        head_dim_(head_dim) {}

  Format format() const { return format_; }

  std::int64_t length() const { return length_; }  // [tokens]
  std::size_t num_bytes() const;                   // of all blocks, those shared with copies included

  // Room for `rows` tokens behind the others, in one block that is this copy's alone. Their values are not
  // set.
  void append(std::int64_t rows);
  // Forgets all but the first `length` tokens.
  void truncate(std::int64_t length);

  // Where the last `rows` appended tokens of a layer go, and at which place of it.
  CacheSegment last_block(std::int64_t layer) const;
  std::int64_t place_of_last(std::int64_t rows) const { return parts_.back().length - rows; }
  // The whole cache of a layer, in order.
  void segments(std::int64_t layer, std::vector<CacheSegment>& out) const;

 private:
  struct Block {
    Memory data;                // of all layers
    std::int64_t capacity = 0;  // [tokens]
  };
  struct Part {
    std::shared_ptr<Block> block;
    std::int64_t length = 0;  // [tokens] of the block that belong to this copy
  };

  std::size_t layer_bytes(const Block& block) const {
    return backend_->cache_bytes(format_, num_kv_heads_, head_dim_, block.capacity);
  }
  CacheSegment segment(const Part& part, std::int64_t layer) const;

  std::shared_ptr<Backend> backend_;
  Format format_;
  std::int64_t num_layers_, num_kv_heads_, head_dim_;
  std::int64_t length_ = 0;
  std::vector<Part> parts_;
};

}  // namespace wallx
