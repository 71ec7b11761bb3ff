// DynamixelRobot: what to ask the servos, what to tell them, and what their answers mean in SI.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/dynamixel/dynamixel_robot.hpp"

#include <algorithm>
#include <cmath>

#include "base/errors.hpp"
#include "drivers/motors/servo_calibration.hpp"

namespace wallx {

using dynamixel::find_register;
using dynamixel::get;
using dynamixel::Instruction;
using dynamixel::put;
using dynamixel::Register;

namespace {

constexpr Register kModelNumber = find_register("model_number");
constexpr Register kFirmware = find_register("firmware_version");
constexpr Register kReturnDelay = find_register("return_delay");
constexpr Register kDriveMode = find_register("drive_mode");
constexpr Register kOperatingMode = find_register("operating_mode");
constexpr Register kHomingOffset = find_register("homing_offset");
constexpr Register kPwmLimit = find_register("pwm_limit");
constexpr Register kCurrentLimit = find_register("current_limit");
constexpr Register kMaxPosition = find_register("max_position");
constexpr Register kMinPosition = find_register("min_position");
constexpr Register kStartup = find_register("startup_configuration");
constexpr Register kShutdown = find_register("shutdown");
constexpr Register kTorqueEnable = find_register("torque_enable");
constexpr Register kReturnLevel = find_register("status_return_level");
constexpr Register kHardwareError = find_register("hardware_error");
constexpr Register kWatchdog = find_register("bus_watchdog");
constexpr Register kGoalPwm = find_register("goal_pwm");
constexpr Register kGoalCurrent = find_register("goal_current");
constexpr Register kGoalVelocity = find_register("goal_velocity");
constexpr Register kProfileAcceleration = find_register("profile_acceleration");
constexpr Register kProfileVelocity = find_register("profile_velocity");
constexpr Register kGoalPosition = find_register("goal_position");
constexpr Register kPresentCurrent = find_register("present_current");
constexpr Register kPresentVelocity = find_register("present_velocity");
constexpr Register kPresentPosition = find_register("present_position");
constexpr Register kPresentVoltage = find_register("present_voltage");
constexpr Register kPresentTemperature = find_register("present_temperature");

constexpr std::uint16_t kStateAddress = kPresentCurrent.address;
constexpr int kMissedToDoubt = 2;  // reads without an answer before a servo may have restarted
constexpr int kPlainReads = 200;   // after a fast read that was not whole
constexpr Duration kAsideTime = std::chrono::milliseconds(3);
constexpr ServoBounds kBounds{.family = "Dynamixel",
                              .max_servos = DynamixelRobot::kMaxServos,
                              .max_id = dynamixel::kMaxId,
                              .max_ticks = dynamixel::kMaxTicks,
                              .max_homing_offset = 1'044'479,
                              .rad_per_tick = dynamixel::kRadPerTick};

// what one servo is asked for between the reads of all, by turns
struct Aside {
  std::uint16_t address, num_bytes;
};
constexpr Aside kTorqueAndError{kTorqueEnable.address, 7};  // 64..70
constexpr Aside kWatchdogOnly{kWatchdog.address, 1};
constexpr Aside kSupplyAndHeat{kPresentVoltage.address, 3};
constexpr std::array kAsides{kTorqueAndError, kWatchdogOnly, kSupplyAndHeat};

Result at_joint(ErrorCode code, std::size_t joint, std::int64_t detail = 0) noexcept {
  return {
      .code = code, .joint = static_cast<std::int16_t>(joint), .detail = static_cast<std::int32_t>(detail)};
}

std::vector<std::uint8_t> ids_of(const Embodiment& embodiment,
                                 const std::vector<JointCalibration>& calibration) {
  check_calibration(embodiment, calibration, kBounds);
  std::vector<std::uint8_t> ids;
  for (const JointCalibration& joint : calibration) ids.push_back(static_cast<std::uint8_t>(joint.id));
  return ids;
}

constexpr auto kEvery = [](std::size_t) { return true; };

}  // namespace

DynamixelRobot::DynamixelRobot(Embodiment embodiment, std::vector<JointCalibration> calibration,
                               std::unique_ptr<Bus> bus)
    : embodiment_(std::move(embodiment)),
      calibration_(std::move(calibration)),
      line_(std::move(bus), ids_of(embodiment_, calibration_)) {
  narrow_limits(embodiment_, calibration_, dynamixel::kRadPerTick);
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const JointCalibration& joint = calibration_[i];
    const double timeout = embodiment_.joints[i].drive_timeout;
    const double units = std::round(timeout / kWatchdog.scale);
    if (timeout != 0 &&
        (units < 1 || units > dynamixel::kMaxWatchdog || std::abs(units * kWatchdog.scale - timeout) > 1e-9))
      throw ConfigError("joint '" + embodiment_.joints[i].name + "' of embodiment '" + embodiment_.name +
                        "': drive_timeout is " + std::to_string(timeout) +
                        " s, the bus watchdog counts in steps of 0.02 s up to 2.54 s");
    if (timeout != 0 && embodiment_.joints[i].drive_action != DriveAction::holds)
      throw ConfigError(
          "joint '" + embodiment_.joints[i].name + "' of embodiment '" + embodiment_.name +
          "': drive_action must be holds: a Dynamixel whose watchdog trips stops and keeps its torque");
    servos_[i].middle = (joint.range_min + joint.range_max) / 2.0;
    servos_[i].range_min = joint.range_min;
    servos_[i].range_max = joint.range_max;
    servos_[i].watchdog = static_cast<int>(units);
  }
  state_request_ = encode_sync_read(Instruction::sync_read, kStateAddress, kStateBytes, line_.ids());
  fast_state_request_ =
      encode_sync_read(Instruction::fast_sync_read, kStateAddress, kStateBytes, line_.ids());
}

