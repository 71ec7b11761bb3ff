// Recorder: a ring between the line's user and the thread that writes. SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/recorder.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "base/errors.hpp"
#include "drivers/buses/candump_log.hpp"
#include "drivers/buses/mailbox_ring.hpp"

namespace wallx {
namespace {

struct Entry {
  TimePoint at{};
  bool is_sent = false;
  CanFrame frame;  // of bytes only size and data
};

// a word of its own in the log
std::string channel_of(const std::string& port) {
  std::string name = port.substr(port.find_last_of('/') + 1);
  std::replace(name.begin(), name.end(), ' ', '_');
  return name.empty() ? "line" : name;
}

class LogFile {
 public:
  LogFile(const BusConfig& config, bool is_bytes)
      : path_(config.record), channel_(channel_of(config.port)), is_bytes_(is_bytes) {}
  ~LogFile() { close(); }

  void open() {
    file_ = std::fopen(path_.c_str(), "we");
    if (!file_) throw BusError("the log " + path_ + " cannot be written: " + std::strerror(errno));
    // candump counts from 1970
    to_wall_ = std::chrono::system_clock::now().time_since_epoch() - Clock::now().time_since_epoch();
    latest_ = {};
    is_complete_ = true;
    is_closing_ = false;
    ring_.clear();
    writer_ = std::thread([this] { write(); });
  }
  void close() noexcept {
    if (!writer_.joinable()) return;
    is_closing_ = true;
    ring_.wake();
    writer_.join();
    if (std::fclose(file_) != 0) is_complete_ = false;
    file_ = nullptr;
    if (!is_complete_)
      std::fprintf(stderr, "the log %s ends early: the disk was too slow, or is full\n", path_.c_str());
  }

  // The loop's side. Stamps never run backwards: a frame may have arrived before the last command was sent.
  void put(bool is_sent, std::span<const CanFrame> frames, TimePoint now) noexcept {
    for (const CanFrame& frame : frames) put_one(is_sent, frame, is_sent ? now : frame.received_at);
  }
  void put(bool is_sent, std::span<const std::uint8_t> bytes, TimePoint now) noexcept {
    while (!bytes.empty()) {
      CanFrame part;
      part.size = static_cast<std::uint8_t>(std::min(bytes.size(), part.data.size()));
      std::copy_n(bytes.begin(), part.size, part.data.begin());
      put_one(is_sent, part, now);
      bytes = bytes.subspan(part.size);
    }
  }

 private:
  static constexpr std::size_t kCapacity = 1 << 14;

  void put_one(bool is_sent, const CanFrame& frame, TimePoint at) noexcept {
    latest_ = std::max(latest_, at);
    const Entry entry{latest_, is_sent, frame};
    // a log with a hole would be replayed wrongly: it ends at the first entry that does not fit
    if (is_complete_ && !ring_.put({&entry, 1})) is_complete_ = false;
  }

  void write() noexcept {
    std::array<Entry, 64> entries;
    std::array<TimePoint, 64> put_at;
    while (true) {
      const bool is_last = is_closing_;
      const std::size_t count = ring_.take(entries, put_at);
      for (std::size_t i = 0; i < count; ++i) {
        const std::string text = to_candump(
            {entries[i].at.time_since_epoch() + to_wall_, channel_, entries[i].frame, entries[i].is_sent},
            is_bytes_);
        if (std::fprintf(file_, "%s\n", text.c_str()) < 0) is_complete_ = false;
      }
      if (count > 0) continue;
      if (is_last) return;
      (void)ring_.wait(Clock::now() + std::chrono::seconds(1));
      // whoever dies leaves what it had
      if (std::fflush(file_) != 0) is_complete_ = false;
    }
  }

  const std::string path_, channel_;
  const bool is_bytes_;
  std::FILE* file_ = nullptr;
  std::chrono::nanoseconds to_wall_{};
  MailboxRing<Entry> ring_{kCapacity};
  TimePoint latest_{};
  std::atomic<bool> is_complete_{true}, is_closing_{false};
  std::thread writer_;
};

// Port is Bus or CanBus
template <class Port, class Item>
class RecordedLine : public Port {
 public:
  RecordedLine(std::unique_ptr<Port> bus, const BusConfig& config)
      : bus_(std::move(bus)), log_(config, std::is_same_v<Item, std::uint8_t>) {}
  ~RecordedLine() override { RecordedLine::close(); }

  void open() override {
    bus_->open();
    try {
      log_.open();
    } catch (...) {
      bus_->close();
      throw;
    }
  }
  void close() noexcept override {
    bus_->close();
    log_.close();
  }
  bool is_open() const noexcept override { return bus_->is_open(); }
  const std::string& name() const noexcept override { return bus_->name(); }
  TimePoint now() const noexcept override { return bus_->now(); }
  std::string trouble() const override { return bus_->trouble(); }

  Result transmit(std::span<const Item> items, TimePoint deadline) noexcept override {
    const TimePoint begin = bus_->now();
    const Result result = bus_->transmit(items, deadline);
    if (result.ok()) log_.put(true, items, begin);
    return result;
  }
  Result receive(std::span<Item> items, TimePoint deadline, std::size_t& received) noexcept override {
    const Result result = bus_->receive(items, deadline, received);
    if (received > 0) log_.put(false, std::span<const Item>(items).first(received), bus_->now());
    return result;
  }
  Result discard_input() noexcept override { return bus_->discard_input(); }

 protected:
  const std::unique_ptr<Port> bus_;

 private:
  LogFile log_;
};

class RecordedBus final : public RecordedLine<Bus, std::uint8_t> {
 public:
  using RecordedLine::RecordedLine;
  int descriptor() const noexcept override { return bus_->descriptor(); }
  Duration byte_time() const noexcept override { return bus_->byte_time(); }
};

class RecordedCanBus final : public RecordedLine<CanBus, CanFrame> {
 public:
  using RecordedLine::RecordedLine;
  bool is_fd() const noexcept override { return bus_->is_fd(); }
  std::uint64_t num_ignored() const noexcept override { return bus_->num_ignored(); }
};

}  // namespace

std::unique_ptr<Bus> make_recorded(std::unique_ptr<Bus> bus, const BusConfig& config) {
  return std::make_unique<RecordedBus>(std::move(bus), config);
}

std::unique_ptr<CanBus> make_recorded(std::unique_ptr<CanBus> bus, const BusConfig& config) {
  return std::make_unique<RecordedCanBus>(std::move(bus), config);
}

}  // namespace wallx
