// UdpMulticastBus: one socket to send, one to receive.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/udp_multicast_bus.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/errors.hpp"
#include "drivers/buses/arrival_time.hpp"
#include "drivers/buses/can_message.hpp"
#include "drivers/buses/poll.hpp"

namespace wallx {
namespace {

constexpr int kMaxIgnored = 4096;        // datagrams of one call; more than the buffer below holds
constexpr int kReceiveBuffer = 1 << 20;  // [bytes]; the default holds some hundred frames

// "GROUP", "GROUP:PORT" or "[GROUP]:PORT"; false: not a multicast group
bool parse_group(const std::string& text, sockaddr_storage& group, socklen_t& size) {
  std::string host = text, port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string::npos) return false;
    host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') return false;
      port = text.substr(end + 2);
      if (port.empty()) return false;
    }
  } else if (const auto colon = text.find(':'); colon != std::string::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.empty()) return false;
  }
  unsigned long number = kUdpMulticastPort;
  if (!port.empty()) {
    if (port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) return false;
    number = std::stoul(port);
  }
  if (number == 0 || number > 65535) return false;
  auto& four = reinterpret_cast<sockaddr_in&>(group);
  auto& six = reinterpret_cast<sockaddr_in6&>(group);
  if (::inet_pton(AF_INET, host.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(static_cast<std::uint16_t>(number));
    size = sizeof four;
    return IN_MULTICAST(ntohl(four.sin_addr.s_addr));
  }
  if (::inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) != 1) return false;
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(static_cast<std::uint16_t>(number));
  size = sizeof six;
  return IN6_IS_ADDR_MULTICAST(&six.sin6_addr);
}

bool is_same_address(const sockaddr_storage& a, const sockaddr_storage& b) noexcept {
  if (a.ss_family != b.ss_family) return false;
  if (a.ss_family == AF_INET) {
    const auto &x = reinterpret_cast<const sockaddr_in&>(a), &y = reinterpret_cast<const sockaddr_in&>(b);
    return x.sin_port == y.sin_port && x.sin_addr.s_addr == y.sin_addr.s_addr;
  }
  const auto &x = reinterpret_cast<const sockaddr_in6&>(a), &y = reinterpret_cast<const sockaddr_in6&>(b);
  return x.sin6_port == y.sin6_port && IN6_ARE_ADDR_EQUAL(&x.sin6_addr, &y.sin6_addr);
}

template <class Option>
bool set_option(int socket, int level, int name, const Option& value) noexcept {
  return ::setsockopt(socket, level, name, &value, sizeof value) == 0;
}

double wall_time() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

UdpMulticastBus::UdpMulticastBus(const BusConfig& config)
    : name_(config.port), interface_(config.interface), is_fd_(config.data_bit_rate > 0) {
  if (!parse_group(config.port, group_, group_size_))
    throw ConfigError("port of udp_multicast bus is '" + config.port +
                      "', must be a multicast group such as 239.74.163.2, 239.74.163.2:43113 or "
                      "[ff15:7079:7468:6f6e:6465:6d6f:6d63:6173]:43113; correct [bus] in the robot's file");
}

void UdpMulticastBus::require(bool is_done, const char* what) const {
  if (is_done) return;
  std::string message = "udp_multicast bus " + name_ + ": " + what + ": " + std::strerror(errno);
  if (errno == ENODEV || errno == ENETUNREACH || errno == EADDRNOTAVAIL)
    message +=
        "; no route to the group: name the network interface (interface = \"lo\" within one computer) in "
        "[bus] of the robot's file";
  throw BusError(message);
}

void UdpMulticastBus::open() {
  if (is_open()) throw BusError("udp_multicast bus " + name_ + " is already open; close it first");
  num_ignored_ = 0;
  try {
    open_sender();
    open_receiver();
  } catch (...) {
    close();
    throw;
  }
}

