// SocketCanBus: a CanBus over a network interface of the kernel (can0, vcan0, slcan0), classic or FD.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

class SocketCanBus final : public CanBus {
 public:
  // `config.port` is the interface. Its rates are set where it is brought up (`ip link set can0 up type can
  // bitrate ...`) and must be the config's; a virtual one has none. A `data_bit_rate` above 0 asks for FD
  // frames. Throws ConfigError: no interface's name.
  explicit SocketCanBus(const BusConfig& config);
  ~SocketCanBus() override { close(); }
  SocketCanBus(const SocketCanBus&) = delete;
  SocketCanBus& operator=(const SocketCanBus&) = delete;

  // Throws BusError: no such interface, it is down, has other rates, cannot do FD, no permission, no CAN in
  // this kernel.
  void open() override;
  void close() noexcept override;
  bool is_open() const noexcept override { return fd_ >= 0; }
  bool is_fd() const noexcept override { return is_fd_; }
  const std::string& name() const noexcept override { return port_; }

  // bus_closed carries errno in `detail` (the interface went down or away), or kBusOff: the controller
  // counted too many errors. Both stay until close() and open(), even where the kernel restarts the
  // controller by itself: what the motors did meanwhile, nobody knows.
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override;
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override;
  Result discard_input() noexcept override;
  std::uint64_t num_ignored() const noexcept override { return num_ignored_; }

 private:
  void configure(int fd) const;
  void compare(const char* key, int stated, int actual) const;
  Result take(CanFrame& frame, bool& is_taken) noexcept;
  Result lost(std::int32_t detail) noexcept;

  const std::string port_;
  const int bit_rate_, data_bit_rate_;  // [bit/s]
  const bool is_fd_;
  int fd_ = -1;
  bool is_lost_ = false;  // until the next open()
  std::int32_t lost_detail_ = 0;
  std::uint64_t num_ignored_ = 0;
};

}  // namespace wallx
