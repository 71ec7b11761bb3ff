// CandumpLog: lines of `candump -L` and of python-can's .log files; no I/O.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "base/time.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

struct CandumpLine {
  std::chrono::nanoseconds stamp{};  // since any epoch
  std::string_view channel;          // of the text that was parsed
  CanFrame frame;
  bool is_sent = false;  // marked T; R, or without a mark: received
};

enum class CandumpEvent { frame, other, malformed };  // other: an empty line, a remote or an error frame

// One line, without its end: "(1436509052.249713) can0 123#DEADBEEF R". `line` is set for frames only.
CandumpEvent parse_candump(std::string_view text, CandumpLine& line) noexcept;

}  // namespace wallx
