// FeetechRobot: what to ask the servos, what to tell them, and what their answers mean in SI.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/feetech/feetech_robot.hpp"

#include <algorithm>
#include <cmath>

#include "base/errors.hpp"
#include "drivers/motors/servo_calibration.hpp"

namespace wallx {

using feetech::find_register;
using feetech::Frame;
using feetech::Register;

namespace {

constexpr Register kModelNumber = find_register("model_number");
constexpr Register kResponseLevel = find_register("response_level");
constexpr Register kMinAngle = find_register("min_angle");
constexpr Register kMaxAngle = find_register("max_angle");
constexpr Register kMaxTorque = find_register("max_torque");
constexpr Register kPhase = find_register("phase");
constexpr Register kHomingOffset = find_register("homing_offset");
constexpr Register kOperatingMode = find_register("operating_mode");
constexpr Register kTorqueEnable = find_register("torque_enable");
constexpr Register kAcceleration = find_register("acceleration");
constexpr Register kGoalPosition = find_register("goal_position");
constexpr Register kGoalSpeed = find_register("goal_speed");
constexpr Register kTorqueLimit = find_register("torque_limit");
constexpr Register kPresentPosition = find_register("present_position");
constexpr Register kPresentSpeed = find_register("present_speed");
constexpr Register kPresentLoad = find_register("present_load");
constexpr Register kPresentVoltage = find_register("present_voltage");
constexpr Register kPresentTemperature = find_register("present_temperature");
constexpr Register kUnloadCondition = find_register("unload_condition");

constexpr std::uint8_t kStateAddress = kPresentPosition.address;
constexpr std::uint8_t kConfigAddress = kModelNumber.address;
// acceleration, goal position, goal time, goal speed: one block, so that no servo ever has half of it
constexpr std::uint8_t kMotionBytes = kGoalSpeed.address + kGoalSpeed.num_bytes - kAcceleration.address;
static_assert(kMotionBytes == 7);

constexpr int kMaxTorqueValue = 1000;
// `block` starts at register `first`
int get(const Register& row, std::span<const std::uint8_t> block, std::uint8_t first) noexcept {
  const std::uint8_t* at = block.data() + (row.address - first);
  return feetech::from_sign_magnitude(row.num_bytes == 2 ? feetech::get_u16(at) : at[0], row.sign_bit);
}

constexpr int kMissedToDoubt = 2;  // reads without an answer before a servo may have restarted
constexpr ServoBounds kBounds{.family = "Feetech",
                              .max_servos = FeetechRobot::kMaxServos,
                              .max_id = feetech::kMaxId,
                              .max_ticks = feetech::kMaxTicks,
                              .max_homing_offset = 2047,
                              .rad_per_tick = feetech::kRadPerTick};

std::vector<std::uint8_t> ids_of(const Embodiment& embodiment,
                                 const std::vector<JointCalibration>& calibration) {
  check_calibration(embodiment, calibration, kBounds);
  for (const JointSpec& joint : embodiment.joints)
    if (joint.drive_timeout != 0)
      throw ConfigError("joint '" + joint.name + "' of embodiment '" + embodiment.name +
                        "': drive_timeout is " + std::to_string(joint.drive_timeout) +
                        " s, but Feetech servos have no timeout; leave it out");
  std::vector<std::uint8_t> ids;
  for (const JointCalibration& joint : calibration) ids.push_back(static_cast<std::uint8_t>(joint.id));
  return ids;
}

}  // namespace

FeetechRobot::FeetechRobot(Embodiment embodiment, std::vector<JointCalibration> calibration,
                           std::unique_ptr<Bus> bus)
    : embodiment_(std::move(embodiment)),
      calibration_(std::move(calibration)),
      line_(std::move(bus), ids_of(embodiment_, calibration_)) {
  narrow_limits(embodiment_, calibration_, feetech::kRadPerTick);
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const JointCalibration& joint = calibration_[i];
    servos_[i].range_min = joint.range_min;
    servos_[i].range_max = joint.range_max;
    servos_[i].scale = feetech::TickScale(joint);
  }
  state_request_ = feetech::encode_sync_read(kStateAddress, kStateBytes, line_.ids());
  wide_request_ = feetech::encode_sync_read(kTorqueEnable.address, kWideBytes, line_.ids());
  torque_request_ = feetech::encode_sync_read(kTorqueEnable.address, 1, line_.ids());
  torque_limit_request_ =
      feetech::encode_sync_read(kTorqueLimit.address, kTorqueLimit.num_bytes, line_.ids());
}

