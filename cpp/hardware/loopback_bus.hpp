// LoopbackBus: two ends of one in-process line, for tests; what one end transmits the other receives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "hardware/bus.hpp"

namespace wallx {

// Each direction queues up to `capacity` bytes; a full queue makes transmit wait for the reader. Both ends
// start closed; while one end is closed the other reads what is queued and then finds bus_closed. The ends
// may live on two threads. They lock, so they serve tests and never a real loop.
std::pair<std::unique_ptr<Bus>, std::unique_ptr<Bus>> make_loopback(const std::string& name,
                                                                    std::size_t capacity = 4096);

}  // namespace wallx
