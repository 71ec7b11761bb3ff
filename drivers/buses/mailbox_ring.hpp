// MailboxRing: a lock-free ring from one thread to another that may wait for it; counters that only grow, and
// an event descriptor to wait on. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "drivers/buses/poll.hpp"

namespace wallx {

// One direction: one thread puts, one takes. Neither waits for the other except on its descriptor.
template <class Item>
class MailboxRing {
 public:
  explicit MailboxRing(std::size_t capacity);  // throws BusError: no descriptor left
  ~MailboxRing();
  MailboxRing(const MailboxRing&) = delete;
  MailboxRing& operator=(const MailboxRing&) = delete;

  // The writer's side: all or nothing, stamped now. false: no room for so many.
  bool put(std::span<const Item> items) noexcept;
  // The reader's side: what is there, up to the buffer's size, with its stamps.
  std::size_t take(std::span<Item> items, std::span<TimePoint> put_at) noexcept;
  void clear() noexcept;
  // Blocks the reader until there may be something, or the deadline.
  Result wait(TimePoint deadline) noexcept;
  void wake() noexcept;  // the reader, from any thread

 private:
  std::vector<Item> items_;
  std::vector<TimePoint> put_at_;
  std::atomic<std::uint64_t> num_put_{0}, num_taken_{0};
  int event_ = -1;
};

template <class Item>
MailboxRing<Item>::MailboxRing(std::size_t capacity)
    : items_(capacity), put_at_(capacity), event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (event_ < 0) throw BusError(std::string("mailbox: cannot make an event: ") + std::strerror(errno));
}

template <class Item>
MailboxRing<Item>::~MailboxRing() {
  ::close(event_);
}

template <class Item>
bool MailboxRing<Item>::put(std::span<const Item> items) noexcept {
  const std::uint64_t end = num_put_.load(std::memory_order_relaxed);
  if (items.size() > items_.size() - (end - num_taken_.load(std::memory_order_acquire))) return false;
  const TimePoint now = Clock::now();
  for (std::size_t i = 0; i < items.size(); ++i) {
    items_[(end + i) % items_.size()] = items[i];
    put_at_[(end + i) % items_.size()] = now;
  }
  num_put_.store(end + items.size(), std::memory_order_release);
  wake();
  return true;
}

template <class Item>
std::size_t MailboxRing<Item>::take(std::span<Item> items, std::span<TimePoint> put_at) noexcept {
  const std::uint64_t begin = num_taken_.load(std::memory_order_relaxed);
  const std::uint64_t there = num_put_.load(std::memory_order_acquire) - begin;
  const std::size_t count = std::min<std::uint64_t>(there, std::min(items.size(), put_at.size()));
  for (std::size_t i = 0; i < count; ++i) {
    items[i] = items_[(begin + i) % items_.size()];
    put_at[i] = put_at_[(begin + i) % items_.size()];
  }
  num_taken_.store(begin + count, std::memory_order_release);
  return count;
}

template <class Item>
void MailboxRing<Item>::clear() noexcept {
  num_taken_.store(num_put_.load(std::memory_order_acquire), std::memory_order_release);
}

template <class Item>
void MailboxRing<Item>::wake() noexcept {
  const std::uint64_t one = 1;
  (void)!::write(event_, &one, sizeof one);
}

template <class Item>
Result MailboxRing<Item>::wait(TimePoint deadline) noexcept {
  const Result waited = wait_for(event_, POLLIN, deadline);
  std::uint64_t count = 0;
  if (waited.ok()) (void)!::read(event_, &count, sizeof count);
  return waited;
}

}  // namespace wallx
