// SyncReadTimes: how long reading the state of all servos of a line takes, again and again; for the
// benchmark. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "hardware/bus_config.hpp"

namespace wallx {

struct SyncReadTimes {
  int num_reads = 0;
  int num_failed = 0;  // of these, not every servo answered
  double wall_seconds = 0;
  double cpu_seconds = 0;  // of the reading thread
};

// Registers 56..63 of Feetech STS servos, on a thread of its own with SCHED_FIFO where permitted. Blocks.
// Throws BusError.
SyncReadTimes sync_read_times(const BusConfig& bus, const std::vector<std::uint8_t>& ids, int num_reads);

}  // namespace wallx
