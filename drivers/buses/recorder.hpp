// Recorder: a line that also writes what goes over it to a log, from a thread of its own; a ReplayBus reads
// it again. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "hardware/bus.hpp"
#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// `bus` with everything that it sends and receives also in `config.record`, as lines of
// drivers/buses/candump_log.hpp. Each open() begins the file anew and throws BusError when it cannot be
// written; close() completes it. The loop never waits for the file: where that stays behind by thousands of
// entries, or the disk is full, the log ends there, and close() says so on stderr. What is discarded unread
// was not received.
std::unique_ptr<Bus> make_recorded(std::unique_ptr<Bus> bus, const BusConfig& config);
std::unique_ptr<CanBus> make_recorded(std::unique_ptr<CanBus> bus, const BusConfig& config);

}  // namespace wallx
