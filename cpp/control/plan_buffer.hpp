// PlanBuffer: hands plans to the loop without a lock; the latest wins, and plans from before a stop die.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "control/plan.hpp"
#include "control/triple_buffer.hpp"

namespace wallx {

// One writer (callers take turns), one reader: the loop.
class PlanBuffer {
 public:
  // Writer: the slot to fill with make_plan() and publish. May hold an old plan.
  Plan& back() noexcept { return plans_.back(); }
  // Writer: hands the filled slot over. Its sequence number, or 0: its generation is over, it was dropped.
  std::uint64_t publish() noexcept {
    Plan& plan = plans_.back();
    if (plan.generation != generation()) return 0;  // never replace a live plan by a dead one
    const std::uint64_t sequence = plan.sequence = ++sequence_;
    plans_.publish();
    return sequence;
  }

  // Reader: a stop; every plan made before it is dead.
  void stop() noexcept {
    generation_.store(generation() + 1, std::memory_order_release);
    has_current_ = has_next_ = has_later_ = false;
  }
  // Any thread: the generation that a new plan must carry.
  std::uint32_t generation() const noexcept { return generation_.load(std::memory_order_acquire); }

  // Reader: the plan whose rows are due at `now`, or none. A plan takes over at its start, not before. Two
  // plans can wait for their start: the next one, and the latest of those that start after it.
  const Plan* in_force(TimePoint now) noexcept {
    if (plans_.take(later_)) {
      const Plan& latest = plans_.held(later_);
      has_later_ = latest.generation == generation();
      num_refused_ += !has_later_;
      if (has_later_ && (!has_next_ || latest.start <= plans_.held(next_).start)) advance(next_, has_next_);
    }
    while (has_next_ && plans_.held(next_).start <= now) {
      std::swap(current_, next_);
      has_current_ = true;
      has_next_ = false;
      if (has_later_) advance(next_, has_next_);
    }
    return has_current_ ? &plans_.held(current_) : nullptr;
  }
  std::uint64_t num_refused() const noexcept { return num_refused_; }  // reader's thread only

 private:
  void advance(unsigned& slot, bool& has) noexcept {
    std::swap(slot, later_);
    has = true;
    has_later_ = false;
  }

  TripleBuffer<Plan, 3> plans_;
  std::atomic<std::uint32_t> generation_{0};
  std::uint64_t sequence_ = 0;  // the writer's
  // the reader's
  unsigned current_ = 0, next_ = 1, later_ = 2;
  bool has_current_ = false, has_next_ = false, has_later_ = false;
  std::uint64_t num_refused_ = 0;
};

}  // namespace wallx
