// SteppedBus: bytes to and from an emulated line on a simulated clock; nothing waits for real time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "hardware/bus.hpp"
#include "hardware/bus_config.hpp"

namespace wallx {

// The line's clock and its other end. One thread uses it, the one that ticks the loop.
class SteppedLine {
 public:
  // Takes bytes that are sent at a time; gives what is answered, and when the line is quiet again.
  using Exchange = std::function<std::pair<std::vector<std::uint8_t>, TimePoint>(
      std::span<const std::uint8_t> bytes, TimePoint now)>;

  SteppedLine(Exchange exchange, TimePoint now) : exchange_(std::move(exchange)), now_(now) {}

  TimePoint now() const noexcept { return now_; }
  // Time never goes back.
  void advance(TimePoint now) noexcept { now_ = std::max(now_, now); }

 private:
  friend class SteppedBus;

  Exchange exchange_;
  TimePoint now_;
};

// Throws ConfigError: the config has no line.
std::unique_ptr<Bus> make_stepped_bus(const BusConfig& config);

}  // namespace wallx
