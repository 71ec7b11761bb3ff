// DamiaoRobot: what embodiment and calibration must say, and what every motor is asked before it may move.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <set>

#include "base/errors.hpp"
#include "drivers/motors/bus_gone.hpp"
#include "drivers/motors/damiao/damiao_robot.hpp"

namespace wallx {

using damiao::find_register;
using damiao::Mode;
using damiao::Parameter;
using damiao::Ranges;
using damiao::Register;

namespace {

constexpr int kNumTries = 3;
constexpr Duration kAnswerTime =
    std::chrono::milliseconds(50);                             // a USB adapter may sit on an answer for 16 ms
constexpr Duration kQuietTime = std::chrono::milliseconds(3);  // in which a second motor would have answered
constexpr double kMaxDegrees = 720;                            // of an offset or a range
constexpr std::uint32_t kDefaultAnswerOffset = 0x10;           // feedback id - id, by convention

std::string quote(const std::string& name) { return "joint '" + name + "'"; }

// as people write numbers: 12.5, 10
std::string text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general, 6);
  return {buffer, end.ptr};
}

std::string hex(std::uint32_t id) {
  char buffer[16];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, id, 16);
  return "0x" + std::string(buffer, end.ptr);
}

double to_rad(int degrees) { return degrees * std::numbers::pi / 180; }

// the settings of one joint's drive; what nobody has asked for at the end is unknown
class Settings {
 public:
  Settings(const std::map<std::string, double>& values, std::string where)
      : values_(values), where_(std::move(where)) {}

  double take(const char* key, double low, double high) {
    if (!values_.contains(key)) fail(key, "is missing, must be " + text(low) + ".." + text(high));
    return take(key, low, high, 0);
  }
  double take(const char* key, double low, double high, double preset) {
    asked_.insert(key);
    const auto at = values_.find(key);
    if (at == values_.end()) return preset;
    if (!(at->second >= low && at->second <= high))
      fail(key, "is " + text(at->second) + ", must be " + text(low) + ".." + text(high));
    return at->second;
  }
  bool has(const char* key) const { return values_.contains(key); }
  void end() const {
    for (const auto& [key, value] : values_)
      if (!asked_.contains(key)) {
        std::string known;
        for (const std::string& name : asked_) known += (known.empty() ? "" : ", ") + name;
        throw ConfigError(where_ + ": drive." + key + " is not a setting of this mode; known are " + known);
      }
  }
  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw ConfigError(where_ + ": drive." + key + " " + what + "; correct embodiment.toml");
  }

 private:
  const std::map<std::string, double>& values_;
  std::string where_;
  std::set<std::string> asked_;
};

}  // namespace

DamiaoRobot::DamiaoRobot(Embodiment embodiment, std::vector<JointCalibration> calibration,
                         std::unique_ptr<CanBus> bus)
    : embodiment_(std::move(embodiment)), calibration_(std::move(calibration)), bus_(std::move(bus)) {
  const std::size_t num_joints = embodiment_.joints.size();
  if (num_joints == 0 || num_joints > kMaxMotors)
    throw ConfigError("embodiment '" + embodiment_.name + "' has " + std::to_string(num_joints) +
                      " joints, one CAN bus of Damiao motors drives 1.." + std::to_string(kMaxMotors));
  if (calibration_.size() != num_joints)
    throw CalibrationError("calibration of '" + embodiment_.name + "' has " +
                           std::to_string(calibration_.size()) + " joints, the embodiment has " +
                           std::to_string(num_joints));
  num_motors_ = num_joints;
  joint_of_id_.fill(-1);
  for (std::size_t i = 0; i < num_motors_; ++i) {
    configure(i);
    narrow_limits(i);
  }
  // no answer may have an id that a command has: what is sent must never be read as an answer
  for (std::size_t i = 0; i < num_motors_; ++i)
    for (std::size_t other = 0; other < num_motors_; ++other) {
      const std::uint32_t answer = motors_[other].feedback_id;
      const bool is_command = answer <= 0x3FF && (answer & 0xFF) == motors_[i].id;
      if (is_command || answer == damiao::kParameterId)
        throw ConfigError(quote(embodiment_.joints[other].name) + ": feedback_id " + hex(answer) +
                          " is also an id of commands to " + quote(embodiment_.joints[i].name) +
                          "; give the motor another one (register 7) and correct embodiment.toml");
    }
}

