// Loopback: two ends of one in-process line, for tests; what one end transmits the other receives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "hardware/bus.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// Each direction queues up to `capacity` bytes; a full queue makes transmit wait for the reader. Both ends
// start closed; while one end is closed the other reads what is queued and then finds bus_closed. The ends
// may live on two threads. They lock, so they serve tests and never a real loop.
std::pair<std::unique_ptr<Bus>, std::unique_ptr<Bus>> make_loopback(const std::string& name,
                                                                    std::size_t capacity = 4096);
// The same for CAN frames; `capacity` counts them.
std::pair<std::unique_ptr<CanBus>, std::unique_ptr<CanBus>> make_can_loopback(const std::string& name,
                                                                              bool is_fd = true,
                                                                              std::size_t capacity = 64);

}  // namespace wallx
