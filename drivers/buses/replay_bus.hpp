// ReplayBus: a CanBus whose other end is a candump log: it answers as the log did, to the commands the log
// has. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// Lines marked T (`candump -x`, python-can) are the commands that must be sent, in their order; the others
// are received. Time runs with the log's stamps, from open() on, and anew from each command: what the log
// received 200 us after a command arrives 200 us after it was sent, and not before it was sent.
class ReplayBus final : public CanBus {
 public:
  // `config.port` is the file; with `config.interface`, only that channel of it. Throws ConfigError: it
  // cannot be read, a line is malformed (its number and text), stamps run backwards, nothing is in it.
  explicit ReplayBus(const BusConfig& config);

  void open() override;  // from the beginning
  void close() noexcept override { is_open_ = false; }
  bool is_open() const noexcept override { return is_open_; }
  bool is_fd() const noexcept override { return is_fd_; }  // an FD frame is in the log
  const std::string& name() const noexcept override { return name_; }

  // bad_reply: the log has another command there, or none; `detail` is its line, 0: none.
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override;
  // timeout while a command is awaited; bus_closed after the last line.
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override;
  // Drops what is due and was not read.
  Result discard_input() noexcept override;
  std::uint64_t num_ignored() const noexcept override { return num_ignored_; }  // remote and error frames

 private:
  struct Entry {
    std::chrono::nanoseconds stamp;
    int line;                  // counted from 1
    std::size_t num_commands;  // that the log has before it
    CanFrame frame;
  };

  bool next_due(TimePoint& due) const noexcept;

  const std::string name_;
  std::vector<Entry> commands_, answers_;
  std::chrono::nanoseconds first_{};  // stamp of the log
  std::vector<TimePoint> origins_;    // when stamp 0 would have been, as of open() and of each command sent
  bool is_fd_ = false;
  std::uint64_t num_ignored_ = 0;
  bool is_open_ = false;
  std::size_t num_sent_ = 0, num_received_ = 0;  // of commands_ and answers_
};

}  // namespace wallx
