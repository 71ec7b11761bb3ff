// LockStepCanBus: a CanBus whose other end is an emulated line on a simulated clock; nothing waits for real
// time. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "emulator/can_wire.hpp"
#include "emulator/dm_bus.hpp"
#include "hardware/can_bus.hpp"

namespace wallx::test {

// The caller's deadlines and times of arrival are those of the real clock, unless `is_simulated`: then they
// are the line's. A wait ends with the next frames, at a simulated deadline, or when none can come any more.
class LockStepCanBus final : public CanBus {
 public:
  explicit LockStepCanBus(std::shared_ptr<emulator::DmBus> wire, bool has_fd = true)
      : wire_(std::move(wire)), is_fd_(has_fd) {}

  void open() override {
    if (is_gone) throw BusError(name_ + " is not there");
    if (is_open_) throw BusError(name_ + " is already open");
    is_open_ = true;
    input_.clear();
  }
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  bool is_fd() const noexcept override { return is_fd_; }
  const std::string& name() const noexcept override { return name_; }
  TimePoint now() const noexcept override { return is_simulated ? wire_->now() : Clock::now(); }

  Result transmit(std::span<const CanFrame> frames, TimePoint) noexcept override {
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    num_requests += frames.size();
    for (const CanFrame& frame : frames) {
      emulator::WireFrame wired;
      wired.id = frame.id;
      wired.is_extended = frame.is_extended;
      wired.is_fd = frame.is_fd;
      wired.is_fast = frame.is_bit_rate_switched;
      wired.size = frame.size;
      wired.data = frame.data;
      wire_->receive(wired, wire_->now());
      sent.push_back(frame);
      if (hears_itself) input_.push_back(stamped(frame));
    }
    return {};
  }

  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override {
    received = 0;
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    take_due();
    while (input_.empty()) {
      const auto next = wire_->next_event();
      if (is_simulated && (!next || *next > deadline)) {
        wire_->advance(std::max(deadline, wire_->now()));
        return {.code = ErrorCode::timeout};
      }
      if (!next) return {.code = ErrorCode::timeout};
      wire_->advance(*next);
      take_due();
    }
    received = std::min(frames.size(), input_.size());
    std::copy_n(input_.begin(), received, frames.begin());
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(received));
    return {};
  }

  Result discard_input() noexcept override {
    if (is_gone || !is_open_) return {.code = ErrorCode::bus_closed};
    take_due();
    input_.clear();
    return {};
  }

  void advance(Duration duration) noexcept { wire_->advance(wire_->now() + duration); }

  bool is_gone = false;       // unplugged
  bool is_simulated = false;  // deadlines and times are the line's
  bool hears_itself = false;  // against the contract, as some adapters do
  std::uint64_t num_requests = 0;
  std::vector<CanFrame> sent;

 private:
  CanFrame stamped(CanFrame frame) const noexcept {
    frame.received_at = now();
    return frame;
  }
  void take_due() noexcept {
    emulator::TimedFrame frames[32];
    while (const std::size_t count = wire_->due(wire_->now(), frames))
      for (std::size_t i = 0; i < count; ++i) {
        const emulator::WireFrame& wired = frames[i].frame;
        if (wired.is_error) {
          is_gone = true;  // bus-off
          continue;
        }
        CanFrame frame;
        frame.id = wired.id;
        frame.is_extended = wired.is_extended;
        frame.is_fd = wired.is_fd;
        frame.is_bit_rate_switched = wired.is_fast;
        frame.size = wired.size;
        frame.data = wired.data;
        frame.received_at = is_simulated ? frames[i].at : Clock::now();
        input_.push_back(frame);
      }
  }

  const std::shared_ptr<emulator::DmBus> wire_;
  const std::string name_ = "lock-step CAN";
  const bool is_fd_;
  std::deque<CanFrame> input_;
  bool is_open_ = false;
};

}  // namespace wallx::test
