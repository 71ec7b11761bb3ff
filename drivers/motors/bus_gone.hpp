// BusGone: the error of a line that closed while a motor was asked. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/errors.hpp"

namespace wallx {

// Port is Bus or CanBus; `who` was asked.
template <class Port>
[[noreturn]] void throw_bus_gone(const Port& bus, const std::string& who) {
  const std::string trouble = bus.trouble();
  throw BusError(bus.name() + " went away while " + who + " was asked; " +
                 (trouble.empty() ? "is the adapter still plugged in?" : trouble));
}

}  // namespace wallx