std::string DynamixelRobot::describe(std::size_t joint) const {
  return "joint '" + embodiment_.joints[joint].name + "' (id " + std::to_string(calibration_[joint].id) + ")";
}

void DynamixelRobot::connect() {
  if (is_connected_) return;
  const Bus& bus = line_.bus();
  line_.bus().open();
  try {
    std::string silent;
    std::size_t num_silent = 0;
    for (std::size_t i = 0; i < line_.size(); ++i) {
      std::array<std::uint8_t, 3> model_and_firmware;
      if (line_.ask_one(i, dynamixel::encode_ping(line_.ids()[i]), model_and_firmware)) continue;
      silent += (num_silent++ ? ", " : "") + describe(i);
    }
    if (num_silent > 0)
      throw BusTimeout("no answer on " + bus.name() + " from " + silent + " after " +
                       std::to_string(kNumAsks) + " tries; check " +
                       (num_silent == line_.size() ? "the power supply, the port and the baud rate"
                                                   : "that servo's cable, id and baud rate"));
    for (std::size_t i = 0; i < line_.size(); ++i) {
      Config config{};
      if (!line_.ask_one(i, dynamixel::encode_read(line_.ids()[i], 0, kConfigBytes), config))
        throw BusTimeout(describe(i) + " on " + bus.name() +
                         " answers a ping but not a read of registers 0.." +
                         std::to_string(kConfigBytes - 1) + "; check its cable and supply");
      check_config(i, config);
    }
  } catch (...) {
    line_.bus().close();
    throw;
  }
  can_read_fast_ = true;
  for (std::size_t i = 0; i < line_.size(); ++i) servos_[i].has_position = false;
  for (std::size_t i = 0; i < line_.size(); ++i) can_read_fast_ = can_read_fast_ && servos_[i].knows_fast;
  num_plain_ = 0;
  is_movable_ = is_torque_doubtful_ = false;
  is_connected_ = true;
}

void DynamixelRobot::disconnect() noexcept {
  is_connected_ = is_movable_ = false;
  line_.bus().close();
}

Result DynamixelRobot::stop_wheels(TimePoint deadline) {
  if (!line_.bus().is_open()) line_.bus().open();
  return write_some(
      kGoalVelocity, deadline, [&](std::size_t i) { return is_wheel(i); }, [](std::size_t) { return 0; });
}

