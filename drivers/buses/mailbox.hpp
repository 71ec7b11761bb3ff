// Mailbox: two lock-free rings between the loop and a thread that moves their content to and from an adapter.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/time.hpp"
#include "drivers/buses/mailbox_ring.hpp"
#include "hardware/bus.hpp"
#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// What the adapter's side holds: Item is a byte or a CanFrame.
template <class Item>
class Mailbox {
 public:
  // `max_age`: what lay longer on its way to the adapter is stale and dropped, so that a command never
  // reaches a motor long after it was meant.
  explicit Mailbox(Duration max_age = std::chrono::milliseconds(20), std::size_t capacity = 4096);

  // The adapter's side. One thread delivers, one collects; connect and disconnect from any.
  void connect() noexcept { is_connected_.store(true, std::memory_order_release); }
  void disconnect() noexcept;  // the bus is closed from now on, and both waits end
  // What the adapter received, for the loop. What does not fit is dropped and counted.
  void deliver(std::span<const Item> items) noexcept;
  // Waits for something to send, then takes what is there; `count` says how many.
  Result collect(std::span<Item> items, TimePoint deadline, std::size_t& count) noexcept;
  std::uint64_t num_dropped() const noexcept { return num_dropped_.load(std::memory_order_relaxed); }

 private:
  template <class Port, class Any>
  friend class MailboxBus;

  const Duration max_age_;
  std::atomic<bool> is_connected_{false};
  std::atomic<std::uint64_t> num_dropped_{0};  // stale, or without room
  MailboxRing<Item> to_loop_, to_adapter_;
  std::vector<TimePoint> collected_at_;  // room for collect()
};

using ByteMailbox = Mailbox<std::uint8_t>;
using CanMailbox = Mailbox<CanFrame>;

// The loop's side, over the mailbox of the config. Late frames are stale frames: they carry the time at which
// the adapter delivered them. open() throws BusError when no adapter is connected. The config must name a
// mailbox of the right sort: ConfigError.
std::unique_ptr<Bus> make_mailbox_bus(const BusConfig& config);
std::unique_ptr<CanBus> make_mailbox_can_bus(const BusConfig& config);

}  // namespace wallx
