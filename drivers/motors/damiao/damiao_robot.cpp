// DamiaoRobot: the loop calls: what to tell the motors, and what their answers mean in SI.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/damiao/damiao_robot.hpp"

#include <algorithm>
#include <cmath>

namespace wallx {

using damiao::Feedback;
using damiao::find_register;
using damiao::Mode;
using damiao::Parameter;
using damiao::Register;
using damiao::Special;

namespace {

constexpr Register kTimeout = find_register("timeout");

constexpr Duration kAnswerTime = std::chrono::milliseconds(10);  // of one try in an exchange
constexpr int kTries = 3;
// answers that waited longer than this may carry the time of their reading instead of their own
constexpr Duration kAnswersKeep = std::chrono::milliseconds(50);
constexpr double kDampingShare = 0.5;  // of the torque bound that following a velocity may take
constexpr double kLeastShare = 1e-4;   // one unit of the frame: 0 would let go

Result at_joint(ErrorCode code, std::size_t joint, std::int32_t detail = 0) noexcept {
  return {.code = code, .joint = static_cast<std::int16_t>(joint), .detail = detail};
}

bool is_latched(std::uint8_t status) noexcept {
  return status >= damiao::kOverVoltage && status <= damiao::kOverload;
}

// A latched error has taken the torque: where there should be some, read() says torque_off. Enabling clears
// it, or fails: called a fault, it would never let anybody try.
DriveHealth judge(std::uint8_t status) noexcept {
  if (status == damiao::kDisabled || status == damiao::kEnabled) return DriveHealth::ok;
  return is_latched(status) ? DriveHealth::warning : DriveHealth::fault;
}

}  // namespace

CanFrame DamiaoRobot::on_wire(CanFrame frame) const noexcept {
  frame.is_fd = frame.is_bit_rate_switched = bus_->is_fd();
  return frame;
}

void DamiaoRobot::take(const CanFrame& frame, Answer wanted, JointState* state) noexcept {
  if (frame.is_extended || frame.id >= joint_of_id_.size()) return;
  const int found = joint_of_id_[frame.id];
  if (found < 0) return;  // somebody else's; commands never come here: no feedback id is a command's
  const auto joint = static_cast<std::size_t>(found);
  Motor& motor = motors_[joint];
  if (frame.is_fd != bus_->is_fd()) {
    has_strange_ = true;  // it was set up for another line
    return;
  }
  Parameter parameter;
  if (decode_parameter(frame, motor.id, parameter)) {
    if (wanted != Answer::parameter) return;  // a late one
    motor.parameter = parameter;
    motor.has_answered = true;
    return;
  }
  Feedback feedback;
  if (!decode_feedback(frame, motor.id, motor.ranges, feedback)) {
    has_strange_ = true;
    return;
  }
  if (wanted != Answer::feedback) return;
  motor.has_answered = true;
  motor.status = feedback.status;
  // the middle of the step that the motor has rounded down from: at rest it is exactly 0
  const double position = feedback.position + position_step(motor.ranges) / 2;
  motor.position = motor.sign * (position - motor.zero);
  if (!state || frame.received_at < state->sampled_at[joint]) return;
  state->position[joint] = motor.position;
  state->velocity[joint] = motor.sign * (feedback.velocity + velocity_step(motor.ranges) / 2);
  const double torque = feedback.torque + torque_step(motor.ranges) / 2;
  state->load[joint] = std::clamp(motor.sign * torque / motor.max_torque, -1.0, 1.0);
  state->temperature[joint] = feedback.rotor_temperature;
  state->sampled_at[joint] = frame.received_at;
  state->drive_error[joint] = feedback.status == damiao::kEnabled ? 0 : feedback.status;
  state->drive_health[joint] = judge(feedback.status);
}

Result DamiaoRobot::collect(Answer wanted, TimePoint deadline, JointState* state) noexcept {
  const auto first_missing = [&] {
    std::size_t joint = 0;
    while (joint < num_motors_ && motors_[joint].has_answered) ++joint;
    return joint;
  };
  std::size_t missing = first_missing();
  while (missing < num_motors_) {
    std::size_t received = 0;
    const Result result = bus_->receive(input_, deadline, received);
    if (result.code == ErrorCode::timeout) break;
    if (!result.ok()) return result;
    TimePoint latest{};
    for (std::size_t i = 0; i < received; ++i) {
      take(input_[i], wanted, state);
      latest = std::max(latest, input_[i].received_at);
    }
    missing = first_missing();
    if (latest >= deadline) break;  // a line that never falls silent must not keep us
  }
  if (missing == num_motors_) return {};
  return at_joint(has_strange_ ? ErrorCode::bad_reply : ErrorCode::timeout, missing);
}

Result DamiaoRobot::exchange(Answer wanted, TimePoint deadline) noexcept {
  if (const Result result = bus_->discard_input(); !result.ok()) return result;
  for (std::size_t i = 0; i < num_motors_; ++i) motors_[i].has_answered = false;
  has_strange_ = false;
  Result result;
  for (int i = 0; i < kTries; ++i) {
    std::size_t count = 0;
    for (std::size_t k = 0; k < num_motors_; ++k)
      if (!motors_[k].has_answered) output_[count++] = requests_[k];
    const TimePoint until = std::min(deadline, bus_->now() + kAnswerTime);
    result = bus_->transmit({output_.data(), count}, until);
    if (result.ok()) result = collect(wanted, until, nullptr);
    if (result.ok() || result.code == ErrorCode::bus_closed || until == deadline) break;
  }
  return result;
}

Result DamiaoRobot::read_state(TimePoint deadline, JointState& state) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  state.num_joints = num_motors_;
  for (std::size_t i = 0; i < num_motors_; ++i) motors_[i].has_answered = false;
  has_strange_ = false;
  Result result;
  if (!is_answer_due_ || deadline - sent_by_ > kAnswersKeep) {
    if (result = bus_->discard_input(); !result.ok()) return result;
    // a motor that holds is told its last goal once more: a mere question does not keep its timeout from
    // letting go, while nothing is sent after a reset for instance
    for (std::size_t i = 0; i < num_motors_; ++i) {
      motors_[i].goal_velocity = 0;
      output_[i] = is_movable_ ? encode_goal(motors_[i]) : on_wire(damiao::encode_refresh(motors_[i].id));
    }
    if (result = bus_->transmit({output_.data(), num_motors_}, deadline); !result.ok()) return result;
  }
  is_answer_due_ = false;
  result = collect(Answer::feedback, deadline, &state);
  for (std::size_t i = 0; i < num_motors_; ++i) motors_[i].has_position = motors_[i].has_answered;
  if (result.code == ErrorCode::bus_closed || !is_movable_) return result;
  // a motor that restarted, protected itself or heard nothing for too long has let go, and says so
  for (std::size_t i = 0; i < num_motors_; ++i)
    if (motors_[i].has_answered && motors_[i].status != damiao::kEnabled)
      return at_joint(ErrorCode::torque_off, i, motors_[i].status);
  return result;
}