void DynamixelRobot::check_config(std::size_t joint, const Config& config) {
  const auto found = [&](const Register& row) { return static_cast<int>(get(row, config, 0)); };
  const auto mismatch = [&](const Register& row, const std::string& expected, const std::string& fix) {
    return describe(joint) + " on " + line_.bus().name() + ": register " + std::string(row.name) + " (" +
           std::to_string(row.address) + ") is " + std::to_string(found(row)) + ", expected " + expected +
           "; " + fix;
  };
  Servo& servo = servos_[joint];

  const std::vector<int>& models = embodiment_.joints[joint].model_numbers;
  servo.model = dynamixel::find_model(found(kModelNumber));
  if (!servo.model || std::find(models.begin(), models.end(), servo.model->number) == models.end()) {
    std::string expected;
    for (const int model : models) expected += (expected.empty() ? "" : " or ") + std::to_string(model);
    throw DeviceError(mismatch(kModelNumber, expected,
                               "another kind of servo: check the ids, or the embodiment's model_numbers"));
  }
  if (servo.watchdog > 0 && found(kFirmware) < servo.model->min_watchdog_firmware)
    throw DeviceError(mismatch(kFirmware, "at least " + std::to_string(servo.model->min_watchdog_firmware),
                               "older firmware has no bus watchdog: update it, or leave drive_timeout out"));
  servo.knows_fast = found(kFirmware) >= servo.model->min_fast_sync_firmware;

  const int mode = found(kOperatingMode);
  const bool holds_position = mode == dynamixel::kModePosition || mode == dynamixel::kModeExtendedPosition ||
                              mode == dynamixel::kModeCurrentBasedPosition;
  if (is_wheel(joint) ? mode != dynamixel::kModeVelocity : !holds_position)
    throw DeviceError(mismatch(kOperatingMode,
                               is_wheel(joint)
                                   ? "1 (velocity)"
                                   : "3 (position), 4 (extended position) or 5 (current-based position)",
                               "set the servo to that mode, torque off"));
  if (found(kDriveMode) & dynamixel::kDriveMask)
    throw DeviceError(
        mismatch(kDriveMode, "bits 2 and 3 clear",
                 "its profiles would be times, or a goal would turn its torque on; clear them"));
  if (found(kReturnDelay) > dynamixel::kMaxReturnDelay)
    throw DeviceError(mismatch(kReturnDelay, "0.." + std::to_string(dynamixel::kMaxReturnDelay),
                               "it would make every read wait; set it to 0"));
  if (found(kReturnLevel) != dynamixel::kAnswerAll)
    throw DeviceError(mismatch(kReturnLevel, std::to_string(dynamixel::kAnswerAll) + " (answer everything)",
                               "set it back to the factory value"));
  if (found(kStartup) != 0)
    throw DeviceError(mismatch(
        kStartup, "0", "it would come back from a restart with torque on; set it back to the factory value"));
  servo.shutdown = found(kShutdown);
  servo.pwm_limit = found(kPwmLimit);
  if (servo.pwm_limit < 1 || servo.pwm_limit > dynamixel::kMaxPwm)
    throw DeviceError(
        mismatch(kPwmLimit, "1.." + std::to_string(dynamixel::kMaxPwm), "set the servo's PWM limit"));
  servo.limits_current = mode == dynamixel::kModeCurrentBasedPosition;
  servo.current_limit = found(kCurrentLimit);
  if (servo.limits_current && servo.current_limit < 1)
    throw DeviceError(mismatch(kCurrentLimit, "at least 1", "set the servo's current limit"));

  const std::string fix =
      "this is not the unit that the calibration was measured on, or its registers were changed "
      "since: use this unit's calibration file, or calibrate it again";
  const JointCalibration& calibration = calibration_[joint];
  if ((found(kDriveMode) & dynamixel::kDriveReverse) != calibration.drive_mode)
    throw CalibrationError(mismatch(
        kDriveMode, "bit 0 to be " + std::to_string(calibration.drive_mode) + " (the direction)", fix));
  if (found(kHomingOffset) != calibration.homing_offset)
    throw CalibrationError(mismatch(kHomingOffset, std::to_string(calibration.homing_offset), fix));
  if (is_wheel(joint)) return;  // it has no range
  if (found(kMinPosition) != calibration.range_min)
    throw CalibrationError(mismatch(kMinPosition, std::to_string(calibration.range_min), fix));
  if (found(kMaxPosition) != calibration.range_max)
    throw CalibrationError(mismatch(kMaxPosition, std::to_string(calibration.range_max), fix));
}

