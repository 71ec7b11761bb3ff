// Heartbeat: one page of a memfd.
// SPDX-License-Identifier: Apache-2.0
#include "hardware/heartbeat.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {

void* map(int descriptor, std::size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

[[noreturn]] void fail(const char* what) {
  throw DeviceError(std::string("heartbeat: ") + what + ": " + std::strerror(errno) +
                    "; a file descriptor of a running loop's heartbeat is needed");
}

}  // namespace

Heartbeat::Heartbeat() : descriptor_(::memfd_create("wallx-heartbeat", MFD_CLOEXEC)) {
  if (descriptor_ < 0 || ::ftruncate(descriptor_, sizeof(Shared)) != 0) {
    if (descriptor_ >= 0) ::close(descriptor_);
    fail("no shared memory");
  }
  void* memory = map(descriptor_, sizeof(Shared));
  if (!memory) {
    ::close(descriptor_);
    fail("cannot map it");
  }
  shared_ = new (memory) Shared{};
}

Heartbeat::Heartbeat(int descriptor) : descriptor_(::dup(descriptor)) {
  if (descriptor_ < 0) fail("no such file descriptor");
  // shorter memory would be a bus error at the first look
  if (::lseek(descriptor_, 0, SEEK_END) < static_cast<off_t>(sizeof(Shared))) {
    ::close(descriptor_);
    errno = EINVAL;
    fail("too short");
  }
  void* memory = map(descriptor_, sizeof(Shared));
  if (!memory) {
    ::close(descriptor_);
    fail("cannot map it");
  }
  shared_ = static_cast<Shared*>(memory);
}

Heartbeat::~Heartbeat() {
  ::munmap(shared_, sizeof(Shared));
  ::close(descriptor_);
}

bool Heartbeat::enter() noexcept { return shared_->is_seized.load(std::memory_order_acquire) == 0; }
void Heartbeat::leave() noexcept { shared_->beats.fetch_add(1, std::memory_order_release); }
void Heartbeat::rearm() noexcept { shared_->is_seized.store(0, std::memory_order_release); }
std::uint64_t Heartbeat::beats() const noexcept { return shared_->beats.load(std::memory_order_acquire); }
void Heartbeat::seize() noexcept { shared_->is_seized.store(1, std::memory_order_release); }

}  // namespace wallx
