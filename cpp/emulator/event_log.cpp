// EventLog: formats events as JSON and writes them every few milliseconds, so that a killed emulator leaves
// its log. SPDX-License-Identifier: Apache-2.0
#include "emulator/event_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

constexpr auto kFlushPeriod = std::chrono::milliseconds(20);

const char* instruction_name(std::uint8_t instruction) {
  switch (instruction) {
    case 0x01:
      return "ping";
    case 0x02:
      return "read";
    case 0x03:
      return "write";
    case 0x04:
      return "reg_write";
    case 0x05:
      return "action";
    case 0x82:
      return "sync_read";
    case 0x83:
      return "sync_write";
  }
  return "unknown";
}

const char* action_name(FaultAction action) {
  switch (action) {
    case FaultAction::set:
      return "set";
    case FaultAction::cleared:
      return "cleared";
    case FaultAction::hit:
      return "hit";
  }
  return "unknown";
}

void append_hex(const std::uint8_t* bytes, std::size_t size, std::string& out) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += '"';
  for (std::size_t i = 0; i < size; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  out += '"';
}

template <class Values>
void append_list(const char* name, const Values& values, std::size_t size, std::string& out) {
  out += ",\"";
  out += name;
  out += "\":[";
  for (std::size_t i = 0; i < size; ++i) {
    if (i) out += ',';
    out += std::to_string(values[i]);
  }
  out += ']';
}

template <class Ids, class Values>
void append_map(const char* name, const Ids& ids, const Values& values, std::size_t size, std::string& out) {
  if (!size) return;
  out += ",\"";
  out += name;
  out += "\":{";
  for (std::size_t i = 0; i < size; ++i) {
    if (i) out += ',';
    out += '"' + std::to_string(ids[i]) + "\":" + std::to_string(values[i]);
  }
  out += '}';
}

void append_instruction(const Event& event, std::string& out) {
  out += ",\"name\":\"";
  out += instruction_name(event.instruction);
  out += "\",\"instruction\":" + std::to_string(event.instruction);
  const std::uint8_t* data = event.parameters.data();
  std::size_t size = event.size;
  const bool is_sync = event.instruction == 0x82 || event.instruction == 0x83;
  if (event.kind == EventKind::malformed || (!is_sync && size == 0) || event.instruction > 0x83) {
    append_list("ids", &event.id, 1, out);
  } else if (!is_sync) {
    append_list("ids", &event.id, 1, out);
    out += ",\"address\":" + std::to_string(data[0]);
    ++data, --size;
    if (event.instruction == 0x02) {
      out += ",\"length\":" + std::to_string(data[0]);
      return;
    }
    out += ",\"length\":" + std::to_string(size);
  } else {
    const std::size_t group = event.instruction == 0x83 ? data[1] + 1u : 1u;
    std::array<std::uint8_t, kMaxParameters> ids;
    std::size_t num_ids = 0;
    for (std::size_t at = 2; at < size; at += group) ids[num_ids++] = data[at];
    append_list("ids", ids, num_ids, out);
    out += ",\"address\":" + std::to_string(data[0]) + ",\"length\":" + std::to_string(data[1]);
    if (event.instruction == 0x82) return;
    // the servos' data one after the other, without the ids in between
    std::array<std::uint8_t, kMaxParameters> packed;
    std::size_t num_packed = 0;
    for (std::size_t at = 2; at < size; at += group) {
      for (std::size_t i = 1; i < group; ++i) packed[num_packed++] = data[at + i];
    }
    out += ",\"data\":";
    append_hex(packed.data(), num_packed, out);
    return;
  }
  if (size) {
    out += ",\"data\":";
    append_hex(data, size, out);
  }
}

}  // namespace

std::string quote_json(const std::string& text) {
  std::string out = "\"";
  char escape[8];
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

void append_json(const Event& event, std::string& out) {
  const auto t = std::chrono::duration_cast<std::chrono::nanoseconds>(event.at.time_since_epoch()).count();
  out += "{\"t\":" + std::to_string(t) + ",\"kind\":\"";
  switch (event.kind) {
    case EventKind::instruction:
    case EventKind::malformed:
      out += event.kind == EventKind::instruction ? "instruction\"" : "malformed\"";
      append_instruction(event, out);
      append_map("goals", event.goal_ids, event.goals, event.num_goals, out);
      append_map("torque", event.torque_ids, event.torques, event.num_torques, out);
      break;
    case EventKind::checksum_error:
      out += "checksum_error\"";
      break;
    case EventKind::truncated:
      out += "truncated\"";
      break;
    case EventKind::collision:
      out += "collision\"";
      break;
    case EventKind::fault: {
      char value[32];
      std::snprintf(value, sizeof value, "%.9g", event.value);
      out += "fault\",\"fault\":\"";
      out += fault_row(event.fault).name;
      out += "\",\"action\":\"";
      out += action_name(event.action);
      out += "\",\"id\":" + std::to_string(event.fault_id) + ",\"value\":" + value;
      break;
    }
    case EventKind::frame:
      out += "frame\",\"from\":";
      out += event.instruction ? "\"motor\"" : "\"host\"";
      out += ",\"can_id\":" + std::to_string(event.can_id) + ",\"data\":";
      append_hex(event.parameters.data(), event.size, out);
      break;
    case EventKind::state:
      out += "state\"";
      append_list("position", event.positions, event.num_goals, out);
      append_list("goal", event.goals, event.num_goals, out);
      append_list("torque", event.torques, event.num_torques, out);
      break;
  }
  out += '}';
}

EventLog::EventLog(EventRing& ring, const std::string& path) : ring_(ring), path_(path) {
  if (path.empty()) return;
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) throw DeviceError("cannot create the emulator's log " + path + ": " + std::strerror(errno));
}

EventLog::~EventLog() {
  stop();
  if (file_ >= 0) ::close(file_);
}

void EventLog::write_line(const std::string& json) {
  if (file_ < 0) return;
  pending_ += json;
  pending_ += '\n';
  flush();
}

void EventLog::start() {
  is_stopping_ = false;
  thread_ = std::thread([this] { run(); });
}

void EventLog::stop() {
  if (!thread_.joinable()) return;
  is_stopping_ = true;
  thread_.join();
}

void EventLog::run() {
  while (!is_stopping_.load()) {
    drain();
    std::this_thread::sleep_for(kFlushPeriod);
  }
  drain();
}

void EventLog::drain() {
  Event event;
  while (ring_.pop(event)) {
    if (file_ < 0) continue;
    append_json(event, pending_);
    pending_ += '\n';
    if (pending_.size() > 1 << 16) flush();
  }
  flush();
}

void EventLog::flush() {
  std::size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t count = ::write(file_, pending_.data() + done, pending_.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {  // a full disk: the arm goes on, the last line tells
      num_write_errors_.fetch_add(1, std::memory_order_relaxed);
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  pending_.clear();
}

}  // namespace wallx::emulator
