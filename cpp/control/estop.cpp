// Estop: one counter for the process.
// SPDX-License-Identifier: Apache-2.0
#include "control/estop.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {
std::atomic<std::uint32_t> count{0};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free, "a signal handler must not lock");
}  // namespace

void estop_all() noexcept { count.fetch_add(1, std::memory_order_release); }
std::uint32_t estop_count() noexcept { return count.load(std::memory_order_acquire); }

void estop_on_signal(int signal_number) {
  struct sigaction action{};
  action.sa_handler = [](int) { estop_all(); };
  action.sa_flags = SA_RESTART;
  if (sigaction(signal_number, &action, nullptr) != 0)
    throw ConfigError("e-stop on signal " + std::to_string(signal_number) + ": " + std::strerror(errno) +
                      "; use a signal that can be caught, like SIGUSR1");
}

}  // namespace wallx
