// LoopRecord: what one tick saw, decided and sent; and the ring that carries records out of the loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/joint.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "control/state_machine.hpp"
#include "control/watchdog.hpp"

namespace wallx {

struct RecordHead {
  std::uint64_t tick = 0;  // counts the ticks that ran, from 1
  TimePoint scheduled;     // the tick's place on the grid; what the rows were interpolated at
  float lateness_us = 0;   // wake-up after `scheduled`
  float read_us = 0;       // time spent reading feedback
  LoopState state = LoopState::boot;
  std::uint8_t requests = 0;        // Request bits that this tick took up
  bool is_enabled = false;          // commands are sent: torque is on
  Finding finding;                  // the watchdog's, or a fault found later in the tick
  Finding cause;                    // why the loop is in hold or fault
  std::uint64_t plan_sequence = 0;  // plan in force, 0: none
  std::uint32_t generation = 0;     // the loop's
  std::int32_t row = -1;            // last row that was due, -1: no plan
  bool is_on_row = false;           // the target is exactly that row
  bool has_command = false;         // a command was made this tick
  bool is_exact = false;            // every joint's command is its target, bit for bit
  Result read;
  Result send;
  std::uint32_t num_joints = 0;
};

struct LoopRecord : RecordHead {
  JointArray command{};                                // last command       (num_joints) [rad]
  JointArray target{};                                 // interpolated rows  (num_joints) [rad]
  JointArray measured{};                               // last feedback      (num_joints) [rad]
  std::array<float, kMaxJoints> sample_age{};          // of the feedback    (num_joints) [s]
  std::array<float, kMaxJoints> torque_share{};        // limit in force     (num_joints) [0..1]
  std::array<std::uint16_t, kMaxJoints> reasons{};     // LimitReason bits   (num_joints)
  std::array<std::uint8_t, kMaxJoints> drive_error{};  // of the last answer (num_joints)
};

// One writer, one reader, no lock; a full ring drops the new record and counts it.
class RecordRing {
 public:
  RecordRing(std::size_t num_joints, std::size_t capacity)
      : num_joints_(num_joints),
        stride_((sizeof(RecordHead) + num_joints * (3 * sizeof(double) + 2 * sizeof(float) + 3) + 7) / 8 * 8),
        capacity_(capacity),
        bytes_(stride_ * capacity) {}

  void push(const LoopRecord& record) noexcept {
    const std::uint64_t written = written_.load(std::memory_order_relaxed);
    if (written - read_.load(std::memory_order_acquire) >= capacity_) {
      dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      return;
    }
    std::byte* to = &bytes_[written % capacity_ * stride_];
    const auto put = [&](const void* from, std::size_t size) {
      std::memcpy(to, from, size);
      to += size;
    };
    put(static_cast<const RecordHead*>(&record), sizeof(RecordHead));
    put(record.command.data(), num_joints_ * sizeof(double));
    put(record.target.data(), num_joints_ * sizeof(double));
    put(record.measured.data(), num_joints_ * sizeof(double));
    put(record.sample_age.data(), num_joints_ * sizeof(float));
    put(record.torque_share.data(), num_joints_ * sizeof(float));
    put(record.reasons.data(), num_joints_ * sizeof(std::uint16_t));
    put(record.drive_error.data(), num_joints_);
    written_.store(written + 1, std::memory_order_release);
  }

  // The oldest record; false: empty. Entries past num_joints are left as they are.
  bool pop(LoopRecord& record) noexcept {
    const std::uint64_t read = read_.load(std::memory_order_relaxed);
    if (read == written_.load(std::memory_order_acquire)) return false;
    const std::byte* from = &bytes_[read % capacity_ * stride_];
    const auto get = [&](void* to, std::size_t size) {
      std::memcpy(to, from, size);
      from += size;
    };
    get(static_cast<RecordHead*>(&record), sizeof(RecordHead));
    get(record.command.data(), num_joints_ * sizeof(double));
    get(record.target.data(), num_joints_ * sizeof(double));
    get(record.measured.data(), num_joints_ * sizeof(double));
    get(record.sample_age.data(), num_joints_ * sizeof(float));
    get(record.torque_share.data(), num_joints_ * sizeof(float));
    get(record.reasons.data(), num_joints_ * sizeof(std::uint16_t));
    get(record.drive_error.data(), num_joints_);
    read_.store(read + 1, std::memory_order_release);
    return true;
  }

  std::size_t size() const noexcept {
    return written_.load(std::memory_order_acquire) - read_.load(std::memory_order_acquire);
  }
  std::uint64_t num_dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }
  std::vector<std::byte>& memory() noexcept { return bytes_; }

 private:
  static_assert(std::is_trivially_copyable_v<LoopRecord>);
  std::size_t num_joints_, stride_, capacity_;
  std::vector<std::byte> bytes_;
  std::atomic<std::uint64_t> written_{0}, read_{0}, dropped_{0};
};

}  // namespace wallx