void DamiaoRobot::configure(std::size_t joint) {
  const JointSpec& spec = embodiment_.joints[joint];
  const JointCalibration& calibration = calibration_[joint];
  const std::string name = quote(spec.name);
  Motor& motor = motors_[joint];
  if (spec.mode != JointMode::position)
    throw ConfigError(
        name + ": mode is velocity, Damiao motors are driven by position here; correct embodiment.toml");
  if (calibration.id < 1 || calibration.id > 0xFF)
    throw CalibrationError(name + ": id is " + std::to_string(calibration.id) + ", must be 1..255");
  for (std::size_t other = 0; other < joint; ++other)
    if (calibration_[other].id == calibration.id)
      throw CalibrationError(name + ": id " + std::to_string(calibration.id) + " is also that of " +
                             quote(embodiment_.joints[other].name) + "; every motor needs its own");
  if (calibration.drive_mode != 0 && calibration.drive_mode != 1)
    throw CalibrationError(name + ": drive_mode is " + std::to_string(calibration.drive_mode) +
                           ", must be 0 or 1");
  if (std::abs(calibration.homing_offset) > kMaxDegrees || calibration.range_min < -kMaxDegrees ||
      calibration.range_max > kMaxDegrees || calibration.range_min >= calibration.range_max)
    throw CalibrationError(name + ": homing_offset " + std::to_string(calibration.homing_offset) +
                           " and range " + std::to_string(calibration.range_min) + ".." +
                           std::to_string(calibration.range_max) +
                           " must be inside -720..720 degrees, and the range rising");

  Settings drive(spec.drive, name + " of embodiment '" + embodiment_.name + "'");
  motor.id = static_cast<std::uint32_t>(calibration.id);
  motor.feedback_id =
      static_cast<std::uint32_t>(drive.take("feedback_id", 0, 0x7FE, motor.id + kDefaultAnswerOffset));
  if (joint_of_id_[motor.feedback_id] >= 0)
    throw ConfigError(
        name + ": feedback_id " + hex(motor.feedback_id) + " is also that of " +
        quote(embodiment_.joints[static_cast<std::size_t>(joint_of_id_[motor.feedback_id])].name) +
        "; every motor needs its own");
  joint_of_id_[motor.feedback_id] = static_cast<std::int8_t>(joint);
  const double mode = drive.take("control_mode", 1, 4);
  if (mode != 1 && mode != 4)
    drive.fail("control_mode", "is " + text(mode) + ", must be 1 (MIT) or 4 (position, force)");
  motor.mode = static_cast<Mode>(mode);
  motor.max_torque = drive.take("max_torque", 0.01, 1000);
  motor.min_firmware = drive.take("min_firmware", 0, 4e9, 0);
  if (motor.mode == Mode::mit) {
    motor.kp = drive.take("kp", 0.2, damiao::kMaxKp);
    motor.kd = drive.take("kd", 0.002, damiao::kMaxKd);  // less encodes to 0: the motor would oscillate
  } else {
    motor.max_current = drive.take("max_current", 1e-4, 1, 1);
  }

  const damiao::Model* model =
      spec.model_numbers.size() == 1 ? damiao::find_model(spec.model_numbers[0]) : nullptr;
  const Ranges preset = model ? model->ranges : Ranges{};
  const auto range = [&](const char* key, double known) {
    if (known == 0 && !drive.has(key))
      drive.fail(key,
                 "is missing: model_numbers must hold one model of which the ranges are known, or all three "
                 "ranges be given");
    return drive.take(key, 0.01, 10'000, known);
  };
  motor.ranges = {range("position_range", preset.position), range("velocity_range", preset.velocity),
                  range("torque_range", preset.torque)};
  drive.end();
  if (motor.max_torque > motor.ranges.torque)
    drive.fail("max_torque", "is " + text(motor.max_torque) + " N m, must be at most the motor's range of " +
                                 text(motor.ranges.torque) + " N m");

  motor.sign = calibration.drive_mode ? -1 : 1;
  motor.zero = to_rad(calibration.homing_offset);
  const double low = to_rad(calibration.range_min), high = to_rad(calibration.range_max);
  motor.range_min = motor.sign > 0 ? low : -high;
  motor.range_max = motor.sign > 0 ? high : -low;
}

// the unit may have been calibrated over less than its model can do: whoever limits motion must know the
// smaller range
void DamiaoRobot::narrow_limits(std::size_t joint) {
  JointSpec& spec = embodiment_.joints[joint];
  Motor& motor = motors_[joint];
  JointLimits& limits = spec.limits;
  limits.min_position = std::max(limits.min_position, motor.range_min);
  limits.max_position = std::min(limits.max_position, motor.range_max);
  if (!(limits.min_position < limits.max_position))
    throw CalibrationError(quote(spec.name) + ": the calibrated range of " + text(motor.range_min) + ".." +
                           text(motor.range_max) +
                           " rad has nothing in common with the embodiment's position limits");
  for (const double end : {limits.min_position, limits.max_position})
    if (std::abs(motor.zero + motor.sign * end) > motor.ranges.position)
      throw CalibrationError(quote(spec.name) + ": its limit of " + text(end) + " rad is " +
                             text(motor.zero + motor.sign * end) +
                             " rad at the motor, which counts only to +-" + text(motor.ranges.position) +
                             " rad; set the motor's zero nearer, and calibrate again");
}

std::string DamiaoRobot::describe(std::size_t joint) const {
  return quote(embodiment_.joints[joint].name) + " (id " + std::to_string(motors_[joint].id) + ")";
}

void DamiaoRobot::connect() {
  if (is_connected_) return;
  bus_->open();
  try {
    std::string silent;
    std::size_t num_silent = 0;
    for (std::size_t i = 0; i < num_motors_; ++i) {
      const double serial = ask_one(i, find_register("serial_number"));
      if (std::isfinite(serial)) {
        check_unique(i, serial);
        continue;
      }
      silent += (num_silent++ ? ", " : "") + describe(i);
    }
    if (num_silent > 0)
      throw BusTimeout("no answer on " + bus_->name() + " from " + silent + " after " +
                       std::to_string(kNumTries) + " tries; check " +
                       (num_silent == num_motors_ ? "the power supply, the bus and its bit rates"
                                                  : "that motor's cable, id (register 8) and bit rate"));
    for (std::size_t i = 0; i < num_motors_; ++i) check_config(i);
  } catch (...) {
    bus_->close();
    throw;
  }
  for (Motor& motor : motors_) motor.has_position = false;
  is_movable_ = is_answer_due_ = false;
  is_connected_ = true;
}

void DamiaoRobot::disconnect() noexcept {
  is_connected_ = is_movable_ = is_answer_due_ = false;
  bus_->close();
}

// NaN: no answer
double DamiaoRobot::ask_one(std::size_t joint, const Register& row) {
  const auto require = [&](const Result& result) {
    if (result.code == ErrorCode::bus_closed) throw_bus_gone(*bus_, describe(joint));
    return result.ok();
  };
  const Motor& motor = motors_[joint];
  const CanFrame request = on_wire(damiao::encode_read(motor.id, row));
  for (int attempt = 0; attempt < kNumTries; ++attempt) {
    const TimePoint deadline = bus_->now() + kAnswerTime;
    if (!require(bus_->discard_input()) || !require(bus_->transmit({&request, 1}, deadline))) continue;
    std::size_t received = 0;
    do {
      if (!require(bus_->receive(input_, deadline, received))) break;
      for (std::size_t i = 0; i < received; ++i) {
        const CanFrame& frame = input_[i];
        Parameter parameter;
        // under whatever id: a motor that answers with another one must be told apart from a silent one
        if (!decode_parameter(frame, motor.id, parameter) || parameter.is_written ||
            parameter.row.rid != row.rid)
          continue;
        if (frame.id != motor.feedback_id)
          throw DeviceError(describe(joint) + " on " + bus_->name() +
                            ": register mst_id (7): it answers with id " + hex(frame.id) + ", expected " +
                            hex(motor.feedback_id) +
                            "; write register 7, or correct drive.feedback_id in embodiment.toml");
        if (frame.is_fd != bus_->is_fd())
          throw DeviceError(describe(joint) + " on " + bus_->name() + " answers with " +
                            (frame.is_fd ? "CAN FD" : "classic") + " frames, expected " +
                            (bus_->is_fd() ? "CAN FD" : "classic") +
                            "; set the motor's bit rate (register 35), or data_bit_rate of the bus");
        return parameter.value;
      }
    } while (bus_->now() < deadline);
  }
  return std::nan("");
}

void DamiaoRobot::check_config(std::size_t joint) {
  const Motor& motor = motors_[joint];
  const auto ask = [&](const Register& row) {
    const double value = ask_one(joint, row);
    if (!std::isfinite(value))
      throw BusTimeout(describe(joint) + " on " + bus_->name() + " does not tell register " +
                       std::string(row.name) + " (" + std::to_string(row.rid) +
                       "); check its cable and supply");
    return value;
  };
  const auto refuse = [&](const Register& row, double found, const std::string& expected,
                          const std::string& fix) {
    throw DeviceError(describe(joint) + " on " + bus_->name() + ": register " + std::string(row.name) + " (" +
                      std::to_string(row.rid) + ") is " + text(found) + ", expected " + expected + "; " +
                      fix);
  };
  const auto expect = [&](const Register& row, double expected, const std::string& fix) {
    if (const double found = ask(row); found != expected) refuse(row, found, text(expected), fix);
  };

  expect(find_register("esc_id"), motor.id, "give the motor its id again");
  expect(find_register("mst_id"), motor.feedback_id, "write register 7, or correct drive.feedback_id");
  expect(find_register("ctrl_mode"), static_cast<double>(motor.mode),
         "in another mode it takes commands for something else: write register 10, or correct "
         "drive.control_mode");
  const std::string scale =
      "it would take every number for another one: is it the right motor? else write the register, or give "
      "position_range, velocity_range and torque_range under drive";
  // the registers are floats
  expect(find_register("pmax"), static_cast<float>(motor.ranges.position), scale);
  expect(find_register("vmax"), static_cast<float>(motor.ranges.velocity), scale);
  expect(find_register("tmax"), static_cast<float>(motor.ranges.torque), scale);
  const Register firmware = find_register("software_version");
  if (const double found = ask(firmware); found < motor.min_firmware)
    refuse(firmware, found, "at least " + text(motor.min_firmware), "update the motor's firmware");
}

// two motors with one id answer one after the other, and differ in what was burnt into them
void DamiaoRobot::check_unique(std::size_t joint, double serial) {
  const Register row = find_register("serial_number");
  const TimePoint deadline = bus_->now() + kQuietTime;
  std::size_t received = 0;
  while (bus_->receive(input_, deadline, received).ok()) {
    for (std::size_t i = 0; i < received; ++i) {
      Parameter parameter;
      if (decode_parameter(input_[i], motors_[joint].id, parameter) && parameter.row.rid == row.rid &&
          parameter.value != serial)
        throw DeviceError("two motors on " + bus_->name() + " answer as " + describe(joint) +
                          ": register serial_number (15) is " + text(serial) + " and " +
                          text(parameter.value) +
                          "; give one of them its own id (register 8) with only that one connected");
    }
    if (bus_->now() >= deadline) break;
  }
}

}  // namespace wallx
