// LockStepBus: a Bus whose other end is an emulated line on a simulated clock; nothing waits for real time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "emulator/serial_line.hpp"
#include "hardware/bus.hpp"

namespace wallx::test {

// `Wire` is an emulated half-duplex line: receive(bytes, now), advance(now), due(now, out), next_event(),
// now(). The caller's deadlines are of another clock: a wait ends with the next bytes, or when none can come
// any more.
template <class Wire>
class LockStepBus final : public Bus {
 public:
  explicit LockStepBus(std::shared_ptr<Wire> wire) : wire_(std::move(wire)) {}

  // for a loop on the simulated clock: this bus tells its time, and keeps its deadlines
  bool has_wire_time = false;
  TimePoint now() const noexcept override { return has_wire_time ? wire_->now() : Clock::now(); }

  void open() override {
    if (is_gone) throw BusError(name_ + " is not there");
    if (is_open_) throw BusError(name_ + " is already open");
    is_open_ = true;
    input_.clear();
    input_.reserve(4096);  // loop calls take no memory, nor does this on their behalf
  }
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  const std::string& name() const noexcept override { return name_; }

  Result transmit(std::span<const std::uint8_t> bytes, TimePoint) noexcept override {
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    ++num_requests;
    wire_->receive(bytes, wire_->now());
    return {};
  }

  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                 std::size_t& received) noexcept override {
    received = 0;
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    while (input_.empty()) {
      const auto next = wire_->next_event();
      if (!next || (has_wire_time && *next > deadline)) {
        if (has_wire_time && deadline > wire_->now()) wire_->advance(deadline);
        return {.code = ErrorCode::timeout};
      }
      wire_->advance(*next);
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

  // Lets simulated time pass.
  void advance(Duration duration) noexcept { wire_->advance(wire_->now() + duration); }

  bool is_gone = false;            // unplugged
  std::uint64_t num_requests = 0;  // transmissions so far

 private:
  void take_due() noexcept {
    emulator::TimedByte bytes[64];
    while (const std::size_t count = wire_->due(wire_->now(), bytes))
      for (std::size_t i = 0; i < count; ++i) input_.push_back(bytes[i].byte);
  }

  const std::shared_ptr<Wire> wire_;
  const std::string name_ = "lock-step";
  std::vector<std::uint8_t> input_;
  bool is_open_ = false;
};

}  // namespace wallx::test
