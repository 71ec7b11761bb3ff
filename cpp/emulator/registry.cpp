// Registry: the table of emulated families. SPDX-License-Identifier: Apache-2.0
#include "emulator/registry.hpp"

#include "base/errors.hpp"
#include "emulator/dxl_bus.hpp"
#include "emulator/sts_bus.hpp"

namespace wallx::emulator {

std::unique_ptr<SerialLine> make_line(const std::string& family, std::span<const ServoSetup> servos,
                                      const BusOptions& options, EventRing* events) {
  if (family == "feetech_sts") return std::make_unique<StsBus>(servos, options, events);
  if (family == "dynamixel_x") return std::make_unique<DxlBus>(servos, options, events);
  throw ConfigError("no emulated servos of the motor family '" + family +
                    "'; known are feetech_sts, dynamixel_x");
}

}  // namespace wallx::emulator
