// Registry: from a BusConfig's kind to the Bus or CanBus it names; a new kind adds one line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "hardware/bus.hpp"
#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// For motors that speak bytes. Opens nothing. Throws ConfigError: a kind that is unknown or carries CAN
// frames, or a value out of bounds.
std::unique_ptr<Bus> make_bus(const BusConfig& config);
// For motors that speak CAN frames. Opens nothing. Throws ConfigError: a kind that is unknown or carries
// bytes, or a value out of bounds.
std::unique_ptr<CanBus> make_can_bus(const BusConfig& config);

}  // namespace wallx