// The torque that a command can make is bounded here, as the frame of this mode has no field for it: the
// distance of the goal from where the joint stands, and the velocity it is to follow.
CanFrame DamiaoRobot::encode_goal(Motor& motor) noexcept {
  double goal = std::clamp(motor.goal, motor.range_min, motor.range_max);
  if (goal != motor.goal) num_clamped_.fetch_add(1, std::memory_order_relaxed);
  CanFrame frame;
  if (motor.mode == Mode::pos_force) {
    const double current = std::max(kLeastShare, motor.torque_share * motor.max_current);
    (void)damiao::encode_pos_force(motor.id, motor.zero + motor.sign * goal, damiao::kMaxForceVelocity,
                                   current, frame);
    return on_wire(frame);
  }
  const double torque = motor.torque_share * motor.max_torque;
  const double fastest = kDampingShare * torque / motor.kd;
  const double velocity = std::clamp(motor.goal_velocity, -fastest, fastest);
  const double farthest = (torque - motor.kd * std::abs(velocity)) / motor.kp;
  goal = std::clamp(goal, motor.position - farthest, motor.position + farthest);
  // gains and ranges were checked, the goal is finite: it has an encoding
  (void)damiao::encode_mit(motor.id,
                           {.position = motor.zero + motor.sign * goal + position_step(motor.ranges) / 2,
                            .velocity = motor.sign * velocity,
                            .kp = motor.kp,
                            .kd = motor.kd},
                           motor.ranges, frame);
  return on_wire(frame);
}

Result DamiaoRobot::write_goals(std::span<const double> position, std::span<const double> velocity,
                                TimePoint deadline) noexcept {
  if (!is_connected_ || !is_movable_) return {.code = ErrorCode::wrong_state};
  for (std::size_t i = 0; i < num_motors_; ++i) {
    motors_[i].goal = position[i];
    motors_[i].goal_velocity = velocity[i];
    output_[i] = encode_goal(motors_[i]);
  }
  const Result result = bus_->transmit({output_.data(), num_motors_}, deadline);
  is_answer_due_ = result.ok();
  sent_by_ = deadline;
  return result;
}

