// FeetechRobot: a Robot whose joints are Feetech STS servos on one bus.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "drivers/motors/feetech/sts_protocol.hpp"
#include "drivers/motors/feetech/tick_scale.hpp"
#include "drivers/motors/servo_line.hpp"
#include "hardware/bus.hpp"
#include "hardware/robot.hpp"

namespace wallx {

namespace feetech {

// the STS protocol for a ServoLine: one frame is one answer
struct Protocol {
  using Frame = feetech::Frame;
  using Parser = ReplyParser;
  static constexpr std::size_t kMaxServos = 31;  // one sync write of enable() holds no more
  static constexpr std::size_t kMaxAnswer = 24;  // [bytes]

  static constexpr std::size_t num_parameters(std::size_t num_bytes, std::size_t) noexcept {
    return num_bytes;
  }
  static std::size_t wire_bytes_before_last(const Frame& request, std::size_t num_bytes,
                                            std::size_t num_servos) noexcept {
    return request.bytes().size() + (num_servos - 1) * (num_bytes + 6);
  }
  template <class Visit>
  static void for_each_part(const Reply& frame, std::size_t, std::size_t, Visit&& visit) noexcept {
    visit(frame);
  }
};

}  // namespace feetech

class FeetechRobot final : public Robot {
 public:
  static constexpr std::size_t kMaxServos = feetech::Protocol::kMaxServos;
  static constexpr double kMaxOutsideTicks =
      16;  // of the calibrated range, to enable: reading noise, no more
  static constexpr double kMaxEnableDistance =
      0.1;  // [rad], enable() refuses a command farther from the last read

  // `calibration` in joint order. Position limits of the embodiment are narrowed to the calibrated range of
  // this unit. Throws ConfigError (embodiment) or CalibrationError (calibration) naming the joint. Opens
  // nothing.
  FeetechRobot(Embodiment embodiment, std::vector<JointCalibration> calibration, std::unique_ptr<Bus> bus);
  ~FeetechRobot() override { disconnect(); }

  const Embodiment& embodiment() const noexcept override { return embodiment_; }

  // Writes nothing to a servo. Blocks for about 5 ms per servo, 150 ms per servo that does not answer. Throws
  // BusError, BusTimeout naming every silent joint, DeviceError (wrong drive or mode), CalibrationError.
  // No-op when connected.
  void connect() override;
  void disconnect() noexcept override;
  Result stop_wheels(TimePoint deadline) override;
  int bus_descriptor() const noexcept override { return line_.bus().descriptor(); }
  std::string bus_trouble() const override { return line_.bus().trouble(); }

  // goals outside the calibrated range that were clamped to it, since construction; any thread
  std::uint64_t num_clamped() const noexcept { return num_clamped_.load(std::memory_order_relaxed); }

 private:
  // position, speed, load, voltage, temperature: registers 56..63
  static constexpr std::size_t kStateBytes = 8;
  // torque and goals before them: registers 40..63
  static constexpr std::size_t kWideBytes = feetech::Protocol::kMaxAnswer;
  static constexpr unsigned kWideEvery = 8;        // reads
  static constexpr std::size_t kConfigBytes = 31;  // registers 3..33

  struct Servo {
    int range_min = 0;        // [ticks]
    int range_max = 0;        // [ticks]
    int max_torque = 0;       // [0.1 % of stall torque], as configured in the servo
    std::uint8_t faults = 0;  // error bits after which it is not to be trusted
    feetech::TickScale scale;
    double position = 0;        // [rad], found by the last read()
    bool has_position = false;  // the last read() found one
    int num_missed = 0;         // reads without an answer, one after the other
  };
  using Config = std::array<std::uint8_t, kConfigBytes>;

  Result read_state(TimePoint deadline, JointState& state) noexcept override;
  // wrong_state also before switch_on(): a servo may take a goal for a wish to move.
  Result write_goals(std::span<const double> position, std::span<const double> velocity,
                     TimePoint deadline) noexcept override;
  // wrong_state unless every joint answered the last read(); out_of_range when `measured` is not the pose it
  // found. drive_error with the first joint whose torque did not come on; the others keep theirs: nothing
  // falls.
  Result switch_on(std::span<const double> measured, TimePoint deadline) noexcept override;
  // drive_error with the first joint that reads back another limit, which is the detail
  Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept override;
  Result switch_off(TimePoint deadline) noexcept override;

  bool is_wheel(std::size_t joint) const noexcept {
    return embodiment_.joints[joint].mode == JointMode::velocity;
  }
  DriveHealth judge(std::size_t joint, std::uint8_t error) const noexcept;
  void check_config(std::size_t joint, const Config& config);
  std::string describe(std::size_t joint) const;

  std::uint16_t to_goal(std::size_t joint, double position) noexcept;
  std::uint16_t to_goal_speed(std::size_t joint, double velocity) const noexcept;
  Result write_all(std::uint8_t address, std::uint8_t num_bytes, TimePoint deadline) noexcept;
  Result check_torque(TimePoint deadline) noexcept;

  Embodiment embodiment_;
  const std::vector<JointCalibration> calibration_;
  ServoLine<feetech::Protocol> line_;
  bool is_connected_ = false;
  bool is_torque_doubtful_ = false;  // a servo was silent long enough to have restarted
  bool is_movable_ = false;          // enable() has given every servo a goal since connect()
  std::atomic<std::uint64_t> num_clamped_{0};

  // fixed buffers of the loop calls
  std::array<Servo, kMaxServos> servos_{};
  std::array<std::uint8_t, kMaxServos * 7> data_{};  // rows of the next sync write
  unsigned num_reads_ = 0;
  feetech::Frame state_request_;
  feetech::Frame wide_request_;
  feetech::Frame torque_request_;
  feetech::Frame torque_limit_request_;
};

}  // namespace wallx