// the servo itself turns the direction and adds the homing offset
double DynamixelRobot::to_rad(std::size_t joint, double ticks) const noexcept {
  return (ticks - servos_[joint].middle) * dynamixel::kRadPerTick;
}

// the last bound before the wire; whoever made the command should have kept to it already
std::int64_t DynamixelRobot::to_goal(std::size_t joint, double position) noexcept {
  const Servo& servo = servos_[joint];
  const double wanted = std::round(servo.middle + position / dynamixel::kRadPerTick);
  const double goal = std::clamp(wanted, double(servo.range_min), double(servo.range_max));
  if (goal != wanted) num_clamped_.fetch_add(1, std::memory_order_relaxed);
  return static_cast<std::int64_t>(goal);
}

// In the shared answer of a fast read one silent servo takes those behind it with it: then each is asked for
// its own answer at once, and for a while.
Result DynamixelRobot::ask_state(TimePoint deadline) noexcept {
  if (can_read_fast_ && num_plain_ == 0) {
    const TimePoint now = line_.bus().now();
    const Result result = line_.ask_all(fast_state_request_, kStateBytes, now + (deadline - now) / 2);
    if (result.ok() || result.code == ErrorCode::bus_closed) return result;
    num_plain_ = kPlainReads;
  }
  const Result result = line_.ask_all(state_request_, kStateBytes, deadline);
  if (result.ok() && num_plain_ > 0) --num_plain_;
  return result;
}

Result DynamixelRobot::read_state(TimePoint deadline, JointState& state) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  const Result result = ask_state(deadline);
  if (result.code == ErrorCode::bus_closed) return result;
  state.num_joints = line_.size();
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const auto& answer = line_[i];
    Servo& servo = servos_[i];
    servo.has_position = answer.is_fresh;
    servo.num_missed = answer.is_fresh ? 0 : servo.num_missed + 1;
    if (servo.num_missed >= kMissedToDoubt) is_torque_doubtful_ = true;
    if (!answer.is_fresh) continue;
    const auto value = [&](const Register& row) {
      return static_cast<double>(get(row, answer.parameters, kStateAddress));
    };
    servo.position = to_rad(i, value(kPresentPosition));
    state.position[i] = servo.position;
    state.velocity[i] = value(kPresentVelocity) * kPresentVelocity.scale;
    state.load[i] = value(kPresentCurrent) * servo.model->load_scale();
    if (servo.model->current_unit > 0) state.current[i] = value(kPresentCurrent) * servo.model->current_unit;
    state.sampled_at[i] = answer.arrived_at;
    // what the alert is about says look_aside(); what is known stays until the alert ends
    const bool has_alert = answer.error & dynamixel::kAlert;
    if (!has_alert) servo.hardware_error = 0;
    if (has_alert && servo.hardware_error == 0)
      servo.hardware_error = dynamixel::kAlert, is_torque_doubtful_ = true;
  }
  const Result aside = look_aside(std::min(deadline, line_.bus().now() + kAsideTime), state);
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const std::uint8_t error = servos_[i].hardware_error;
    state.drive_error[i] = error;
    const bool is_fault = error & (servos_[i].shutdown | dynamixel::kErrorEncoder | dynamixel::kErrorShock);
    state.drive_health[i] = is_fault ? DriveHealth::fault : error ? DriveHealth::warning : DriveHealth::ok;
  }
  if (aside.code == ErrorCode::drive_error) {
    // told once: until enable() clears it every further look would find it again
    const auto j = static_cast<std::size_t>(aside.joint);
    state.drive_error[j] |= dynamixel::kErrorWatchdog;
    state.drive_health[j] = DriveHealth::fault;
    has_told_trip_ = true;
  }
  if (!result.ok()) return result;
  if (!aside.ok()) return aside;
  if (is_movable_ && is_torque_doubtful_) return check_torque(deadline);
  return {};
}