Result DamiaoRobot::switch_on(std::span<const double> measured, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  for (std::size_t i = 0; i < num_motors_; ++i) {
    const Motor& motor = motors_[i];
    if (!motor.has_position) return at_joint(ErrorCode::wrong_state, i);
    // a goal clamped into the range would be a move: somebody must bring the joint back by hand
    if (std::abs(measured[i] - motor.position) > kMaxEnableDistance ||
        measured[i] < motor.range_min - kMaxOutside || measured[i] > motor.range_max + kMaxOutside)
      return at_joint(ErrorCode::out_of_range, i, static_cast<std::int32_t>(std::lround(measured[i] * 1e3)));
  }
  is_answer_due_ = false;

  // a timeout that an earlier program armed is not ours: always written, also 0
  for (std::size_t i = 0; i < num_motors_; ++i) {
    (void)damiao::encode_write(motors_[i].id, kTimeout, embodiment_.joints[i].drive_timeout, requests_[i]);
    requests_[i] = on_wire(requests_[i]);
  }
  if (const Result result = exchange(Answer::parameter, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < num_motors_; ++i) {
    const Parameter& found = motors_[i].parameter;
    const double wanted = embodiment_.joints[i].drive_timeout;
    if (found.row.rid != kTimeout.rid || std::abs(found.value - wanted) > kTimeout.scale)
      return at_joint(ErrorCode::drive_error, i,
                      static_cast<std::int32_t>(std::lround(found.value / kTimeout.scale)));
  }

  // the goal first, so that the torque that comes on finds it; where a motor stands is no push
  const auto tell_all = [&](auto&& encode) {
    for (std::size_t i = 0; i < num_motors_; ++i) requests_[i] = on_wire(encode(i));
    return exchange(Answer::feedback, deadline);
  };
  const auto goal = [&](std::size_t i) {
    Motor& motor = motors_[i];
    motor.torque_share = 1;
    motor.goal = measured[i];
    motor.goal_velocity = 0;
    return encode_goal(motor);
  };
  if (const Result result = tell_all(goal); !result.ok()) return result;
  const bool has_fault =
      std::any_of(motors_.begin(), motors_.begin() + static_cast<std::ptrdiff_t>(num_motors_),
                  [](const Motor& m) { return is_latched(m.status); });
  if (has_fault) {
    // latched by the drive; whoever enables has been told what it was. It comes back at once if it is still
    // true
    const auto clear = [&](std::size_t i) {
      return is_latched(motors_[i].status)
                 ? damiao::encode_special(motors_[i].id, motors_[i].mode, Special::clear_error)
                 : damiao::encode_refresh(motors_[i].id);
    };
    if (const Result result = tell_all(clear); !result.ok()) return result;
  }
  // whatever fails from here on: a motor that is on holds where it stands
  const auto enable = [&](std::size_t i) {
    return damiao::encode_special(motors_[i].id, motors_[i].mode, Special::enable);
  };
  if (const Result result = tell_all(enable); !result.ok()) return result;
  if (const Result result = tell_all(goal); !result.ok()) return result;
  for (std::size_t i = 0; i < num_motors_; ++i)
    if (motors_[i].status != damiao::kEnabled) return at_joint(ErrorCode::drive_error, i, motors_[i].status);
  is_movable_ = true;
  return {};
}

Result DamiaoRobot::write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  if (!is_movable_) return {};  // nothing pulls; enabling begins with the full torque
  for (std::size_t i = 0; i < num_motors_; ++i) {
    motors_[i].torque_share = shares[i];
    motors_[i].goal_velocity = 0;
    requests_[i] = encode_goal(motors_[i]);
  }
  is_answer_due_ = false;
  return exchange(Answer::feedback, deadline);
}

Result DamiaoRobot::switch_off(TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  for (std::size_t i = 0; i < num_motors_; ++i)
    requests_[i] = on_wire(damiao::encode_special(motors_[i].id, motors_[i].mode, Special::disable));
  is_answer_due_ = false;
  if (const Result result = exchange(Answer::feedback, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < num_motors_; ++i)
    if (motors_[i].status == damiao::kEnabled) return at_joint(ErrorCode::drive_error, i, motors_[i].status);
  is_movable_ = false;
  return {};
}

}  // namespace wallx