std::string FeetechRobot::describe(std::size_t joint) const {
  return "joint '" + embodiment_.joints[joint].name + "' (id " + std::to_string(calibration_[joint].id) + ")";
}

void FeetechRobot::connect() {
  if (is_connected_) return;
  line_.bus().open();
  try {
    std::string silent;
    std::size_t num_silent = 0;
    for (std::size_t i = 0; i < line_.size(); ++i) {
      if (line_.ask_one(i, feetech::encode_ping(line_.ids()[i]), {})) continue;
      silent += (num_silent++ ? ", " : "") + describe(i);
    }
    if (num_silent > 0)
      throw BusTimeout("no answer on " + line_.bus().name() + " from " + silent + " after " +
                       std::to_string(kNumAsks) + " tries; check " +
                       (num_silent == line_.size() ? "the power supply, the port and the baud rate"
                                                   : "that servo's cable, id and baud rate"));
    for (std::size_t i = 0; i < line_.size(); ++i) {
      Config config{};
      if (!line_.ask_one(i, feetech::encode_read(line_.ids()[i], kConfigAddress, kConfigBytes), config))
        throw BusTimeout(describe(i) + " on " + line_.bus().name() +
                         " answers a ping but not a read of registers " + std::to_string(kConfigAddress) +
                         ".." + std::to_string(kConfigAddress + kConfigBytes - 1) +
                         "; check its cable and supply");
      check_config(i, config);
    }
  } catch (...) {
    line_.bus().close();
    throw;
  }
  for (Servo& servo : servos_) servo.has_position = false;
  is_movable_ = false;
  is_connected_ = true;
}

void FeetechRobot::disconnect() noexcept {
  is_connected_ = is_movable_ = false;
  line_.bus().close();
}

Result FeetechRobot::stop_wheels(TimePoint deadline) {
  if (!line_.bus().is_open()) line_.bus().open();
  std::vector<std::uint8_t> ids;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (is_wheel(i)) ids.push_back(line_.ids()[i]);
  if (ids.empty()) return {};
  const std::vector<std::uint8_t> still(ids.size() * kGoalSpeed.num_bytes, 0);
  return line_.bus().transmit(
      feetech::encode_sync_write(kGoalSpeed.address, kGoalSpeed.num_bytes, ids, still).bytes(), deadline);
}

void FeetechRobot::check_config(std::size_t joint, const Config& config) {
  const auto found = [&](const Register& row) { return get(row, config, kConfigAddress); };
  const auto mismatch = [&](const Register& row, const std::string& expected, const std::string& fix) {
    return describe(joint) + " on " + line_.bus().name() + ": register " + std::string(row.name) + " (" +
           std::to_string(row.address) + ") is " + std::to_string(found(row)) + ", expected " + expected +
           "; " + fix;
  };

  const std::vector<int>& models = embodiment_.joints[joint].model_numbers;
  if (std::find(models.begin(), models.end(), found(kModelNumber)) == models.end()) {
    std::string expected;
    for (const int model : models) expected += (expected.empty() ? "" : " or ") + std::to_string(model);
    throw DeviceError(mismatch(kModelNumber, expected,
                               "another kind of servo: check the ids, or the embodiment's model_numbers"));
  }
  const int mode = is_wheel(joint) ? feetech::kModeVelocity : feetech::kModePosition;
  if (found(kOperatingMode) != mode)
    throw DeviceError(mismatch(kOperatingMode,
                               std::to_string(mode) + (is_wheel(joint) ? " (velocity)" : " (position)"),
                               "set the servo to that mode, torque off"));
  if (found(kResponseLevel) != feetech::kAnswerAll)
    throw DeviceError(mismatch(kResponseLevel, std::to_string(feetech::kAnswerAll) + " (answer everything)",
                               "set it back to the factory value"));
  if ((found(kPhase) & feetech::kPhaseMask) != feetech::kPhaseExpected)
    throw DeviceError(
        mismatch(kPhase, "bits 2 and 3 set and bit 4 clear (factory value 12)",
                 "its speeds and positions would mean something else; set it back to the factory value"));
  const int max_torque = found(kMaxTorque);
  if (max_torque < 1 || max_torque > kMaxTorqueValue)
    throw DeviceError(
        mismatch(kMaxTorque, "1.." + std::to_string(kMaxTorqueValue), "set the servo's maximum torque"));
  servos_[joint].max_torque = max_torque;
  servos_[joint].faults = static_cast<std::uint8_t>(feetech::kErrorsAlwaysFaults | found(kUnloadCondition));

  const std::string fix =
      "this is not the unit that the calibration was measured on, or its registers were changed "
      "since: use this unit's calibration file, or calibrate it again";
  const JointCalibration& calibration = calibration_[joint];
  if (found(kHomingOffset) != calibration.homing_offset)
    throw CalibrationError(mismatch(kHomingOffset, std::to_string(calibration.homing_offset), fix));
  if (is_wheel(joint)) return;  // it has no range
  if (found(kMinAngle) != calibration.range_min)
    throw CalibrationError(mismatch(kMinAngle, std::to_string(calibration.range_min), fix));
  if (found(kMaxAngle) != calibration.range_max)
    throw CalibrationError(mismatch(kMaxAngle, std::to_string(calibration.range_max), fix));
}

