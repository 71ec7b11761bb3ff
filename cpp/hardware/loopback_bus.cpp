// LoopbackBus: two byte queues under one lock.
// SPDX-License-Identifier: Apache-2.0
#include "hardware/loopback_bus.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/errors.hpp"

namespace wallx {
namespace {

// one direction: a ring of bytes that never grows
class Queue {
 public:
  explicit Queue(std::size_t capacity) : bytes_(capacity) {}

  std::size_t size() const noexcept { return size_; }
  void clear() noexcept { size_ = 0; }

  std::size_t put(std::span<const std::uint8_t> from) noexcept {
    const std::size_t count = std::min(from.size(), bytes_.size() - size_);
    for (std::size_t i = 0; i < count; ++i) bytes_[(first_ + size_ + i) % bytes_.size()] = from[i];
    size_ += count;
    return count;
  }

  std::size_t take(std::span<std::uint8_t> to) noexcept {
    const std::size_t count = std::min(to.size(), size_);
    for (std::size_t i = 0; i < count; ++i) to[i] = bytes_[(first_ + i) % bytes_.size()];
    first_ = (first_ + count) % bytes_.size();
    size_ -= count;
    return count;
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

struct Line {
  explicit Line(std::size_t capacity) : toward{Queue(capacity), Queue(capacity)} {}

  std::mutex mutex;
  std::condition_variable changed;
  Queue toward[2];  // bytes on their way to end 0 and to end 1
  bool is_open[2] = {false, false};
};

class LoopbackBus final : public Bus {
 public:
  LoopbackBus(std::shared_ptr<Line> line, int end, std::string name)
      : line_(std::move(line)), end_(end), name_(std::move(name)) {}
  ~LoopbackBus() override { LoopbackBus::close(); }

  void open() override {
    const std::scoped_lock lock(line_->mutex);
    if (line_->is_open[end_]) throw BusError(name_ + " is already open; close it first");
    line_->is_open[end_] = true;
    line_->toward[end_].clear();
    line_->changed.notify_all();
  }

  void close() noexcept override {
    const std::scoped_lock lock(line_->mutex);
    line_->is_open[end_] = false;
    line_->changed.notify_all();
  }

  bool is_open() const noexcept override {
    const std::scoped_lock lock(line_->mutex);
    return line_->is_open[end_];
  }

  const std::string& name() const noexcept override { return name_; }

  Result transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept override {
    std::unique_lock lock(line_->mutex);
    while (true) {
      if (!line_->is_open[end_] || !line_->is_open[1 - end_]) return {.code = ErrorCode::bus_closed};
      bytes = bytes.subspan(line_->toward[1 - end_].put(bytes));
      line_->changed.notify_all();
      if (bytes.empty()) return {};
      if (line_->changed.wait_until(lock, deadline) == std::cv_status::timeout)
        return {.code = ErrorCode::timeout};
    }
  }

  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                 std::size_t& received) noexcept override {
    received = 0;
    std::unique_lock lock(line_->mutex);
    bool is_late = false;
    while (true) {
      if (!line_->is_open[end_]) return {.code = ErrorCode::bus_closed};
      received = line_->toward[end_].take(buffer);
      if (received > 0) {
        line_->changed.notify_all();
        return {};
      }
      if (!line_->is_open[1 - end_]) return {.code = ErrorCode::bus_closed};
      if (is_late) return {.code = ErrorCode::timeout};
      is_late = line_->changed.wait_until(lock, deadline) == std::cv_status::timeout;
    }
  }

  Result discard_input() noexcept override {
    const std::scoped_lock lock(line_->mutex);
    if (!line_->is_open[end_]) return {.code = ErrorCode::bus_closed};
    line_->toward[end_].clear();
    line_->changed.notify_all();
    return {};
  }

 private:
  const std::shared_ptr<Line> line_;
  const int end_;
  const std::string name_;
};

}  // namespace

std::pair<std::unique_ptr<Bus>, std::unique_ptr<Bus>> make_loopback(const std::string& name,
                                                                    std::size_t capacity) {
  auto line = std::make_shared<Line>(std::max<std::size_t>(capacity, 1));
  return {std::make_unique<LoopbackBus>(line, 0, name + "[0]"),
          std::make_unique<LoopbackBus>(line, 1, name + "[1]")};
}

}  // namespace wallx
