// TimedBus: a Bus onto an emulated line whose simulated clock also runs while the driver waits; deadlines
// hold. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "emulator/serial_line.hpp"
#include "hardware/bus.hpp"

namespace wallx::test {

class TimedBus final : public Bus {
 public:
  explicit TimedBus(std::shared_ptr<emulator::SerialLine> wire) : wire_(std::move(wire)) {}

  void open() override {
    if (is_gone) throw BusError(name_ + " is not there");
    is_open_ = true;
  }
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  const std::string& name() const noexcept override { return name_; }
  TimePoint now() const noexcept override { return wire_->now(); }

  Result transmit(std::span<const std::uint8_t> bytes, TimePoint) noexcept override {
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    wire_->receive(bytes, wire_->now());
    return {};
  }
  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                 std::size_t& received) noexcept override {
    received = 0;
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    take_due();
    while (input_.empty()) {
      if (wire_->now() >= deadline) return {.code = ErrorCode::timeout};
      wire_->advance(std::min(deadline, wire_->next_event().value_or(deadline)));
      take_due();
    }
    received = std::min(buffer.size(), input_.size());
    std::copy_n(input_.begin(), received, buffer.begin());
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(received));
    return {};
  }
  Result discard_input() noexcept override {
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    take_due();
    input_.clear();
    return {};
  }

  bool is_gone = false;  // unplugged

 private:
  void take_due() noexcept {
    emulator::TimedByte bytes[64];
    while (const std::size_t count = wire_->due(wire_->now(), bytes))
      for (std::size_t i = 0; i < count; ++i) input_.push_back(bytes[i].byte);
  }

  const std::shared_ptr<emulator::SerialLine> wire_;
  const std::string name_ = "simulated";
  std::vector<std::uint8_t> input_;
  bool is_open_ = false;
};

}  // namespace wallx::test