// a servo that holds something is at its limits by purpose
DriveHealth FeetechRobot::judge(std::size_t joint, std::uint8_t error) const noexcept {
  std::uint8_t faults = servos_[joint].faults;
  if (embodiment_.joints[joint].grips)
    faults = static_cast<std::uint8_t>(faults & ~(feetech::kErrorOverload | feetech::kErrorCurrent));
  if (error & faults) return DriveHealth::fault;
  return error ? DriveHealth::warning : DriveHealth::ok;
}

Result FeetechRobot::read_state(TimePoint deadline, JointState& state) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  // now and then from the torque register on, in the same exchange: a servo that restarts between two reads
  // answers as if nothing had been
  const bool is_wide = is_movable_ && ++num_reads_ % kWideEvery == 0;
  const std::uint8_t first = is_wide ? kTorqueEnable.address : kStateAddress;
  const Result result = is_wide ? line_.ask_all(wide_request_, kWideBytes, deadline)
                                : line_.ask_all(state_request_, kStateBytes, deadline);
  state.num_joints = line_.size();
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const auto& answer = line_[i];
    Servo& servo = servos_[i];
    servo.has_position = answer.is_fresh;
    servo.num_missed = answer.is_fresh ? 0 : servo.num_missed + 1;
    if (servo.num_missed >= kMissedToDoubt) is_torque_doubtful_ = true;
    if (!answer.is_fresh) continue;
    servo.position = servo.scale.to_rad(get(kPresentPosition, answer.parameters, first));
    state.position[i] = servo.position;
    state.velocity[i] =
        servo.scale.sign() * get(kPresentSpeed, answer.parameters, first) * kPresentSpeed.scale;
    state.load[i] = servo.scale.sign() * get(kPresentLoad, answer.parameters, first) * kPresentLoad.scale;
    state.voltage[i] = get(kPresentVoltage, answer.parameters, first) * kPresentVoltage.scale;
    state.temperature[i] = get(kPresentTemperature, answer.parameters, first);
    state.sampled_at[i] = answer.arrived_at;
    state.drive_error[i] = answer.error;
    state.drive_health[i] = judge(i, answer.error);
    if (is_wide && get(kTorqueEnable, answer.parameters, first) != 1) is_torque_doubtful_ = true;
  }
  if (result.ok() && is_movable_ && is_torque_doubtful_) return check_torque(deadline);
  return result;
}

// a servo that restarts forgets its torque and answers as if nothing had been
Result FeetechRobot::check_torque(TimePoint deadline) noexcept {
  if (const Result result = line_.ask_all(torque_request_, 1, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (line_[i].parameters[0] != 1)
      return {.code = ErrorCode::torque_off, .joint = static_cast<std::int16_t>(i), .detail = line_[i].error};
  is_torque_doubtful_ = false;
  return {};
}

// the last bound before the wire; whoever made the command should have kept to it already
std::uint16_t FeetechRobot::to_goal(std::size_t joint, double position) noexcept {
  const Servo& servo = servos_[joint];
  const double wanted = std::round(servo.scale.to_ticks(position));
  const double goal = std::clamp(wanted, double(servo.range_min), double(servo.range_max));
  if (goal != wanted) num_clamped_.fetch_add(1, std::memory_order_relaxed);
  return static_cast<std::uint16_t>(goal);  // 0..4095: the sign bit stays clear
}

// positive positions and positive speeds turn the same way
std::uint16_t FeetechRobot::to_goal_speed(std::size_t joint, double velocity) const noexcept {
  const double ticks = servos_[joint].scale.sign() * velocity / feetech::kRadPerTick;
  const int speed = static_cast<int>(std::lround(std::clamp(ticks, -32767.0, 32767.0)));
  return feetech::to_sign_magnitude(speed, kGoalSpeed.sign_bit).value_or(0);
}

Result FeetechRobot::write_all(std::uint8_t address, std::uint8_t num_bytes, TimePoint deadline) noexcept {
  const Frame frame =
      feetech::encode_sync_write(address, num_bytes, line_.ids(), {data_.data(), line_.size() * num_bytes});
  return line_.bus().transmit(frame.bytes(), deadline);
}

Result FeetechRobot::write_goals(std::span<const double> position, std::span<const double> velocity,
                                 TimePoint deadline) noexcept {
  if (!is_connected_ || !is_movable_) return {.code = ErrorCode::wrong_state};
  std::array<std::uint8_t, kMaxServos> ids;
  for (const bool wheels : {false, true}) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < line_.size(); ++i) {
      if (is_wheel(i) != wheels) continue;
      ids[count] = line_.ids()[i];
      feetech::put_u16(&data_[2 * count++], wheels ? to_goal_speed(i, velocity[i]) : to_goal(i, position[i]));
    }
    if (count == 0) continue;
    const Register& goal = wheels ? kGoalSpeed : kGoalPosition;
    const Frame frame = feetech::encode_sync_write(goal.address, goal.num_bytes, {ids.data(), count},
                                                   {data_.data(), 2 * count});
    if (const Result result = line_.bus().transmit(frame.bytes(), deadline); !result.ok()) return result;
  }
  return {};
}

