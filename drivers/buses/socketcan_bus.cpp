// SocketCanBus: one raw socket, with error frames.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/socketcan_bus.hpp"

#include <linux/can.h>
#include <linux/can/error.h>
#include <linux/can/raw.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/errors.hpp"
#include "drivers/buses/arrival_time.hpp"
#include "drivers/buses/can_link.hpp"
#include "drivers/buses/poll.hpp"

namespace wallx {
namespace {

constexpr int kMaxIgnored = 256;  // error frames of one call
constexpr auto kRetry =
    std::chrono::microseconds(50);  // while the interface's queue is full; less than a frame

[[noreturn]] void throw_errno(const std::string& port, const std::string& what, int error) {
  std::string message = "CAN interface " + port + ": " + what + ": " + std::strerror(error);
  if (error == ENODEV) message += "; `ip link` lists what is there";
  if (error == EAFNOSUPPORT) message += "; this kernel has no CAN (`modprobe can_raw`)";
  throw BusError(message);
}

template <class Option>
void set_option(const std::string& port, int fd, int level, int name, const Option& value, const char* what) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) throw_errno(port, what, errno);
}

// the longer of the kernel's two frames; both begin alike
canfd_frame to_kernel(const CanFrame& frame) noexcept {
  canfd_frame raw{};
  raw.can_id = frame.id | (frame.is_extended ? CAN_EFF_FLAG : 0u);
  raw.len = frame.size;
  raw.flags = frame.is_bit_rate_switched ? CANFD_BRS : 0;
  std::memcpy(raw.data, frame.data.data(), frame.size);
  return raw;
}

}  // namespace

SocketCanBus::SocketCanBus(const BusConfig& config)
    : port_(config.port),
      bit_rate_(config.bit_rate),
      data_bit_rate_(config.data_bit_rate),
      is_fd_(config.data_bit_rate > 0) {
  if (port_.empty() || port_.size() >= IFNAMSIZ)
    throw ConfigError("port of socketcan bus is '" + port_ + "', must be a network interface of 1.." +
                      std::to_string(IFNAMSIZ - 1) +
                      " characters, such as can0; correct [bus] in the robot's file");
}

void SocketCanBus::open() {
  if (is_open()) throw BusError("CAN interface " + port_ + " is already open; close it first");
  const int fd = ::socket(PF_CAN, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, CAN_RAW);
  if (fd < 0) throw_errno(port_, "cannot make a socket", errno);
  try {
    configure(fd);
  } catch (...) {
    ::close(fd);
    throw;
  }
  fd_ = fd;
  is_lost_ = false;
  num_ignored_ = 0;
}

void SocketCanBus::configure(int fd) const {
  ifreq request{};
  std::memcpy(request.ifr_name, port_.c_str(), port_.size() + 1);
  if (::ioctl(fd, SIOCGIFINDEX, &request) != 0) throw_errno(port_, "cannot be found", errno);
  const int index = request.ifr_ifindex;
  if (::ioctl(fd, SIOCGIFFLAGS, &request) != 0) throw_errno(port_, "has no state", errno);
  if ((request.ifr_flags & IFF_UP) == 0)
    throw BusError("CAN interface " + port_ + " is down; bring it up: ip link set " + port_ +
                   " up type can bitrate 1000000" + (is_fd_ ? " dbitrate 5000000 fd on" : ""));
  if (is_fd_) {
    if (::ioctl(fd, SIOCGIFMTU, &request) != 0) throw_errno(port_, "has no frame size", errno);
    if (request.ifr_mtu < static_cast<int>(CANFD_MTU))
      throw BusError(
          "CAN interface " + port_ +
          " is not in FD mode and data_bit_rate asks for it; bring it up with `dbitrate ... fd on`, or "
          "set data_bit_rate = 0 in [bus] of the robot's file");
    set_option(port_, fd, SOL_CAN_RAW, CAN_RAW_FD_FRAMES, 1, "cannot do FD");
  }
  // frames at another rate than the motors' are errors on the wire, up to bus-off: better refused by number
  const CanLink link = read_can_link(index);
  compare("bit_rate", bit_rate_, link.bit_rate);
  if (is_fd_) compare("data_bit_rate", data_bit_rate_, link.data_bit_rate);
  const can_err_mask_t errors = CAN_ERR_BUSOFF | CAN_ERR_RESTARTED | CAN_ERR_CRTL;
  set_option(port_, fd, SOL_CAN_RAW, CAN_RAW_ERR_FILTER, errors, "cannot report errors");
  set_option(port_, fd, SOL_SOCKET, SO_TIMESTAMPNS, 1, "cannot stamp frames");
  sockaddr_can address{};
  address.can_family = AF_CAN;
  address.can_ifindex = index;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw_errno(port_, "cannot be opened", errno);
}

