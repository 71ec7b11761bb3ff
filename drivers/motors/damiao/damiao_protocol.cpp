// Damiao protocol: packing and unpacking the eight bytes.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/damiao/damiao_protocol.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace wallx::damiao {
namespace {

constexpr std::uint8_t kRead = 0x33, kWrite = 0x55, kStore = 0xAA, kRefresh = 0xCC;
constexpr Result kOutOfRange{.code = ErrorCode::out_of_range};
constexpr Result kNotFinite{.code = ErrorCode::not_finite};

CanFrame make_frame(std::uint32_t id, std::uint8_t size) noexcept {
  CanFrame frame;
  frame.id = id;
  frame.size = size;
  return frame;
}

// -range..range onto 0..2^bits-1, toward zero
unsigned to_bits(double value, double low, double high, int bits) noexcept {
  const double share = (std::clamp(value, low, high) - low) / (high - low);
  return static_cast<unsigned>(share * ((1 << bits) - 1));
}
double from_bits(unsigned value, double range, int bits) noexcept {
  return value * (2 * range) / ((1 << bits) - 1) - range;
}

void put_u16(std::uint8_t* at, unsigned value) noexcept {
  at[0] = static_cast<std::uint8_t>(value & 0xFF);
  at[1] = static_cast<std::uint8_t>(value >> 8 & 0xFF);
}
void put_u32(std::uint8_t* at, std::uint32_t value) noexcept {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<std::uint8_t>(value >> 8 * i & 0xFF);
}
std::uint32_t get_u32(const std::uint8_t* at) noexcept {
  return at[0] | at[1] << 8 | at[2] << 16 | static_cast<std::uint32_t>(at[3]) << 24;
}
// false: infinite as a float
bool put_f32(std::uint8_t* at, double value) noexcept {
  const auto narrow = static_cast<float>(value);
  put_u32(at, std::bit_cast<std::uint32_t>(narrow));
  return std::isfinite(narrow);
}

CanFrame make_question(std::uint32_t id, std::uint8_t what, std::uint8_t detail) noexcept {
  CanFrame frame = make_frame(kParameterId, 8);
  put_u16(frame.data.data(), id);
  frame.data[2] = what;
  frame.data[3] = detail;
  return frame;
}

bool is_answer(const CanFrame& frame) noexcept {
  return !frame.is_extended && frame.size == 8 && frame.id != kParameterId;
}

// null: not an answer about a register of motor `id`
const Register* find_answered(const CanFrame& frame, std::uint32_t id) noexcept {
  const std::uint8_t* data = frame.data.data();
  if (data[0] != (id & 0xFF) || data[1] != id >> 8 || (data[2] != kRead && data[2] != kWrite)) return nullptr;
  return find_register(data[3]);
}

}  // namespace

const char* to_string(Status status) noexcept {
  switch (status) {
    case kDisabled:
      return "disabled";
    case kEnabled:
      return "enabled";
    case kOverVoltage:
      return "over-voltage";
    case kUnderVoltage:
      return "under-voltage";
    case kOverCurrent:
      return "over-current";
    case kMosTooHot:
      return "MOS too hot";
    case kRotorTooHot:
      return "rotor too hot";
    case kLostCommunication:
      return "lost communication";
    case kOverload:
      return "overload";
  }
  return "unknown status";
}

Result encode_mit(std::uint32_t id, const MitCommand& command, const Ranges& ranges,
                  CanFrame& frame) noexcept {
  if (!std::isfinite(command.position) || !std::isfinite(command.velocity) ||
      !std::isfinite(command.torque) || !std::isfinite(command.kp) || !std::isfinite(command.kd))
    return kNotFinite;
  if (command.kp < 0 || command.kp > kMaxKp || command.kd < 0 || command.kd > kMaxKd) return kOutOfRange;
  if (!(ranges.position > 0 && ranges.velocity > 0 && ranges.torque > 0)) return kOutOfRange;
  const unsigned p = to_bits(command.position, -ranges.position, ranges.position, 16);
  const unsigned v = to_bits(command.velocity, -ranges.velocity, ranges.velocity, 12);
  const unsigned kp = to_bits(command.kp, 0, kMaxKp, 12);
  const unsigned kd = to_bits(command.kd, 0, kMaxKd, 12);
  unsigned t = to_bits(command.torque, -ranges.torque, ranges.torque, 12);
  if (command.kp > 0 && kd == 0) return kOutOfRange;
  if (p == 0xFFFF && v == 0xFFF && kp == 0xFFF && kd == 0xFFF && t >= 0xFFB && t <= 0xFFE) t = 0xFFA;

  frame = make_frame(id + mode_base(Mode::mit), 8);
  const unsigned bytes[8] = {
      p >> 8, p, v >> 4, (v & 0xF) << 4 | kp >> 8, kp, kd >> 4, (kd & 0xF) << 4 | t >> 8, t};
  for (std::size_t i = 0; i < 8; ++i) frame.data[i] = static_cast<std::uint8_t>(bytes[i] & 0xFF);
  return {};
}

