// DamiaoRobot: a Robot whose joints are Damiao DM motors on one CAN bus.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "drivers/motors/damiao/damiao_protocol.hpp"
#include "hardware/can_bus.hpp"
#include "hardware/robot.hpp"

namespace wallx {

// Each motor answers each command with its state, so a loop that sends reads for free: read() takes the
// answers to the last send(), and asks only when nothing was sent. A sample is therefore up to a period old,
// and says so. A robot that is enabled asks by repeating its last goals, so that a timeout which is armed
// does not let go while the loop only reads.
class DamiaoRobot final : public Robot {
 public:
  static constexpr std::size_t kMaxMotors = 32;
  static constexpr double kMaxOutside = 0.02;  // of the range, to enable: reading noise, no more  [rad]
  static constexpr double kMaxEnableDistance =
      0.1;  // enable() refuses a command farther from the last read [rad]

  // `calibration` in joint order, its offset and range in degrees of the motor. JointSpec::drive holds, per
  // joint:
  //   control_mode   1 MIT, 4 position with bounded force; as register 10 must say
  //   kp, kd         MIT: stiffness [N m/rad] and damping [N m s/rad]
  //   max_torque     what the motor can do at its peak: load is a share of it, MIT commands are bounded by it
  //   [N m] max_current    position with force: share of the drive's largest current, 0..1 (1) feedback_id
  //   register 7 (the motor's id + 16) position_range, velocity_range, torque_range   registers 21..23, where
  //   they are not the model's min_firmware   least value of register 14 (any)
  // Position limits of the embodiment are narrowed to the calibrated range. Throws ConfigError (embodiment)
  // or CalibrationError (calibration) naming the joint. Opens nothing.
  DamiaoRobot(Embodiment embodiment, std::vector<JointCalibration> calibration, std::unique_ptr<CanBus> bus);
  ~DamiaoRobot() override { disconnect(); }

  const Embodiment& embodiment() const noexcept override { return embodiment_; }

  // Writes nothing to a motor. Blocks for about 10 ms per motor, 150 ms per motor that does not answer.
  // Throws BusError, BusTimeout naming every silent joint, DeviceError naming joint, register, found and
  // expected value. No-op when connected.
  void connect() override;
  void disconnect() noexcept override;
  std::string bus_trouble() const override { return bus_->trouble(); }

  // goals outside the calibrated range that were clamped to it, since construction; any thread
  std::uint64_t num_clamped() const noexcept { return num_clamped_.load(std::memory_order_relaxed); }

 private:
  struct Motor {
    std::uint32_t id = 0;
    std::uint32_t feedback_id = 0;
    damiao::Mode mode = damiao::Mode::mit;
    damiao::Ranges ranges;
    double kp = 0, kd = 0;
    double max_torque = 0;   // [N m]
    double max_current = 1;  // share
    double min_firmware = 0;
    double sign = 1;       // of the joint against the motor
    double zero = 0;       // the joint's zero, at the motor  [rad]
    double range_min = 0;  // calibrated, of the joint        [rad]
    double range_max = 0;
    // of the last read()
    double position = 0;  // of the joint                    [rad]
    bool has_position = false;
    // of the present exchange
    bool has_answered = false;
    std::uint8_t status = 0;
    damiao::Parameter parameter;
    double torque_share = 1;             // of max_torque or max_current
    double goal = 0, goal_velocity = 0;  // last ones given, of the joint  [rad] [rad/s]
  };
  enum class Answer : std::uint8_t { feedback, parameter };

  Result read_state(TimePoint deadline, JointState& state) noexcept override;
  // wrong_state also before switch_on()
  Result write_goals(std::span<const double> position, std::span<const double> velocity,
                     TimePoint deadline) noexcept override;
  // wrong_state unless every joint answered the last read(); out_of_range when `measured` is not the pose it
  // found; drive_error with the first joint whose timeout reads back differently (detail: register 9 as
  // found) or whose torque did not come on (detail: status). The others keep theirs: nothing falls.
  Result switch_on(std::span<const double> measured, TimePoint deadline) noexcept override;
  // Sends the last goals again, bounded anew; ok when every motor has answered them.
  Result write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept override;
  Result switch_off(TimePoint deadline) noexcept override;

  void configure(std::size_t joint);
  void narrow_limits(std::size_t joint);
  std::string describe(std::size_t joint) const;
  double ask_one(std::size_t joint, const damiao::Register& row);
  void check_config(std::size_t joint);
  void check_unique(std::size_t joint, double serial);

  CanFrame on_wire(CanFrame frame) const noexcept;
  CanFrame encode_goal(Motor& motor) noexcept;
  void take(const CanFrame& frame, Answer wanted, JointState* state) noexcept;
  // Waits until every motor has answered. timeout, or bad_reply, with the first that has not.
  Result collect(Answer wanted, TimePoint deadline, JointState* state) noexcept;
  // One frame per motor, then their answers; again for those that did not, while there is time.
  Result exchange(Answer wanted, TimePoint deadline) noexcept;

  Embodiment embodiment_;
  const std::vector<JointCalibration> calibration_;
  const std::unique_ptr<CanBus> bus_;
  std::size_t num_motors_ = 0;
  bool is_connected_ = false;
  bool is_movable_ = false;     // switch_on() has succeeded since connect()
  bool is_answer_due_ = false;  // goals went out, their answers were not read yet
  bool has_strange_ = false;    // a frame of ours came that is no answer
  TimePoint sent_by_{};         // deadline of the goals that went out
  std::atomic<std::uint64_t> num_clamped_{0};

  // fixed buffers of the loop calls
  std::array<Motor, kMaxMotors> motors_{};
  std::array<std::int8_t, 0x800> joint_of_id_{};  // by feedback id; -1: no joint
  std::array<CanFrame, kMaxMotors> requests_{};   // one per motor, in joint order
  std::array<CanFrame, kMaxMotors> output_{};
  std::array<CanFrame, 64> input_{};
};

}  // namespace wallx
