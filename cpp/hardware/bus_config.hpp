// BusConfig: which line a robot's motors are on, as a ROBOT.toml says it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace wallx {

struct BusConfig {
  std::string kind = "serial";  // serial; socketcan, slcan, udp_multicast, mailbox, replay, loopback
  std::string port;             // device, interface, group address or file
  int bit_rate = 1'000'000;     // serial: baud rate; CAN: of arbitration  [bit/s]
  int data_bit_rate = 0;        // CAN FD only; 0: classic CAN             [bit/s]
};

}  // namespace wallx