// One servo and one more thing about it per read; an alert's cause goes first. That it does not answer is no
// failure of the read.
Result DynamixelRobot::look_aside(TimePoint deadline, JointState& state) noexcept {
  std::size_t joint = aside_ / kAsides.size() % line_.size();
  Aside what = kAsides[aside_ % kAsides.size()];
  bool has_unknown = false;
  for (std::size_t i = 0; i < line_.size() && !has_unknown; ++i) {
    if (servos_[i].hardware_error != dynamixel::kAlert) continue;
    joint = i, what = kTorqueAndError, has_unknown = true;
  }
  if (!has_unknown) ++aside_;
  if (!servos_[joint].has_position) return {};  // it has just been silent
  std::array<std::uint8_t, 8> data;
  const auto bytes = std::span(data).first(what.num_bytes);
  const Result asked = line_.ask(
      joint, dynamixel::encode_read(line_.ids()[joint], what.address, what.num_bytes), bytes, deadline);
  if (asked.code == ErrorCode::bus_closed) return asked;
  if (!asked.ok()) return {};
  const auto found = [&](const Register& row) { return get(row, bytes, what.address); };
  Servo& servo = servos_[joint];
  if (what.address == kTorqueAndError.address) {
    if (servo.hardware_error != 0) servo.hardware_error = static_cast<std::uint8_t>(found(kHardwareError));
    if (is_movable_ && found(kTorqueEnable) != 1)
      return at_joint(ErrorCode::torque_off, joint, found(kHardwareError));
  } else if (what.address == kWatchdogOnly.address) {
    if (is_movable_ && !has_told_trip_ && servo.watchdog > 0 && found(kWatchdog) != servo.watchdog)
      return at_joint(ErrorCode::drive_error, joint, kWatchdogTripped);
  } else {
    state.voltage[joint] = static_cast<double>(found(kPresentVoltage)) * kPresentVoltage.scale;
    state.temperature[joint] = static_cast<double>(found(kPresentTemperature));
  }
  return {};
}

// a servo that restarts, or protects itself, forgets its torque and answers as if nothing had been
Result DynamixelRobot::check_torque(TimePoint deadline) noexcept {
  const auto request = encode_sync_read(Instruction::sync_read, kTorqueEnable.address, 1, line_.ids());
  if (const Result result = line_.ask_all(request, 1, deadline); !result.ok()) return result;
  for (std::size_t i = 0; i < line_.size(); ++i)
    if (line_[i].parameters[0] != 1) return at_joint(ErrorCode::torque_off, i, servos_[i].hardware_error);
  is_torque_doubtful_ = false;
  return {};
}

template <class Keep, class Value>
Result DynamixelRobot::write_some(const Register& row, TimePoint deadline, Keep&& keep,
                                  Value&& value) noexcept {
  std::array<std::uint8_t, kMaxServos> ids;
  std::array<std::uint8_t, kMaxServos * 4> data;
  std::size_t count = 0;
  for (std::size_t i = 0; i < line_.size(); ++i) {
    if (!keep(i)) continue;
    ids[count] = line_.ids()[i];
    if (!put(row, value(i), {data.data() + count++ * row.num_bytes, row.num_bytes}))
      return at_joint(ErrorCode::out_of_range, i);
  }
  if (count == 0) return {};
  return line_.tell(dynamixel::encode_sync_write(row.address, row.num_bytes, {ids.data(), count},
                                                 {data.data(), count * row.num_bytes}),
                    deadline);
}

// nobody answers a sync write: only reading back tells that it arrived
template <class Keep, class Value>
Result DynamixelRobot::read_back(const Register& row, TimePoint deadline, Keep&& keep,
                                 Value&& value) noexcept {
  const auto request = encode_sync_read(Instruction::sync_read, row.address, row.num_bytes, line_.ids());
  if (const Result result = line_.ask_all_surely(request, row.num_bytes, deadline); !result.ok())
    return result;
  for (std::size_t i = 0; i < line_.size(); ++i) {
    if (!keep(i)) continue;
    if (const std::int64_t found = get(row, line_[i].parameters, row.address); found != value(i))
      return at_joint(ErrorCode::drive_error, i, found);
  }
  return {};
}

Result DynamixelRobot::write_goals(std::span<const double> position, std::span<const double> velocity,
                                   TimePoint deadline) noexcept {
  if (!is_connected_ || !is_movable_) return {.code = ErrorCode::wrong_state};
  const Result result = write_some(
      kGoalPosition, deadline, [&](std::size_t i) { return !is_wheel(i); },
      [&](std::size_t i) { return to_goal(i, position[i]); });
  if (!result.ok()) return result;
  return write_some(
      kGoalVelocity, deadline, [&](std::size_t i) { return is_wheel(i); },
      [&](std::size_t i) {
        return std::llround(std::clamp(velocity[i] / kGoalVelocity.scale, -2047.0, 2047.0));
      });
}

