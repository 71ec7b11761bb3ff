// DynamixelRobot: a Robot whose joints are Dynamixel X servos on one bus.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "drivers/motors/dynamixel/dxl_protocol.hpp"
#include "drivers/motors/dynamixel/register_table.hpp"
#include "drivers/motors/servo_line.hpp"
#include "hardware/bus.hpp"
#include "hardware/robot.hpp"

namespace wallx {

namespace dynamixel {

// Protocol 2.0 for a ServoLine
struct Protocol {
  using Frame = dynamixel::Frame;
  using Parser = StatusParser;
  static constexpr std::size_t kMaxServos = 31;
  static constexpr std::size_t kMaxAnswer = 16;  // [bytes]

  static constexpr std::size_t num_parameters(std::size_t num_bytes, std::size_t num_servos) noexcept {
    return fast_parameters(num_bytes, num_servos);
  }
  static std::size_t wire_bytes_before_last(const Frame& request, std::size_t num_bytes,
                                            std::size_t num_servos) noexcept {
    const bool is_fast = request.bytes()[7] == static_cast<std::uint8_t>(Instruction::fast_sync_read);
    return request.bytes().size() + (is_fast ? 8 : 0) + (num_servos - 1) * (num_bytes + (is_fast ? 4 : 11));
  }
  template <class Visit>
  static void for_each_part(const Status& frame, std::size_t num_bytes, std::size_t num_servos,
                            Visit&& visit) noexcept {
    if (frame.id != kBroadcastId || frame.parameters.size() != fast_parameters(num_bytes, num_servos)) {
      visit(frame);
      return;
    }
    for (std::size_t i = 0; i < num_servos; ++i) visit(fast_part(frame, num_bytes, i));
  }
};

}  // namespace dynamixel

class DynamixelRobot final : public Robot {
 public:
  static constexpr std::size_t kMaxServos = dynamixel::Protocol::kMaxServos;
  static constexpr double kMaxOutsideTicks =
      16;  // of the calibrated range, to enable: reading noise, no more
  static constexpr double kMaxEnableDistance =
      0.1;  // [rad], enable() refuses a command farther from the last read
  static constexpr std::int32_t kWatchdogTripped = 1
                                                   << 8;  // detail of a drive_error: the servo takes no goals

  // `calibration` in joint order. Position limits of the embodiment are narrowed to the calibrated range of
  // this unit. A joint's drive_timeout becomes the servo's bus watchdog. Throws ConfigError (embodiment) or
  // CalibrationError (calibration) naming the joint. Opens nothing.
  DynamixelRobot(Embodiment embodiment, std::vector<JointCalibration> calibration, std::unique_ptr<Bus> bus);
  ~DynamixelRobot() override { DynamixelRobot::disconnect(); }

  const Embodiment& embodiment() const noexcept override { return embodiment_; }

  // Writes nothing to a servo. Blocks for about 5 ms per servo, 150 ms per servo that does not answer. Throws
  // BusError, BusTimeout naming every silent joint, DeviceError (wrong drive, firmware or mode),
  // CalibrationError. No-op when connected.
  void connect() override;
  void disconnect() noexcept override;
  Result stop_wheels(TimePoint deadline) override;
  int bus_descriptor() const noexcept override { return line_.bus().descriptor(); }
  std::string bus_trouble() const override { return line_.bus().trouble(); }

  // goals outside the calibrated range that were clamped to it, since construction; any thread
  std::uint64_t num_clamped() const noexcept { return num_clamped_.load(std::memory_order_relaxed); }
  bool reads_fast() const noexcept { return can_read_fast_ && num_plain_ == 0; }

 private:
  static constexpr std::size_t kStateBytes = 10;   // current, velocity, position: 126..135
  static constexpr std::size_t kConfigBytes = 71;  // registers 0..70
  using Line = ServoLine<dynamixel::Protocol>;
  using Config = std::array<std::uint8_t, kConfigBytes>;

  struct Servo {
    const dynamixel::Model* model = nullptr;
    double middle = 0;  // of the calibrated range, which is the joint's zero [ticks]
    int range_min = 0;  // [ticks]
    int range_max = 0;  // [ticks]
    int watchdog = 0;   // armed by enable() [20 ms], 0: not armed
    // found by connect()
    int pwm_limit = 0;
    int current_limit = 0;
    bool knows_fast = false;      // the fast sync read
    bool limits_current = false;  // torque is bounded through goal_current, else through goal_pwm
    int shutdown = 0;             // hardware errors that take its torque
    // found by read()
    double position = 0;  // [rad]
    bool has_position = false;
    int num_missed = 0;  // reads without an answer, one after the other
    std::uint8_t hardware_error = 0;
  };

  // Positions and torques are as Robot promises. A servo whose watchdog has tripped is, once, a drive_error
  // with kWatchdogTripped and a fault in drive_health; enable() clears it.
  Result read_state(TimePoint deadline, JointState& state) noexcept override;
  Result write_goals(std::span<const double> position, std::span<const double> velocity,
                     TimePoint deadline) noexcept override;
  Result switch_on(std::span<const double> measured, TimePoint deadline) noexcept override;
  Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept override;
  Result switch_off(TimePoint deadline) noexcept override;

  bool is_wheel(std::size_t joint) const noexcept {
    return embodiment_.joints[joint].mode == JointMode::velocity;
  }
  std::string describe(std::size_t joint) const;
  void check_config(std::size_t joint, const Config& config);
  double to_rad(std::size_t joint, double ticks) const noexcept;
  std::int64_t to_goal(std::size_t joint, double position) noexcept;
  Result ask_state(TimePoint deadline) noexcept;
  Result look_aside(TimePoint deadline, JointState& state) noexcept;
  Result check_torque(TimePoint deadline) noexcept;
  // the same register of some joints; `keep(i)` which, `value(i)` what
  template <class Keep, class Value>
  Result write_some(const dynamixel::Register& row, TimePoint deadline, Keep&& keep, Value&& value) noexcept;
  // reads a register of all joints back; drive_error with the first that differs where `keep(i)`
  template <class Keep, class Value>
  Result read_back(const dynamixel::Register& row, TimePoint deadline, Keep&& keep, Value&& value) noexcept;

  Embodiment embodiment_;
  const std::vector<JointCalibration> calibration_;
  Line line_;
  bool is_connected_ = false;
  bool is_movable_ = false;          // enable() has given every servo a goal since connect()
  bool is_torque_doubtful_ = false;  // a servo was silent long enough to have restarted
  bool has_told_trip_ = false;       // a tripped watchdog was reported since enable()
  bool can_read_fast_ = false;       // every servo's firmware knows the fast sync read
  int num_plain_ = 0;                // reads to go before the fast one is tried again
  std::size_t aside_ = 0;            // whose turn it is to be asked for more
  std::atomic<std::uint64_t> num_clamped_{0};

  std::array<Servo, kMaxServos> servos_{};
  dynamixel::Frame state_request_, fast_state_request_;
};

}  // namespace wallx