Result encode_pos_vel(std::uint32_t id, double position, double max_velocity, CanFrame& frame) noexcept {
  if (!std::isfinite(position) || !std::isfinite(max_velocity)) return kNotFinite;
  if (max_velocity < 0) return kOutOfRange;
  CanFrame made = make_frame(id + mode_base(Mode::pos_vel), 8);
  if (!put_f32(&made.data[0], position) || !put_f32(&made.data[4], max_velocity)) return kOutOfRange;
  frame = made;
  return {};
}

Result encode_vel(std::uint32_t id, double velocity, CanFrame& frame) noexcept {
  if (!std::isfinite(velocity)) return kNotFinite;
  CanFrame made = make_frame(id + mode_base(Mode::vel), 4);
  if (!put_f32(&made.data[0], velocity)) return kOutOfRange;
  frame = made;
  return {};
}

Result encode_pos_force(std::uint32_t id, double position, double max_velocity, double max_current,
                        CanFrame& frame) noexcept {
  if (!std::isfinite(position) || !std::isfinite(max_velocity) || !std::isfinite(max_current))
    return kNotFinite;
  if (max_velocity < 0 || max_velocity > kMaxForceVelocity || max_current < 0 || max_current > 1)
    return kOutOfRange;
  CanFrame made = make_frame(id + mode_base(Mode::pos_force), 8);
  if (!put_f32(&made.data[0], position)) return kOutOfRange;
  put_u16(&made.data[4], static_cast<unsigned>(max_velocity * 100));
  put_u16(&made.data[6], static_cast<unsigned>(max_current * 10000));
  frame = made;
  return {};
}

CanFrame encode_special(std::uint32_t id, Mode mode, Special special) noexcept {
  CanFrame frame = make_frame(id + mode_base(mode), 8);
  std::fill_n(frame.data.begin(), 7, std::uint8_t{0xFF});
  frame.data[7] = static_cast<std::uint8_t>(special);
  return frame;
}

CanFrame encode_read(std::uint32_t id, const Register& row) noexcept {
  return make_question(id, kRead, row.rid);
}

Result encode_write(std::uint32_t id, const Register& row, double value, CanFrame& frame) noexcept {
  if (!std::isfinite(value)) return kNotFinite;
  if (row.access != Access::read_write) return kOutOfRange;
  CanFrame made = make_question(id, kWrite, row.rid);
  const double raw = value / row.scale;
  if (row.type == Type::f32) {
    if (!put_f32(&made.data[4], raw)) return kOutOfRange;
  } else {
    const double whole = std::round(raw);
    if (whole < 0 || whole > 0xFFFFFFFF) return kOutOfRange;
    put_u32(&made.data[4], static_cast<std::uint32_t>(whole));
  }
  frame = made;
  return {};
}

CanFrame encode_store(std::uint32_t id) noexcept { return make_question(id, kStore, 1); }
CanFrame encode_refresh(std::uint32_t id) noexcept { return make_question(id, kRefresh, 0); }

bool decode_parameter(const CanFrame& frame, std::uint32_t id, Parameter& parameter) noexcept {
  if (!is_answer(frame)) return false;
  const Register* row = find_answered(frame, id);
  if (!row) return false;
  const std::uint32_t raw = get_u32(&frame.data[4]);
  parameter.row = *row;
  parameter.is_written = frame.data[2] == kWrite;
  parameter.value = row->scale * (row->type == Type::u32 ? double(raw) : double(std::bit_cast<float>(raw)));
  return true;
}

bool decode_feedback(const CanFrame& frame, std::uint32_t id, const Ranges& ranges,
                     Feedback& feedback) noexcept {
  if (!is_answer(frame) || (frame.data[0] & 0xFu) != (id & 0xF) || find_answered(frame, id)) return false;
  const auto& data = frame.data;
  feedback.status = data[0] >> 4;
  feedback.position = from_bits(data[1] << 8 | data[2], ranges.position, 16);
  feedback.velocity = from_bits(data[3] << 4 | data[4] >> 4, ranges.velocity, 12);
  feedback.torque = from_bits((data[4] & 0xFu) << 8 | data[5], ranges.torque, 12);
  feedback.mos_temperature = data[6];
  feedback.rotor_temperature = data[7];
  return true;
}

}  // namespace wallx::damiao