Result DynamixelRobot::switch_on(std::span<const double> measured, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  for (std::size_t i = 0; i < line_.size(); ++i) {
    const Servo& servo = servos_[i];
    if (!servo.has_position) return at_joint(ErrorCode::wrong_state, i);
    if (is_wheel(i)) continue;
    if (std::abs(measured[i] - servo.position) > kMaxEnableDistance)
      return at_joint(ErrorCode::out_of_range, i);
    // a goal clamped into the range would be a move at full speed: somebody must bring the joint back by hand
    const double ticks = servo.middle + measured[i] / dynamixel::kRadPerTick;
    if (ticks < servo.range_min - kMaxOutsideTicks || ticks > servo.range_max + kMaxOutsideTicks)
      return at_joint(ErrorCode::out_of_range, i, std::lround(ticks));
  }
  const auto zero = [](std::size_t) { return 0; };
  const auto is_wheel_here = [&](std::size_t i) { return is_wheel(i); };
  const auto is_joint_here = [&](std::size_t i) { return !is_wheel(i); };
  const auto watchdog = [&](std::size_t i) { return servos_[i].watchdog; };
  // a watchdog that has tripped refuses goals; no profile: our limiter shapes the motion; a wheel stands
  Result result = write_some(kWatchdog, deadline, kEvery, zero);
  if (result.ok()) result = write_some(kProfileAcceleration, deadline, kEvery, zero);
  if (result.ok()) result = write_some(kProfileVelocity, deadline, kEvery, zero);
  if (result.ok()) result = write_some(kGoalVelocity, deadline, is_wheel_here, zero);
  const auto goal = [&](std::size_t i) { return to_goal(i, measured[i]); };
  if (result.ok()) result = write_some(kGoalPosition, deadline, is_joint_here, goal);
  if (result.ok()) result = read_back(kGoalPosition, deadline, is_joint_here, goal);
  if (!result.ok()) return result;
  is_movable_ = true;
  // an e-stop may have left it low
  std::array<double, kMaxServos> full;
  full.fill(1.0);
  result = write_torque_limits({full.data(), line_.size()}, deadline);
  if (result.ok()) result = write_some(kWatchdog, deadline, kEvery, watchdog);
  if (result.ok()) result = read_back(kWatchdog, deadline, kEvery, watchdog);
  const auto on = [](std::size_t) { return 1; };
  if (result.ok()) result = write_some(kTorqueEnable, deadline, kEvery, on);
  if (result.ok()) result = read_back(kTorqueEnable, deadline, kEvery, on);
  if (result.ok()) is_torque_doubtful_ = has_told_trip_ = false;
  return result;
}

Result DynamixelRobot::switch_off(TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  is_movable_ = false;
  const auto off = [](std::size_t) { return 0; };
  if (const Result result = write_some(kTorqueEnable, deadline, kEvery, off); !result.ok()) return result;
  return read_back(kTorqueEnable, deadline, kEvery, off);
}

Result DynamixelRobot::write_torque_limits(std::span<const double> shares, TimePoint deadline) noexcept {
  if (!is_connected_) return {.code = ErrorCode::wrong_state};
  for (const bool by_current : {false, true}) {
    const Register& row = by_current ? kGoalCurrent : kGoalPwm;
    const auto keep = [&](std::size_t i) { return servos_[i].limits_current == by_current; };
    const auto limit = [&](std::size_t i) -> std::int64_t {
      // at least one unit: 0 would let go
      const int most = by_current ? servos_[i].current_limit : servos_[i].pwm_limit;
      return std::max(1LL, std::llround(shares[i] * most));
    };
    bool is_any = false;
    for (std::size_t i = 0; i < line_.size(); ++i) is_any = is_any || keep(i);
    if (!is_any) continue;
    if (const Result result = write_some(row, deadline, keep, limit); !result.ok()) return result;
    if (const Result result = read_back(row, deadline, keep, limit); !result.ok()) return result;
  }
  return {};
}

}  // namespace wallx