void SocketCanBus::compare(const char* key, int stated, int actual) const {
  if (actual == 0 || actual == stated) return;
  throw BusError("CAN interface " + port_ + " runs with a " + key + " of " + std::to_string(actual) +
                 " bit/s, the robot's file says " + std::to_string(stated) + "; correct " + key +
                 " in [bus], or take the interface down and bring it up with the right rate");
}

void SocketCanBus::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

// from now on this bus is closed, whatever the kernel does
Result SocketCanBus::lost(std::int32_t detail) noexcept {
  is_lost_ = true;
  lost_detail_ = detail;
  return {.code = ErrorCode::bus_closed, .detail = detail};
}

Result SocketCanBus::transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept {
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  if (is_lost_) return {.code = ErrorCode::bus_closed, .detail = lost_detail_};
  if (const Result checked = check_frames(frames, is_fd_); !checked.ok()) return checked;
  for (const CanFrame& frame : frames) {
    const canfd_frame raw = to_kernel(frame);
    const std::size_t size = frame.is_fd ? CANFD_MTU : CAN_MTU;
    while (::write(fd_, &raw, size) != static_cast<ssize_t>(size)) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        if (const Result waited = wait_for(fd_, POLLOUT, deadline); !waited.ok()) return waited;
      } else if (errno == ENOBUFS) {
        // the interface's queue (txqueuelen, 10 by default) is full, which poll does not tell
        if (Clock::now() + kRetry > deadline) return {.code = ErrorCode::timeout, .detail = ENOBUFS};
        const timespec pause{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kRetry).count()};
        ::nanosleep(&pause, nullptr);
      } else {
        return lost(errno);
      }
    }
  }
  return {};
}

// one frame; `is_taken`: it carries data
Result SocketCanBus::take(CanFrame& frame, bool& is_taken) noexcept {
  is_taken = false;
  canfd_frame raw{};
  alignas(cmsghdr) std::array<char, kControlSize> control;
  iovec part{.iov_base = &raw, .iov_len = sizeof raw};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(fd_, &message, 0);
  if (size < 0) return errno == EAGAIN || errno == EINTR ? Result{.code = ErrorCode::timeout} : lost(errno);
  if ((raw.can_id & CAN_ERR_FLAG) != 0) {
    if ((raw.can_id & (CAN_ERR_BUSOFF | CAN_ERR_RESTARTED)) != 0) return lost(kBusOff);
    ++num_ignored_;
    return {};
  }
  const bool is_fd = size == CANFD_MTU;
  if ((!is_fd && size != CAN_MTU) || (raw.can_id & CAN_RTR_FLAG) != 0 || raw.len > (is_fd ? 64 : 8)) {
    ++num_ignored_;
    return {};
  }
  frame.is_extended = (raw.can_id & CAN_EFF_FLAG) != 0;
  frame.id = raw.can_id & (frame.is_extended ? CAN_EFF_MASK : CAN_SFF_MASK);
  frame.is_fd = is_fd;
  frame.is_bit_rate_switched = is_fd && (raw.flags & CANFD_BRS) != 0;
  frame.size = raw.len;
  std::memcpy(frame.data.data(), raw.data, raw.len);
  frame.received_at = arrival_time(message);
  is_taken = true;
  return {};
}

Result SocketCanBus::receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept {
  received = 0;
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  if (frames.empty()) return {.code = ErrorCode::out_of_range};
  for (int num_ignored = 0; received < frames.size();) {
    if (is_lost_) return {.code = ErrorCode::bus_closed, .detail = lost_detail_};
    bool is_taken = false;
    const Result result = take(frames[received], is_taken);
    if (is_taken) {
      ++received;
    } else if (result.ok()) {
      // a faulty wire can report errors without end
      if (++num_ignored > kMaxIgnored && Clock::now() >= deadline) break;
    } else if (received > 0) {
      return {};  // what was lost after it is told by the next call
    } else if (result.code != ErrorCode::timeout) {
      return result;
    } else if (const Result waited = wait_for(fd_, POLLIN, deadline); !waited.ok()) {
      return waited;
    }
  }
  return received > 0 ? Result{} : Result{.code = ErrorCode::timeout};
}

Result SocketCanBus::discard_input() noexcept {
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  // bounded, so that a line that never falls silent cannot keep the loop here
  for (int i = 0; i < 4096; ++i) {
    if (is_lost_) return {.code = ErrorCode::bus_closed, .detail = lost_detail_};
    CanFrame dropped;
    bool is_taken = false;
    const Result result = take(dropped, is_taken);
    if (result.code == ErrorCode::timeout) return {};
    if (!result.ok()) return result;
  }
  return {};
}

}  // namespace wallx
