// Result: how loop code reports a failure without throwing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace wallx {

enum class ErrorCode : std::uint8_t {
  ok,
  timeout,      // nothing, or not everything, arrived before the deadline
  bus_closed,   // the device is gone: unplugged, closed by the peer, read or write error
  bad_reply,    // bytes arrived that are not a valid answer: checksum, length, id
  drive_error,  // a drive answered with error bits set; `detail` holds them
  not_finite,   // NaN or infinity where a number was needed
  out_of_range,
  torque_off,      // a drive that was told to hold has no torque: it restarted, or protected itself
  step_too_large,  // a goal further away than the joint can go in one cycle; nothing was sent
  wrong_state,     // the call is not allowed in the present state
};

struct [[nodiscard]] Result {
  ErrorCode code = ErrorCode::ok;
  std::int16_t joint = -1;  // index of the joint concerned, -1: none in particular
  std::int32_t detail = 0;  // errno, drive error bits, ...: depends on `code`

  bool ok() const { return code == ErrorCode::ok; }
};

constexpr const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::ok:
      return "ok";
    case ErrorCode::timeout:
      return "timeout";
    case ErrorCode::bus_closed:
      return "bus closed";
    case ErrorCode::bad_reply:
      return "bad reply";
    case ErrorCode::drive_error:
      return "drive error";
    case ErrorCode::not_finite:
      return "not finite";
    case ErrorCode::out_of_range:
      return "out of range";
    case ErrorCode::torque_off:
      return "torque off";
    case ErrorCode::step_too_large:
      return "step too large";
    case ErrorCode::wrong_state:
      return "wrong state";
  }
  return "unknown";
}

}  // namespace wallx
