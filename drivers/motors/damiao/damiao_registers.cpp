// DamiaoRegisters: reads, and writes that are allowed, read back and stored.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/damiao/damiao_registers.hpp"

#include <cmath>

#include "base/errors.hpp"
#include "drivers/motors/bus_gone.hpp"

namespace wallx {

using damiao::find_register;
using damiao::Mode;
using damiao::Parameter;
using damiao::Register;

namespace {

constexpr int kNumTries = 3;
constexpr Duration kAnswerTime =
    std::chrono::milliseconds(50);  // a USB adapter may sit on an answer for 16 ms
constexpr int kMaxId = 0xFF;
constexpr const char* kTorque = "torque_enable";
constexpr const char* kPosition = "present_position";

const Register& row_of(const std::string& name) {
  for (const Register& row : damiao::kRegisters)
    if (row.name == name) return row;
  throw ConfigError("Damiao motors have no register '" + name +
                    "'; see drivers/motors/damiao/register_table.hpp");
}

std::string describe(int id, const Register& row) {
  return "register " + std::string(row.name) + " (" + std::to_string(row.rid) + ") of motor " +
         std::to_string(id);
}

}  // namespace

// False: the bus did not take it in time.
bool DamiaoRegisters::tell(int id, CanFrame& frame) {
  if (id < 1 || id > kMaxId)
    throw ConfigError("motor id " + std::to_string(id) + " must be 1.." + std::to_string(kMaxId));
  frame.is_fd = frame.is_bit_rate_switched = bus_->is_fd();
  Result result = bus_->discard_input();
  if (result.ok()) result = bus_->transmit({&frame, 1}, bus_->now() + kAnswerTime);
  if (result.code == ErrorCode::bus_closed) throw_bus_gone(*bus_, "motor " + std::to_string(id));
  return result.ok();
}

// The answer that is_answer() takes; none: silent.
template <class IsAnswer>
std::optional<CanFrame> DamiaoRegisters::ask(int id, CanFrame request, IsAnswer&& is_answer) {
  for (int attempt = 0; attempt < kNumTries; ++attempt) {
    if (!tell(id, request)) continue;
    const TimePoint deadline = bus_->now() + kAnswerTime;
    std::size_t received = 0;
    while (bus_->receive(input_, deadline, received).ok()) {
      for (std::size_t i = 0; i < received; ++i)
        if (is_answer(input_[i])) return input_[i];
      if (bus_->now() >= deadline) break;
    }
  }
  return std::nullopt;
}

std::optional<double> DamiaoRegisters::find(int id, const CanFrame& request, const Register& row) {
  const bool is_write = request.data[2] == 0x55;
  Parameter parameter;
  const auto is_answer = [&](const CanFrame& frame) {
    return damiao::decode_parameter(frame, static_cast<std::uint32_t>(id), parameter) &&
           parameter.row.rid == row.rid && parameter.is_written == is_write;
  };
  if (!ask(id, request, is_answer)) return std::nullopt;
  return parameter.value;
}

bool DamiaoRegisters::ping(int id) {
  constexpr Register row = find_register("esc_id");
  return find(id, damiao::encode_read(static_cast<std::uint32_t>(id), row), row).has_value();
}

double DamiaoRegisters::get(int id, const Register& row) {
  const auto found = find(id, damiao::encode_read(static_cast<std::uint32_t>(id), row), row);
  if (!found)
    throw BusTimeout("no answer on " + bus_->name() + " to a read of " + describe(id, row) +
                     "; check its cable, supply, id and bit rate");
  return *found;
}

damiao::Feedback DamiaoRegisters::state(int id) {
  if (!known_.contains(id))
    known_[id] = {
        static_cast<std::uint32_t>(get(id, find_register("mst_id"))),
        {get(id, find_register("pmax")), get(id, find_register("vmax")), get(id, find_register("tmax"))}};
  const Known& known = known_[id];
  damiao::Feedback feedback;
  // feedback names only four bits of the id: the rest is in what it comes under
  const auto is_answer = [&](const CanFrame& frame) {
    return frame.id == known.feedback_id &&
           damiao::decode_feedback(frame, static_cast<std::uint32_t>(id), known.ranges, feedback);
  };
  if (!ask(id, damiao::encode_refresh(static_cast<std::uint32_t>(id)), is_answer))
    throw BusTimeout("motor " + std::to_string(id) + " on " + bus_->name() +
                     " does not tell its state; check its cable and supply");
  return feedback;
}

void DamiaoRegisters::let_go(int id) {
  const auto mode = static_cast<Mode>(get(id, find_register("ctrl_mode")));
  CanFrame frame = damiao::encode_special(static_cast<std::uint32_t>(id), mode, damiao::Special::disable);
  (void)tell(id, frame);  // what counts is the state it tells afterwards
  if (state(id).status == damiao::kEnabled)
    throw DeviceError("motor " + std::to_string(id) + " on " + bus_->name() +
                      " was told to let go and keeps its torque; is another program on the line?");
}

std::int64_t DamiaoRegisters::read(int id, const std::string& name) {
  if (name == kTorque) return state(id).status == damiao::kEnabled;
  if (name == kPosition) throw ConfigError("a motor's position is a fraction: ask for its value");
  const Register& row = row_of(name);
  if (row.type == damiao::Type::f32)
    throw ConfigError(describe(id, row) + " holds a fraction: ask for its value");
  return std::llround(get(id, row) / row.scale);
}

double DamiaoRegisters::value(int id, const std::string& name) {
  if (name == kTorque) return state(id).status == damiao::kEnabled;
  if (name == kPosition) return state(id).position;
  return get(id, row_of(name));
}

void DamiaoRegisters::write(int id, const std::string& name, std::int64_t value) {
  if (name == kTorque) {
    if (value != 0)
      throw DeviceError("torque of motor " + std::to_string(id) +
                        " is not switched on here: only an enabled robot moves");
    return let_go(id);
  }
  const Register& row = row_of(name);
  if (row.access == damiao::Access::read) throw DeviceError(describe(id, row) + " can only be read");
  if (state(id).status == damiao::kEnabled)
    throw DeviceError(describe(id, row) + " is written only without torque; motor " + std::to_string(id) +
                      " has torque: support the arm and let go of it first");
  CanFrame frame;
  const double wanted = static_cast<double>(value) * row.scale;
  if (!damiao::encode_write(static_cast<std::uint32_t>(id), row, wanted, frame).ok())
    throw ConfigError(describe(id, row) + " cannot hold " + std::to_string(value));
  known_.clear();
  (void)find(id, frame, row);  // a lost acknowledgement is no lost write: what counts is read back
  const int now = name == "esc_id" ? static_cast<int>(value) : id;
  if (const double found = get(now, row); found != wanted)
    throw DeviceError(describe(id, row) + " was written " + std::to_string(value) + " and reads back " +
                      std::to_string(found / row.scale) +
                      "; is the value allowed, or another program on the line?");
  // to flash, or the next power cycle takes it back; there is no way to read the flash itself
  CanFrame store = damiao::encode_store(static_cast<std::uint32_t>(now));
  if (!tell(now, store))
    throw BusTimeout(describe(now, row) + " is " + std::to_string(value) +
                     " until the next power cycle: " + bus_->name() + " did not take the order to store it");
}

}  // namespace wallx
