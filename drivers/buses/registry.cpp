// Registry: the table of bus kinds.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/registry.hpp"

#include "base/errors.hpp"
#include "drivers/buses/mailbox.hpp"
#include "drivers/buses/recorder.hpp"
#include "drivers/buses/replay_bus.hpp"
#include "drivers/buses/serial_bus.hpp"
#include "drivers/buses/slcan_bus.hpp"
#include "drivers/buses/socketcan_bus.hpp"
#include "drivers/buses/stepped_bus.hpp"
#include "drivers/buses/udp_multicast_bus.hpp"

namespace wallx {
namespace {

// one row per kind; a null maker: the kind does not carry that
struct Kind {
  const char* name;
  std::unique_ptr<Bus> (*make_bus)(const BusConfig&);
  std::unique_ptr<CanBus> (*make_can_bus)(const BusConfig&);
};

constexpr Kind kKinds[] = {
    {"serial",
     [](const BusConfig& config) -> std::unique_ptr<Bus> {
       return std::make_unique<SerialBus>(config.port, config.baud_rate, config.descriptor);
     },
     nullptr},
    {"stepped", make_stepped_bus, nullptr},
    {"mailbox", make_mailbox_bus, make_mailbox_can_bus},
    {"slcan", nullptr,
     [](const BusConfig& config) -> std::unique_ptr<CanBus> { return std::make_unique<SlcanBus>(config); }},
    {"socketcan", nullptr,
     [](const BusConfig& config) -> std::unique_ptr<CanBus> {
       return std::make_unique<SocketCanBus>(config);
     }},
    {"replay",
     [](const BusConfig& config) -> std::unique_ptr<Bus> { return std::make_unique<ReplayBus>(config); },
     [](const BusConfig& config) -> std::unique_ptr<CanBus> {
       return std::make_unique<ReplayCanBus>(config);
     }},
    {"udp_multicast", nullptr,
     [](const BusConfig& config) -> std::unique_ptr<CanBus> {
       return std::make_unique<UdpMulticastBus>(config);
     }},
};

// the row of the config's kind, which must have the wanted maker
template <class Maker>
Maker find(const BusConfig& config, Maker Kind::* maker, const char* wanted, const char* other) {
  std::string fitting;
  bool is_known = false;
  for (const Kind& kind : kKinds) {
    if (config.kind == kind.name) {
      if (kind.*maker) return kind.*maker;
      is_known = true;
    }
    if (kind.*maker) fitting += (fitting.empty() ? "" : ", ") + std::string(kind.name);
  }
  throw ConfigError("bus kind '" + config.kind + "' " +
                    (is_known ? std::string("carries ") + other : "is not known") + "; these motors speak " +
                    wanted + ", which " + (fitting.empty() ? "no kind" : fitting) +
                    " can carry; set kind of [bus] in the robot's file");
}

}  // namespace

std::unique_ptr<Bus> make_bus(const BusConfig& config) {
  auto bus = find(config, &Kind::make_bus, "bytes", "CAN frames")(config);
  return config.record.empty() ? std::move(bus) : make_recorded(std::move(bus), config);
}

std::unique_ptr<CanBus> make_can_bus(const BusConfig& config) {
  auto bus = find(config, &Kind::make_can_bus, "CAN frames", "bytes")(config);
  return config.record.empty() ? std::move(bus) : make_recorded(std::move(bus), config);
}

}  // namespace wallx