void UdpMulticastBus::open_sender() {
  const bool is_four = group_.ss_family == AF_INET;
  sender_ = ::socket(group_.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  require(sender_ >= 0, "cannot make a socket");
  if (!interface_.empty()) {
    const unsigned index = ::if_nametoindex(interface_.c_str());
    require(index != 0, ("no network interface " + interface_).c_str());
    if (is_four)
      require(set_option(
                  sender_, IPPROTO_IP, IP_MULTICAST_IF,
                  ip_mreqn{.imr_multiaddr = {}, .imr_address = {}, .imr_ifindex = static_cast<int>(index)}),
              "cannot send on the interface");
    else
      require(set_option(sender_, IPPROTO_IPV6, IPV6_MULTICAST_IF, static_cast<int>(index)),
              "cannot send on the interface");
  }
  // one hop, and heard on this computer too
  require(is_four ? set_option(sender_, IPPROTO_IP, IP_MULTICAST_TTL, 1) &&
                        set_option(sender_, IPPROTO_IP, IP_MULTICAST_LOOP, 1)
                  : set_option(sender_, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1) &&
                        set_option(sender_, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1),
          "cannot set up multicast");
  // connected, the kernel chooses our address and port once and for all
  require(::connect(sender_, reinterpret_cast<const sockaddr*>(&group_), group_size_) == 0,
          "cannot reach the group");
  socklen_t size = sizeof own_;
  require(::getsockname(sender_, reinterpret_cast<sockaddr*>(&own_), &size) == 0, "has no address");
}

void UdpMulticastBus::open_receiver() {
  const bool is_four = group_.ss_family == AF_INET;
  const unsigned index = interface_.empty() ? 0 : ::if_nametoindex(interface_.c_str());
  const int fd = ::socket(group_.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  require(fd >= 0, "cannot make a socket");
  try {
    // others of this computer listen too; python-can sets both
    require(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) &&
                set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1) &&
                set_option(fd, SOL_SOCKET, SO_RCVBUF, kReceiveBuffer),
            "cannot set up a socket");
    // bound to the group, it hears nothing else that comes to the port
    require(::bind(fd, reinterpret_cast<const sockaddr*>(&group_), group_size_) == 0, "cannot listen");
    if (is_four) {
      const auto& four = reinterpret_cast<const sockaddr_in&>(group_);
      require(set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0) &&
                  set_option(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP,
                             ip_mreqn{.imr_multiaddr = four.sin_addr,
                                      .imr_address = {},
                                      .imr_ifindex = static_cast<int>(index)}),
              "cannot join the group");
    } else {
      const auto& six = reinterpret_cast<const sockaddr_in6&>(group_);
      require(set_option(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP,
                         ipv6_mreq{.ipv6mr_multiaddr = six.sin6_addr, .ipv6mr_interface = index}),
              "cannot join the group");
    }
  } catch (...) {
    ::close(fd);
    throw;
  }
  receiver_ = fd;
}

void UdpMulticastBus::close() noexcept {
  if (sender_ >= 0) ::close(sender_);
  if (receiver_ >= 0) ::close(receiver_);
  sender_ = receiver_ = -1;
}

Result UdpMulticastBus::transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept {
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  if (const Result checked = check_frames(frames, is_fd_); !checked.ok()) return checked;
  for (const CanFrame& frame : frames) {
    std::array<std::uint8_t, kMaxCanMessage> message;
    const std::size_t size = encode_can_message(frame, wall_time(), message);
    while (::send(sender_, message.data(), size, 0) < 0) {
      // refused: an answer to an earlier datagram that nobody took, which says nothing about this one
      if (errno == EINTR || errno == ECONNREFUSED) continue;
      if (errno != EAGAIN && errno != ENOBUFS) return {.code = ErrorCode::bus_closed, .detail = errno};
      if (const Result waited = wait_for(sender_, POLLOUT, deadline); !waited.ok()) return waited;
      if (Clock::now() >= deadline) return {.code = ErrorCode::timeout};
    }
  }
  return {};
}

// one datagram; `is_taken`: it was somebody else's frame
Result UdpMulticastBus::take(CanFrame& frame, bool& is_taken) noexcept {
  is_taken = false;
  std::array<std::uint8_t, 2 * kMaxCanMessage> datagram;
  alignas(cmsghdr) std::array<char, kControlSize> control;
  sockaddr_storage from{};
  iovec part{.iov_base = datagram.data(), .iov_len = datagram.size()};
  msghdr message{.msg_name = &from,
                 .msg_namelen = sizeof from,
                 .msg_iov = &part,
                 .msg_iovlen = 1,
                 .msg_control = control.data(),
                 .msg_controllen = control.size(),
                 .msg_flags = 0};
  const ssize_t size = ::recvmsg(receiver_, &message, 0);
  if (size < 0)
    return errno == EAGAIN || errno == EINTR ? Result{.code = ErrorCode::timeout}
                                             : Result{.code = ErrorCode::bus_closed, .detail = errno};
  if (is_same_address(from, own_)) return {};
  CanFrame read;
  if ((message.msg_flags & MSG_TRUNC) != 0 ||
      !decode_can_message({datagram.data(), static_cast<std::size_t>(size)}, read) ||
      (read.is_fd && !is_fd_)) {
    ++num_ignored_;
    return {};
  }
  read.received_at = arrival_time(message);
  frame = read;
  is_taken = true;
  return {};
}

Result UdpMulticastBus::receive(std::span<CanFrame> frames, TimePoint deadline,
                                std::size_t& received) noexcept {
  received = 0;
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  if (frames.empty()) return {.code = ErrorCode::out_of_range};
  for (int num_ignored = 0; received < frames.size();) {
    bool is_taken = false;
    const Result result = take(frames[received], is_taken);
    if (is_taken) {
      ++received;
    } else if (result.ok()) {
      // our own frames and noise; a flood of them must not keep the loop here
      if (++num_ignored > kMaxIgnored && Clock::now() >= deadline) break;
    } else if (received > 0) {
      return {};
    } else if (result.code != ErrorCode::timeout) {
      return result;
    } else if (const Result waited = wait_for(receiver_, POLLIN, deadline); !waited.ok()) {
      return waited;
    }
  }
  return received > 0 ? Result{} : Result{.code = ErrorCode::timeout};
}

Result UdpMulticastBus::discard_input() noexcept {
  if (!is_open()) return {.code = ErrorCode::bus_closed};
  for (int i = 0; i < kMaxIgnored; ++i) {
    CanFrame dropped;
    bool is_taken = false;
    const Result result = take(dropped, is_taken);
    if (result.code == ErrorCode::timeout) return {};
    if (!result.ok()) return result;
  }
  return {};
}

}  // namespace wallx