Result FeetechRobot::switch_on(std::span<const double> measured, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const auto joint = static_cast<std::int16_t>(i);
    if (!servos_[i].has_position) return {.code = ErrorCode::wrong_state, .joint = joint};
    if (is_wheel(i)) continue;
    if (std::abs(measured[i] - servos_[i].position) > kMaxEnableDistance)
      return {.code = ErrorCode::out_of_range, .joint = joint};
    // a goal clamped into the range would be a move at full speed: somebody must bring the joint back by hand
    const double ticks = servos_[i].scale.to_ticks(measured[i]);
    if (ticks < servos_[i].range_min - kMaxOutsideTicks || ticks > servos_[i].range_max + kMaxOutsideTicks)
      return {.code = ErrorCode::out_of_range,
              .joint = joint,
              .detail = static_cast<std::int32_t>(std::lround(ticks))};
  }

  data_.fill(0);  // acceleration, time and speed 0: as fast as it can, our limiter shapes the motion; a wheel
                  // stands
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (!is_wheel(i))
      feetech::put_u16(&data_[i * kMotionBytes + (kGoalPosition.address - kAcceleration.address)],
                       to_goal(i, measured[i]));
  if (const Result result = write_all(kAcceleration.address, kMotionBytes, deadline); !result.ok())
    return result;
  is_movable_ = true;
  // an e-stop may have left it low
  std::array<double, kMaxServos> full;
  full.fill(1.0);
  if (const Result result = write_torque_limits({full.data(), line_.size()}, deadline); !result.ok())
    return result;
  data_.fill(1);
  if (const Result result = write_all(kTorqueEnable.address, 1, deadline); !result.ok()) return result;
  if (const Result result = line_.ask_all_surely(torque_request_, 1, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (line_[i].parameters[0] != 1)
      return {
          .code = ErrorCode::drive_error, .joint = static_cast<std::int16_t>(i), .detail = line_[i].error};
  is_torque_doubtful_ = false;
  return {};
}

Result FeetechRobot::switch_off(TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  is_movable_ = false;
  data_.fill(0);
  if (const Result result = write_all(kTorqueEnable.address, 1, deadline); !result.ok()) return result;
  if (const Result result = line_.ask_all_surely(torque_request_, 1, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (line_[i].parameters[0] != 0)
      return {
          .code = ErrorCode::drive_error, .joint = static_cast<std::int16_t>(i), .detail = line_[i].error};
  return {};
}

Result FeetechRobot::write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  std::array<std::uint16_t, kMaxServos> limits;
  for (std::size_t i = 0; i < line_.size(); ++i) {
    // at least one unit: 0 would let go
    limits[i] = static_cast<std::uint16_t>(std::max(1.0, std::round(shares[i] * servos_[i].max_torque)));
    feetech::put_u16(&data_[i * 2], limits[i]);
  }
  if (const Result result = write_all(kTorqueLimit.address, kTorqueLimit.num_bytes, deadline); !result.ok())
    return result;
  if (const Result result = line_.ask_all_surely(torque_limit_request_, kTorqueLimit.num_bytes, deadline);
      !result.ok())
    return result;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (const int found = feetech::get_u16(line_[i].parameters.data()); found != limits[i])
      return {.code = ErrorCode::drive_error, .joint = static_cast<std::int16_t>(i), .detail = found};
  return {};
}

}  // namespace wallx
