// InferenceQueue: one thread that computes in order of deadline, in slices, so that what is urgent goes
// first. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/errors.hpp"
#include "base/time.hpp"
#include "runtime/slice_meter.hpp"

namespace wallx {

class InferenceQueue;

enum class WorkState { queued, running, done, cancelled, failed };
inline constexpr TimePoint kNoDeadline = TimePoint::max();  // behind everything that has one

// One piece of work. Made, handed to a queue once, waited for; every public call is for any thread.
class Work {
 public:
  // `place`: what it computes in, such as a context; two pieces in one place never interleave.
  explicit Work(const void* place) : place_(place) {}
  virtual ~Work() = default;
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  // Ends it at its next pause, or before it begins. Does not wait.
  void cancel() noexcept { is_cancelled_.store(true, std::memory_order_release); }
  bool is_cancelled() const noexcept { return is_cancelled_.load(std::memory_order_acquire); }
  // Blocks until it has ended or the time is over; whether it has ended.
  bool wait(Seconds timeout);
  WorkState state() const;
  // Throws what it failed with; Cancelled when it was cancelled.
  void check() const;

  // once it has ended [s]
  double waited() const;         // from submit to its first slice
  double computed() const;       // without what went first in between
  double longest_slice() const;  // between two pauses of it: how long more urgent work may have waited

 protected:
  // One slice, on the queue's thread; true: there is more. What it throws is the end.
  virtual bool advance(InferenceQueue& queue) = 0;
  // It has ended, one way or another; on whatever thread ended it.
  virtual void has_ended() noexcept {}

 private:
  friend class InferenceQueue;

  const void* const place_;
  std::atomic<bool> is_cancelled_ = false;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  WorkState state_ = WorkState::queued;
  std::exception_ptr error_;
  // the queue's
  TimePoint deadline_, submitted_at_, resumed_at_;
  std::uint64_t sequence_ = 0;  // 0: not submitted
  std::uint32_t generation_ = 0;
  double waited_ = -1, computed_ = 0, longest_ = 0;  // [s]
};

// what ends a piece of work that was cancelled, or is of a generation that is over
class Cancelled : public WallxError {
 public:
  Cancelled() : WallxError("this work was cancelled") {}
};

struct QueueCounters {
  std::uint64_t num_done = 0, num_cancelled = 0, num_failed = 0;
  std::uint64_t num_let_first = 0;  // times that more urgent work went first in the middle of another's pass
};

class InferenceQueue {
 public:
  InferenceQueue();
  ~InferenceQueue();  // close()
  InferenceQueue(const InferenceQueue&) = delete;
  InferenceQueue& operator=(const InferenceQueue&) = delete;

  // Earlier deadlines go first, of equals what came first. Throws WallxError: the queue is closed, or the
  // work was submitted before.
  void submit(std::shared_ptr<Work> work, TimePoint deadline);

  // Everything submitted so far is of a generation that is over, and is cancelled. The new generation.
  std::uint32_t begin_generation();
  std::uint32_t generation() const;

  // Cancels everything and joins the thread; blocks for one slice at most. Idempotent.
  void close();

  // Called by the work on the queue's thread, between two parts of a slice: more urgent work goes first, to
  // its end. Throws Cancelled if `may_end`.
  void pause(Work& work, bool may_end);

  SliceMeter& meter() noexcept { return meter_; }
  QueueCounters counters() const;

 private:
  using Item = std::shared_ptr<Work>;

  void run();
  Item take(
      TimePoint before);  // the most urgent whose place is free, with an earlier deadline; mutex is held
  void advance(const Item& work);
  void end(Work& work, WorkState state, std::exception_ptr error);
  bool is_over(const Work& work) const;
  void note_urgency();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;            // waiting for a slice
  std::vector<const void*> occupied_;  // places of work that lets others go first; the thread's own
  std::atomic<TimePoint::rep> most_urgent_{TimePoint::max().time_since_epoch().count()};
  std::atomic<std::uint32_t> generation_{0};
  std::uint64_t sequence_ = 0;
  QueueCounters counters_;
  std::atomic<bool> is_closed_ = false;
  SliceMeter meter_;
  std::mutex close_mutex_;
  std::thread thread_;  // last: everything else is there when it begins
};

// Closes every queue that is still open; for a program's end.
void close_all_queues();

}  // namespace wallx
