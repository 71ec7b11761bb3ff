// InferenceQueue: the thread, the order, and the pauses.
// SPDX-License-Identifier: Apache-2.0
#include "runtime/inference_queue.hpp"

#include <algorithm>
#include <utility>

namespace wallx {
namespace {

std::mutex open_mutex;
std::vector<InferenceQueue*> open_queues;

}  // namespace

bool Work::wait(Seconds timeout) {
  std::unique_lock lock(mutex_);
  // a longer wait than the clock can count is a wait without end
  const auto most = std::chrono::hours(24 * 365);
  return ended_.wait_for(lock, std::min<Seconds>(timeout, most), [&] { return state_ > WorkState::running; });
}

WorkState Work::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void Work::check() const {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  if (state_ == WorkState::cancelled) throw Cancelled();
}

double Work::waited() const {
  const std::lock_guard lock(mutex_);
  return waited_;
}

double Work::computed() const {
  const std::lock_guard lock(mutex_);
  return computed_;
}

double Work::longest_slice() const {
  const std::lock_guard lock(mutex_);
  return longest_;
}

InferenceQueue::InferenceQueue() : thread_([this] { run(); }) {
  const std::lock_guard lock(open_mutex);
  open_queues.push_back(this);
}

InferenceQueue::~InferenceQueue() { close(); }

void InferenceQueue::submit(std::shared_ptr<Work> work, TimePoint deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (is_closed_) throw WallxError("the inference queue is closed");
    if (work->sequence_ != 0) throw WallxError("this work was submitted before");
    work->sequence_ = ++sequence_;
    work->deadline_ = deadline;
    work->generation_ = generation_;
    work->submitted_at_ = Clock::now();
    items_.push_back(std::move(work));
    note_urgency();
  }
  changed_.notify_one();
}

std::uint32_t InferenceQueue::begin_generation() {
  const std::lock_guard lock(mutex_);
  changed_.notify_one();  // what waits ends without delay
  return ++generation_;
}

std::uint32_t InferenceQueue::generation() const { return generation_.load(); }

QueueCounters InferenceQueue::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void InferenceQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
  }
  changed_.notify_one();
  const std::lock_guard lock(close_mutex_);
  if (!thread_.joinable()) return;
  thread_.join();
  const std::lock_guard open_lock(open_mutex);
  std::erase(open_queues, this);
}

void close_all_queues() {
  while (true) {
    InferenceQueue* queue = nullptr;
    {
      const std::lock_guard lock(open_mutex);
      if (open_queues.empty()) return;
      queue = open_queues.back();
    }
    queue->close();
  }
}

bool InferenceQueue::is_over(const Work& work) const {
  return is_closed_ || work.is_cancelled() || work.generation_ != generation_;
}

// mutex_ is held
void InferenceQueue::note_urgency() {
  TimePoint earliest = TimePoint::max();
  for (const Item& item : items_) earliest = std::min(earliest, item->deadline_);
  most_urgent_.store(earliest.time_since_epoch().count(), std::memory_order_release);
}

// mutex_ is held; before kNoDeadline there is only what has a deadline
InferenceQueue::Item InferenceQueue::take(TimePoint before) {
  auto best = items_.end();
  for (auto it = items_.begin(); it != items_.end(); ++it) {
    if ((*it)->deadline_ >= before && !occupied_.empty()) continue;
    if (std::ranges::find(occupied_, (*it)->place_) != occupied_.end()) continue;
    if (best == items_.end() ||
        std::pair((*it)->deadline_, (*it)->sequence_) < std::pair((*best)->deadline_, (*best)->sequence_))
      best = it;
  }
  if (best == items_.end()) return nullptr;
  Item item = std::move(*best);
  items_.erase(best);
  note_urgency();
  return item;
}

void InferenceQueue::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return is_closed_ || !items_.empty(); });
    const Item item = take(TimePoint::max());
    if (!item) return;  // closed, and nothing is left to end
    lock.unlock();
    advance(item);
    lock.lock();
  }
}

// one slice, then back into the queue or to its end
void InferenceQueue::advance(const Item& item) {
  Work& work = *item;
  if (is_over(work)) return end(work, WorkState::cancelled, nullptr);
  const TimePoint now = Clock::now();
  {
    const std::lock_guard lock(work.mutex_);
    if (work.waited_ < 0) work.waited_ = to_seconds(now - work.submitted_at_);
    work.state_ = WorkState::running;
  }
  work.resumed_at_ = now;
  const auto count_time = [&] {
    const double time = to_seconds(Clock::now() - work.resumed_at_);
    const std::lock_guard lock(work.mutex_);
    work.computed_ += time;
    work.longest_ = std::max(work.longest_, time);
  };
  bool has_more = false;
  try {
    has_more = work.advance(*this);
    count_time();
  } catch (const Cancelled&) {
    return end(work, WorkState::cancelled, nullptr);
  } catch (...) {
    return end(work, WorkState::failed, std::current_exception());
  }
  if (!has_more) return end(work, WorkState::done, nullptr);
  const std::lock_guard lock(mutex_);
  items_.push_back(item);
  note_urgency();
}

void InferenceQueue::end(Work& work, WorkState state, std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    ++(state == WorkState::done        ? counters_.num_done
       : state == WorkState::cancelled ? counters_.num_cancelled
                                       : counters_.num_failed);
  }
  {
    const std::lock_guard lock(work.mutex_);
    work.state_ = state;
    work.error_ = std::move(error);
  }
  work.ended_.notify_all();
  work.has_ended();
}

void InferenceQueue::pause(Work& work, bool may_end) {
  if (may_end && is_over(work)) throw Cancelled();
  const bool is_more_urgent =
      most_urgent_.load(std::memory_order_acquire) < work.deadline_.time_since_epoch().count();
  const TimePoint stopped_at = Clock::now();
  {
    const std::lock_guard lock(work.mutex_);
    const double time = to_seconds(stopped_at - work.resumed_at_);
    work.computed_ += time;
    work.longest_ = std::max(work.longest_, time);
  }
  work.resumed_at_ = stopped_at;
  if (!is_more_urgent) return;
  std::unique_lock lock(mutex_);
  occupied_.push_back(work.place_);
  while (const Item item = take(work.deadline_)) {
    ++counters_.num_let_first;
    lock.unlock();
    advance(item);
    lock.lock();
  }
  std::erase(occupied_, work.place_);
  lock.unlock();
  work.resumed_at_ = Clock::now();
  if (may_end && is_over(work)) throw Cancelled();
}

}  // namespace wallx
