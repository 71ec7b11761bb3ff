// LoopbackRobot: a robot without wires: what it is told, it is; for measuring the loop and trying a program.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "hardware/robot.hpp"

namespace wallx {

// Stands at its embodiment's rest pose until told otherwise.
class LoopbackRobot final : public Robot {
 public:
  // Throws ConfigError: no joints, or more than kMaxJoints.
  explicit LoopbackRobot(Embodiment embodiment);

  const Embodiment& embodiment() const noexcept override { return embodiment_; }
  void connect() override { is_connected_ = true; }
  void disconnect() noexcept override { is_connected_ = false; }

 private:
  Result read_state(TimePoint deadline, JointState& state) noexcept override;
  Result write_goals(std::span<const double> position, std::span<const double> velocity,
                     TimePoint deadline) noexcept override;
  Result switch_on(std::span<const double> measured, TimePoint deadline) noexcept override;
  Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept override;
  Result switch_off(TimePoint deadline) noexcept override;
  Result while_connected() const noexcept {
    return {.code = is_connected_ ? ErrorCode::ok : ErrorCode::bus_closed};
  }

  const Embodiment embodiment_;
  bool is_connected_ = false;
  JointArray position_{}, velocity_{};
};

}  // namespace wallx
