// Heartbeat: shared memory in which a loop says that it lives, and in which a watcher may shut it out of the
// bus. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace wallx {

// One owner, one watcher, in two processes. The owner touches the bus only between enter() and leave(), and
// asks again before it sends; the watcher only after seize(), from which on enter() fails. A process that was
// stopped between that question and the write still finishes the one write, which is why a watcher repeats
// what it writes until the owner is gone.
class Heartbeat {
 public:
  Heartbeat();                         // makes the memory; throws DeviceError
  explicit Heartbeat(int descriptor);  // maps what was inherited; throws DeviceError
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  int descriptor() const noexcept { return descriptor_; }

  // Owner. Loop calls: a few atomic operations.
  bool enter() noexcept;  // false: a watcher has seized the bus
  void leave() noexcept;  // counts one beat
  void rearm() noexcept;  // after a reset: the bus is the owner's again

  // Watcher.
  std::uint64_t beats() const noexcept;
  void seize() noexcept;

 private:
  struct Shared {
    std::atomic<std::uint64_t> beats;
    std::atomic<std::uint32_t> is_seized;
  };
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "two processes share no lock");

  int descriptor_ = -1;
  Shared* shared_ = nullptr;
};

}  // namespace wallx
