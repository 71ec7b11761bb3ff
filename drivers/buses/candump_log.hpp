// CandumpLog: lines of `candump -L`, of python-can's .log files, and their like for serial lines; no I/O.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/time.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

struct CandumpLine {
  std::chrono::nanoseconds stamp{};  // since any epoch
  std::string_view channel;          // of the text that was parsed
  CanFrame frame;                    // of bytes only size and data
  bool is_sent = false;              // marked T; R, or without a mark: received
};

// bytes: of a serial line; other: an empty line, a remote or an error frame
enum class CandumpEvent { frame, bytes, other, malformed };

// One line, without its end: "(1436509052.249713) can0 123#DEADBEEF R", or "(1436509052.249713) tty FFFF0102
// R" with 1..64 bytes. `line` is set for frames and bytes only.
CandumpEvent parse_candump(std::string_view text, CandumpLine& line) noexcept;

// The same the other way, with a mark and stamps in microseconds, as candump writes them.
std::string to_candump(const CandumpLine& line, bool is_bytes);

}  // namespace wallx
