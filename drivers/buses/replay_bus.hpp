// ReplayBus: a line whose other end is a log: it answers as the log did, to the commands the log has; bytes
// or CAN frames. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "hardware/bus.hpp"
#include "hardware/bus_config.hpp"
#include "hardware/can_bus.hpp"

namespace wallx {

// A log and a place in it. Lines marked T (`candump -x`, python-can, our own recorder) are the commands that
// must be sent, in their order; the others are received. Time runs with the log's stamps, from open() on, and
// anew from each command: what the log received 200 us after a command arrives 200 us after it was sent, and
// not before it was sent.
class ReplayLog {
 public:
  struct Entry {
    std::chrono::nanoseconds stamp;
    int line;                  // counted from 1
    std::size_t num_commands;  // that the log has before it
    CanFrame frame;            // of bytes only size and data
  };

  // `config.port` is the file; with `config.interface`, only that channel of it. Throws ConfigError: it
  // cannot be read, a line is malformed or of the other sort (its number and text), stamps run backwards,
  // nothing is in it.
  ReplayLog(const BusConfig& config, bool is_bytes);

  void open();  // from the beginning; throws BusError: already open
  void close() noexcept { is_open_ = false; }
  bool is_open() const noexcept { return is_open_; }
  const std::string& name() const noexcept { return name_; }
  bool has_fd() const noexcept { return has_fd_; }
  std::uint64_t num_ignored() const noexcept { return num_ignored_; }
  std::string trouble() const;

  // bus_closed: not open, or left
  Result check() const noexcept;
  // The command that must come next; null: the log has none.
  const Entry* expected() const noexcept {
    return num_sent_ < commands_.size() ? &commands_[num_sent_] : nullptr;
  }
  void sent() noexcept;  // the expected one
  // Another one was sent: bad_reply now, with its line in `detail`, 0: none; from then on the line is closed.
  Result leave() noexcept;
  // Waits for an answer; timeout while a command is awaited; bus_closed after the last line.
  Result wait(TimePoint deadline) noexcept;
  const Entry* due(TimePoint now, TimePoint& at) const noexcept;  // null: nothing is due
  void received() noexcept { ++num_received_; }                   // the one that was due

 private:
  bool next_due(TimePoint& due) const noexcept;

  const std::string name_;
  std::vector<Entry> commands_, answers_;
  std::chrono::nanoseconds first_{};  // stamp of the log
  std::vector<TimePoint> origins_;    // when stamp 0 would have been, as of open() and of each command sent
  bool has_fd_ = false;
  std::uint64_t num_ignored_ = 0;
  bool is_open_ = false;
  std::size_t num_sent_ = 0, num_received_ = 0;  // of commands_ and answers_
  std::atomic<int> left_at_{-1};  // line of the command that did not come, 0: none; -1: not left
};

// Bytes: how they are cut into calls does not matter.
class ReplayBus final : public Bus {
 public:
  explicit ReplayBus(const BusConfig& config) : log_(config, true) {}  // throws as ReplayLog

  void open() override;
  void close() noexcept override { log_.close(); }
  bool is_open() const noexcept override { return log_.is_open(); }
  const std::string& name() const noexcept override { return log_.name(); }
  std::string trouble() const override { return log_.trouble(); }
  // Results as ReplayLog says.
  Result transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept override;
  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline, std::size_t& received) noexcept override;
  // Drops what is due and was not read.
  Result discard_input() noexcept override;

 private:
  ReplayLog log_;
  std::size_t num_sent_ = 0, num_read_ = 0;  // bytes of the command and the answer that are half done
};

class ReplayCanBus final : public CanBus {
 public:
  explicit ReplayCanBus(const BusConfig& config) : log_(config, false) {}  // throws as ReplayLog

  void open() override { log_.open(); }
  void close() noexcept override { log_.close(); }
  bool is_open() const noexcept override { return log_.is_open(); }
  bool is_fd() const noexcept override { return log_.has_fd(); }  // an FD frame is in the log
  const std::string& name() const noexcept override { return log_.name(); }
  std::string trouble() const override { return log_.trouble(); }
  // Results as ReplayLog says.
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override;
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override;
  // Drops what is due and was not read.
  Result discard_input() noexcept override;
  std::uint64_t num_ignored() const noexcept override {
    return log_.num_ignored();
  }  // remote and error frames

 private:
  ReplayLog log_;
};

}  // namespace wallx
