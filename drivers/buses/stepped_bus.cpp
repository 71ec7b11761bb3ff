// SteppedBus: an exchange takes the time that the line says.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/stepped_bus.hpp"

#include <algorithm>
#include <string>

#include "base/errors.hpp"

namespace wallx {

class SteppedBus final : public Bus {
 public:
  explicit SteppedBus(std::shared_ptr<SteppedLine> line) : line_(std::move(line)) {}

  void open() override {
    if (is_open_) throw BusError(name_ + " is already open");
    is_open_ = true;
    input_.clear();
  }
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  const std::string& name() const noexcept override { return name_; }
  TimePoint now() const noexcept override { return line_->now(); }

  Result transmit(std::span<const std::uint8_t> bytes, TimePoint) noexcept override {
    if (!is_open_) return {.code = ErrorCode::bus_closed};
    try {
      auto [answer, quiet_at] = line_->exchange_(bytes, line_->now());
      input_.insert(input_.end(), answer.begin(), answer.end());
      arrives_at_ = quiet_at;
    } catch (...) {  // the other end is gone
      is_open_ = false;
      return {.code = ErrorCode::bus_closed};
    }
    return {};
  }

  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                 std::size_t& received) noexcept override {
    received = 0;
    if (!is_open_) return {.code = ErrorCode::bus_closed};
    if (input_.empty() || arrives_at_ > deadline) {
      line_->advance(deadline);
      return {.code = ErrorCode::timeout};
    }
    line_->advance(arrives_at_);
    received = std::min(buffer.size(), input_.size());
    std::copy_n(input_.begin(), received, buffer.begin());
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(received));
    return {};
  }

  Result discard_input() noexcept override {
    if (!is_open_) return {.code = ErrorCode::bus_closed};
    input_.clear();
    return {};
  }

 private:
  const std::shared_ptr<SteppedLine> line_;
  const std::string name_ = "lock-step";
  std::vector<std::uint8_t> input_;
  TimePoint arrives_at_{};
  bool is_open_ = false;
};

std::unique_ptr<Bus> make_stepped_bus(const BusConfig& config) {
  if (!config.stepped_line)
    throw ConfigError("bus kind 'stepped' is for a program that steps an emulated robot; use another kind");
  return std::make_unique<SteppedBus>(config.stepped_line);
}

}  // namespace wallx
