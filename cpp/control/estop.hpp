// Estop: stops every control loop of the process; may be called from a signal handler.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace wallx {

void estop_all() noexcept;             // async-signal-safe: one atomic increment
std::uint32_t estop_count() noexcept;  // how often it was called; every loop reads it every tick
void estop_on_signal(
    int signal_number);  // installs a handler that calls estop_all(). Throws ConfigError: no such signal

}  // namespace wallx
