// Mailbox: the buses at the loop's ends of two rings.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/mailbox.hpp"

#include <time.h>

#include <array>

#include "base/errors.hpp"

namespace wallx {

template <class Item>
Mailbox<Item>::Mailbox(Duration max_age, std::size_t capacity)
    : max_age_(max_age), to_loop_(capacity), to_adapter_(capacity), collected_at_(capacity) {}

template <class Item>
void Mailbox<Item>::disconnect() noexcept {
  is_connected_.store(false, std::memory_order_release);
  to_loop_.wake();
  to_adapter_.wake();
}

template <class Item>
void Mailbox<Item>::deliver(std::span<const Item> items) noexcept {
  if (!to_loop_.put(items)) num_dropped_.fetch_add(items.size(), std::memory_order_relaxed);
}

template <class Item>
Result Mailbox<Item>::collect(std::span<Item> items, TimePoint deadline, std::size_t& count) noexcept {
  while (true) {
    const std::size_t taken = to_adapter_.take(items, collected_at_);
    const TimePoint oldest = Clock::now() - max_age_;
    count = 0;
    for (std::size_t i = 0; i < taken; ++i)
      if (collected_at_[i] >= oldest) items[count++] = items[i];
    num_dropped_.fetch_add(taken - count, std::memory_order_relaxed);
    if (count > 0) return {};
    if (!is_connected_.load(std::memory_order_acquire)) return {.code = ErrorCode::bus_closed};
    if (taken > 0) continue;
    if (const Result waited = to_adapter_.wait(deadline); !waited.ok()) return waited;
  }
}

// Port is Bus or CanBus
template <class Port, class Item>
class MailboxBus : public Port {
 public:
  MailboxBus(std::shared_ptr<Mailbox<Item>> mailbox, std::string name)
      : mailbox_(std::move(mailbox)), name_(std::move(name)) {}

  void open() override {
    if (is_open_) throw BusError("mailbox of " + name_ + " is already open; close it first");
    if (!is_connected())
      throw BusError("mailbox of " + name_ + ": no adapter is connected to it; open the adapter first");
    mailbox_->to_loop_.clear();
    is_open_ = true;
  }
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  const std::string& name() const noexcept override { return name_; }

  Result transmit(std::span<const Item> items, TimePoint deadline) noexcept override {
    while (true) {
      if (!is_open_ || !is_connected()) return {.code = ErrorCode::bus_closed};
      if (mailbox_->to_adapter_.put(items)) return {};
      // the adapter's thread tells nobody that it made room: it is far behind already
      if (Clock::now() + kRetry > deadline) return {.code = ErrorCode::timeout};
      const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kRetry).count()};
      ::nanosleep(&pause, nullptr);
    }
  }

  Result receive(std::span<Item> items, TimePoint deadline, std::size_t& received) noexcept override {
    received = 0;
    if (items.empty()) return {.code = ErrorCode::out_of_range};
    while (true) {
      if (!is_open_) return {.code = ErrorCode::bus_closed};
      std::array<TimePoint, 256> put_at;
      received = mailbox_->to_loop_.take(items, put_at);
      if constexpr (std::is_same_v<Item, CanFrame>)
        for (std::size_t i = 0; i < received; ++i) items[i].received_at = put_at[i];
      if (received > 0) return {};
      if (!is_connected()) return {.code = ErrorCode::bus_closed};
      if (const Result waited = mailbox_->to_loop_.wait(deadline); !waited.ok()) return waited;
    }
  }

  Result discard_input() noexcept override {
    if (!is_open_) return {.code = ErrorCode::bus_closed};
    mailbox_->to_loop_.clear();
    return {};
  }

 private:
  static constexpr auto kRetry = std::chrono::microseconds(100);

  bool is_connected() const noexcept { return mailbox_->is_connected_.load(std::memory_order_acquire); }

  const std::shared_ptr<Mailbox<Item>> mailbox_;
  const std::string name_;
  bool is_open_ = false;
};

namespace {

class MailboxCanBus final : public MailboxBus<CanBus, CanFrame> {
 public:
  MailboxCanBus(std::shared_ptr<CanMailbox> mailbox, std::string name, bool is_fd)
      : MailboxBus(std::move(mailbox), std::move(name)), is_fd_(is_fd) {}
  bool is_fd() const noexcept override { return is_fd_; }
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override {
    if (const Result checked = check_frames(frames, is_fd_); is_open() && !checked.ok()) return checked;
    return MailboxBus::transmit(frames, deadline);
  }

 private:
  const bool is_fd_;
};

template <class Any>
const std::shared_ptr<Any>& need(const std::shared_ptr<Any>& mailbox, const BusConfig& config,
                                 const char* what) {
  if (!mailbox)
    throw ConfigError("mailbox bus " + config.port + " has no mailbox for " + what +
                      ": its adapter carries the other sort; correct adapter of [bus] in the robot's file");
  return mailbox;
}

}  // namespace

std::unique_ptr<Bus> make_mailbox_bus(const BusConfig& config) {
  return std::make_unique<MailboxBus<Bus, std::uint8_t>>(need(config.byte_mailbox, config, "bytes"),
                                                         config.port);
}

std::unique_ptr<CanBus> make_mailbox_can_bus(const BusConfig& config) {
  return std::make_unique<MailboxCanBus>(need(config.can_mailbox, config, "CAN frames"), config.port,
                                         config.data_bit_rate > 0);
}

template class Mailbox<std::uint8_t>;
template class Mailbox<CanFrame>;

}  // namespace wallx
