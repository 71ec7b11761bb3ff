// BusConfig: which line a robot's motors are on, as a ROBOT.toml says it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace wallx {

struct CanFrame;
template <class Item>
class Mailbox;
class SteppedLine;

struct BusConfig {
  std::string kind = "serial";  // one of drivers/buses/registry.hpp
  std::string port = {};        // device, network interface, group address or file
  int baud_rate = 1'000'000;    // of a serial device                           [bit/s]
  int bit_rate = 1'000'000;     // of CAN arbitration                           [bit/s]
  int data_bit_rate = 0;        // of CAN FD data; 0: classic CAN               [bit/s]
  std::string interface = {};   // udp_multicast: network interface; replay: channel in the log; empty: any

  std::string record = {};  // log of everything that goes over the line; empty: none

  // mailbox only: where the frames of an adapter come and go (drivers/buses/mailbox.hpp); one of the two
  std::shared_ptr<Mailbox<std::uint8_t>> byte_mailbox = nullptr;
  std::shared_ptr<Mailbox<CanFrame>> can_mailbox = nullptr;

  // stepped only: an emulated line on a simulated clock (drivers/buses/stepped_bus.hpp)
  std::shared_ptr<SteppedLine> stepped_line = nullptr;

  int descriptor = -1;  // serial: already open and taken by whoever handed it on; -1: open `port`
};

}  // namespace wallx
