// SlcanBus: a CanBus over an adapter that speaks slcan on a serial device or pseudo-terminal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "drivers/buses/serial_bus.hpp"
#include "drivers/buses/slcan_codec.hpp"
#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

class SlcanBus final : public CanBus {
 public:
  // Throws ConfigError: a rate the format has no command for. Opens nothing.
  explicit SlcanBus(const BusConfig& config);
  ~SlcanBus() override { close(); }

  // Takes the serial device, sets the rates and opens the channel. An adapter that refuses a command ('\a')
  // is a BusError; one that answers nothing is believed. Blocks up to 0.6 s.
  void open() override;
  // Closes the channel too, if the device still takes the command.
  void close() noexcept override;
  bool is_open() const noexcept override { return serial_.is_open(); }
  bool is_fd() const noexcept override { return is_fd_; }
  const std::string& name() const noexcept override { return serial_.name(); }

  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override;
  // bad_reply with detail '\a': nothing came but the adapter's refusal of an earlier frame.
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override;
  Result discard_input() noexcept override;
  std::uint64_t num_ignored() const noexcept override { return num_ignored_; }

 private:
  void command(std::string_view text);
  Result fill(TimePoint deadline) noexcept;
  bool take(CanFrame& frame, bool& is_refused) noexcept;

  SerialBus serial_;
  const std::string_view bit_rate_command_, data_bit_rate_command_;
  const bool is_fd_;
  std::array<std::uint8_t, 4096> input_;  // read and not yet taken
  std::size_t first_ = 0, size_ = 0;      // of input_
  TimePoint arrived_at_;                  // of the newest byte of input_, at the earliest
  TimePoint emptied_at_;                  // when nothing more was waiting, last
  SlcanLine line_;                        // the one that has begun
  bool is_too_long_ = false;              // it has overflowed: what follows up to its end is noise
  std::uint64_t num_ignored_ = 0;
};

}  // namespace wallx
