// CAN port: how other processes reach an emulated CAN line: as an slcan adapter, or as python-can's UDP
// multicast. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "emulator/can_wire.hpp"

namespace wallx::emulator {

class CanPort {
 public:
  virtual ~CanPort() = default;  // closes; an slcan adapter's user sees it hang up

  virtual const std::string& name() const noexcept = 0;  // what to open
  virtual int file() const noexcept = 0;                 // becomes readable when somebody has spoken
  // The next frame that was handed over; false: none is there.
  virtual bool take(WireFrame& frame) noexcept = 0;
  // A frame for everybody else; false: nobody took it.
  virtual bool give(const WireFrame& frame) noexcept = 0;
};

// An slcan adapter on a pseudo-terminal: S, Y, O, C, V, N, F and frames t T d D b B, remote ones r R refused.
// Frames pass only while the channel is open. `link`: symbolic link to make, replaced when it is a link,
// empty: none. Throws DeviceError.
std::unique_ptr<CanPort> open_slcan_port(const std::string& link);

// A member of the group "239.74.163.2" or "239.74.163.2:43113" (IPv4), messages as python-can packs them.
// `interface`: network interface to use; empty: as the routes say. Throws ConfigError, DeviceError.
std::unique_ptr<CanPort> open_udp_port(const std::string& group, const std::string& interface);

}  // namespace wallx::emulator
