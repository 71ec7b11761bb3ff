// Registry: from a motor family to the emulated line of its servos; a new serial family adds one line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "emulator/serial_line.hpp"

namespace wallx::emulator {

// `events` may be null and must outlive the line. Throws ConfigError: unknown family, no servo, too many, an
// id twice, a value no servo can hold, a bad rate.
std::unique_ptr<SerialLine> make_line(const std::string& family, std::span<const ServoSetup> servos,
                                      const BusOptions& options, EventRing* events = nullptr);

}  // namespace wallx::emulator
