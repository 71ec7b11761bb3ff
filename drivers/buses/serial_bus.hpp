// SerialBus: a Bus over a serial device or pseudo-terminal, 8N1 raw, taken exclusively.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "hardware/bus.hpp"

namespace wallx {

inline constexpr int kMinBaudRate = 9600;
inline constexpr int kMaxBaudRate = 4'000'000;

class SerialBus final : public Bus {
 public:
  // `port` is a device path; any baud rate in kMinBaudRate..kMaxBaudRate, not only the listed ones.
  // `descriptor`: of a device that was inherited, open and set up; then open() uses it as it is, and close()
  // leaves lock and settings to whom they belong. Throws ConfigError when the rate is out of bounds. Opens
  // nothing.
  SerialBus(std::string port, int baud_rate, int descriptor = -1);
  ~SerialBus() override { close(); }
  SerialBus(const SerialBus&) = delete;
  SerialBus& operator=(const SerialBus&) = delete;

  // A port that another process (or another SerialBus of this one) holds is a BusError naming the port and,
  // where the kernel tells, the holder's pid.
  void open() override;
  void close() noexcept override;
  bool is_open() const noexcept override { return fd_ >= 0; }
  const std::string& name() const noexcept override { return port_; }
  int descriptor() const noexcept override { return fd_; }

  Duration byte_time() const noexcept override {
    return std::chrono::nanoseconds(10'000'000'000LL / baud_rate_);  // 8N1: ten bits
  }

  // bus_closed carries errno in `detail`; 0: hung up.
  Result transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept override;
  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline, std::size_t& received) noexcept override;
  Result discard_input() noexcept override;

 private:
  void take(int fd) const;
  void configure(int fd) const;

  const std::string port_;
  const int baud_rate_;  // [bit/s]
  const int inherited_;  // file descriptor, -1: none
  int fd_ = -1;
};

}  // namespace wallx
