// UdpMulticastBus: a CanBus between the processes of one computer or network, in python-can's wire format.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

inline constexpr int kUdpMulticastPort = 43113;  // python-can's

// A line of its own kind: nobody arbitrates, a frame may be lost or overtake another, and nobody notices when
// the other end is gone; silence is what there is to see.
class UdpMulticastBus final : public CanBus {
 public:
  // `config.port` is a group, IPv4 or IPv6, and may end in a UDP port: "239.74.163.2", "239.74.163.2:43113",
  // "[ff15::1]:43113". `config.interface` is the network interface, empty: as the routes say. A
  // `data_bit_rate` above 0 makes it an FD bus. Throws ConfigError: not a multicast group. Opens nothing.
  explicit UdpMulticastBus(const BusConfig& config);
  ~UdpMulticastBus() override { close(); }
  UdpMulticastBus(const UdpMulticastBus&) = delete;
  UdpMulticastBus& operator=(const UdpMulticastBus&) = delete;

  void open() override;
  void close() noexcept override;
  bool is_open() const noexcept override { return receiver_ >= 0; }
  bool is_fd() const noexcept override { return is_fd_; }
  const std::string& name() const noexcept override { return name_; }

  // bus_closed carries errno in `detail`.
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override;
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override;
  Result discard_input() noexcept override;
  std::uint64_t num_ignored() const noexcept override { return num_ignored_; }

 private:
  void open_receiver();
  void open_sender();
  void require(bool is_done, const char* what) const;
  Result take(CanFrame& frame, bool& is_taken) noexcept;

  const std::string name_, interface_;
  const bool is_fd_;
  sockaddr_storage group_{};  // with the port
  socklen_t group_size_ = 0;
  int receiver_ = -1;
  int sender_ = -1;         // one of its own, so that our frames are known by where they come from
  sockaddr_storage own_{};  // of sender_
  std::uint64_t num_ignored_ = 0;
};

}  // namespace wallx
