// DamiaoRegisters: the registers of Damiao DM motors by name, torque off.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>

#include "drivers/motors/damiao/damiao_protocol.hpp"
#include "hardware/can_bus.hpp"
#include "hardware/motor_registers.hpp"

namespace wallx {

// Two names are no registers of these motors but what they tell of their state: "torque_enable", of which 0
// is their disable command, and "present_position" [rad], the one that a DamiaoRobot moves by. A register
// that holds a fraction is read by value(), and written as a whole number of its unit.
class DamiaoRegisters final : public MotorRegisters {
 public:
  explicit DamiaoRegisters(std::unique_ptr<CanBus> bus) : bus_(std::move(bus)) {}
  ~DamiaoRegisters() override { DamiaoRegisters::close(); }

  void open() override { bus_->open(); }
  void close() noexcept override { bus_->close(); }
  bool ping(int id) override;
  std::int64_t read(int id, const std::string& name) override;
  double value(int id, const std::string& name) override;
  void write(int id, const std::string& name, std::int64_t value) override;

 private:
  bool tell(int id, CanFrame& frame);
  template <class IsAnswer>
  std::optional<CanFrame> ask(int id, CanFrame request, IsAnswer&& is_answer);
  std::optional<double> find(int id, const CanFrame& request, const damiao::Register& row);
  double get(int id, const damiao::Register& row);
  damiao::Feedback state(int id);
  void let_go(int id);

  // what a motor's state comes under and scales by
  struct Known {
    std::uint32_t feedback_id;
    damiao::Ranges ranges;
  };

  const std::unique_ptr<CanBus> bus_;
  std::map<int, Known> known_;  // by id, until something is written
  std::array<CanFrame, 32> input_;
};

}  // namespace wallx
