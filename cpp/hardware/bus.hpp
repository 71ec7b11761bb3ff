// Bus: moves bytes between this computer and the motors of one line; knows no motors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.hpp"
#include "base/time.hpp"

namespace wallx {

class Bus {
 public:
  virtual ~Bus() = default;

  // Opens the device and takes it exclusively. Blocks briefly. Throws BusError: absent, busy, no permission,
  // bad rate.
  virtual void open() = 0;
  // Idempotent, never throws. Sends nothing.
  virtual void close() noexcept = 0;
  virtual bool is_open() const noexcept = 0;
  virtual const std::string& name() const noexcept = 0;  // as the user wrote it, for messages

  // The open device's file descriptor, for another process to inherit; -1: closed, or there is none.
  virtual int descriptor() const noexcept { return -1; }
  // What went wrong beyond what a Result can say, for messages; empty: nothing. From any thread.
  virtual std::string trouble() const { return {}; }
  // The clock that deadlines and arrival times are on: the real one, but for an emulated line in lock-step.
  virtual TimePoint now() const noexcept { return Clock::now(); }

  // Of one byte on the wire, so that a reader can sleep while answers travel; zero: not known.
  virtual Duration byte_time() const noexcept { return {}; }

  // Loop calls: no throw, no allocation, bounded by `deadline`.

  // Hands all bytes to the device, or fails (timeout: the device's queue stayed full until the deadline).
  virtual Result transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept = 0;
  // Waits for at least one byte, then takes what is there; `received` says how many.
  virtual Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                         std::size_t& received) noexcept = 0;
  // Drops whatever has arrived and was not read: a late answer must not be taken for the next one.
  virtual Result discard_input() noexcept = 0;
};

}  // namespace wallx
