// Loopback: two queues under one lock, of bytes or of CAN frames.
// SPDX-License-Identifier: Apache-2.0
#include "hardware/loopback_bus.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/errors.hpp"

namespace wallx {
namespace {

// one direction: a ring that never grows
template <class Item>
class Queue {
 public:
  explicit Queue(std::size_t capacity) : items_(capacity) {}

  std::size_t size() const noexcept { return size_; }
  void clear() noexcept { size_ = 0; }

  std::size_t put(std::span<const Item> from) noexcept {
    const std::size_t count = std::min(from.size(), items_.size() - size_);
    for (std::size_t i = 0; i < count; ++i) {
      Item& item = items_[(first_ + size_ + i) % items_.size()];
      item = from[i];
      if constexpr (std::is_same_v<Item, CanFrame>) item.received_at = Clock::now();
    }
    size_ += count;
    return count;
  }

  std::size_t take(std::span<Item> to) noexcept {
    const std::size_t count = std::min(to.size(), size_);
    for (std::size_t i = 0; i < count; ++i) to[i] = items_[(first_ + i) % items_.size()];
    first_ = (first_ + count) % items_.size();
    size_ -= count;
    return count;
  }

 private:
  std::vector<Item> items_;
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

template <class Item>
struct Line {
  explicit Line(std::size_t capacity) : toward{Queue<Item>(capacity), Queue<Item>(capacity)} {}

  std::mutex mutex;
  std::condition_variable changed;
  Queue<Item> toward[2];  // on their way to end 0 and to end 1
  bool is_open[2] = {false, false};
};

template <class Port, class Item>
class Loopback : public Port {
 public:
  Loopback(std::shared_ptr<Line<Item>> line, int end, std::string name)
      : line_(std::move(line)), end_(end), name_(std::move(name)) {}
  ~Loopback() override { Loopback::close(); }

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

  Result transmit(std::span<const Item> items, TimePoint deadline) noexcept override {
    std::unique_lock lock(line_->mutex);
    while (true) {
      if (!line_->is_open[end_] || !line_->is_open[1 - end_]) return {.code = ErrorCode::bus_closed};
      items = items.subspan(line_->toward[1 - end_].put(items));
      line_->changed.notify_all();
      if (items.empty()) return {};
      if (line_->changed.wait_until(lock, deadline) == std::cv_status::timeout)
        return {.code = ErrorCode::timeout};
    }
  }

  Result receive(std::span<Item> buffer, TimePoint deadline, std::size_t& received) noexcept override {
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
  const std::shared_ptr<Line<Item>> line_;
  const int end_;
  const std::string name_;
};

using LoopbackBus = Loopback<Bus, std::uint8_t>;

class LoopbackCanBus final : public Loopback<CanBus, CanFrame> {
 public:
  LoopbackCanBus(std::shared_ptr<Line<CanFrame>> line, int end, std::string name, bool is_fd)
      : Loopback(std::move(line), end, std::move(name)), is_fd_(is_fd) {}
  bool is_fd() const noexcept override { return is_fd_; }
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override {
    if (const Result checked = check_frames(frames, is_fd_); !checked.ok()) return checked;
    return Loopback::transmit(frames, deadline);
  }

 private:
  const bool is_fd_;
};

}  // namespace

std::pair<std::unique_ptr<Bus>, std::unique_ptr<Bus>> make_loopback(const std::string& name,
                                                                    std::size_t capacity) {
  auto line = std::make_shared<Line<std::uint8_t>>(std::max<std::size_t>(capacity, 1));
  return {std::make_unique<LoopbackBus>(line, 0, name + "[0]"),
          std::make_unique<LoopbackBus>(line, 1, name + "[1]")};
}

std::pair<std::unique_ptr<CanBus>, std::unique_ptr<CanBus>> make_can_loopback(const std::string& name,
                                                                              bool is_fd,
                                                                              std::size_t capacity) {
  auto line = std::make_shared<Line<CanFrame>>(std::max<std::size_t>(capacity, 1));
  return {std::make_unique<LoopbackCanBus>(line, 0, name + "[0]", is_fd),
          std::make_unique<LoopbackCanBus>(line, 1, name + "[1]", is_fd)};
}

}  // namespace wallx
