// CAN port as a member of a UDP multicast group: a map of eleven entries per datagram, MessagePack.
// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/errors.hpp"
#include "emulator/can_port.hpp"

namespace wallx::emulator {
namespace {

constexpr int kDefaultPort = 43113;
constexpr std::size_t kLongestMessage = 512;

[[noreturn]] void fail(const std::string& what) { throw DeviceError(what + ": " + std::strerror(errno)); }

// appends values of a message
class Writer {
 public:
  void key(std::string_view text) {
    put(static_cast<std::uint8_t>(0xA0 | text.size()));  // all keys have less than 32 letters
    for (const char c : text) put(static_cast<std::uint8_t>(c));
  }
  void map(int num_entries) { put(static_cast<std::uint8_t>(0x80 | num_entries)); }
  void nil() { put(0xC0); }
  void flag(bool value) { put(value ? 0xC3 : 0xC2); }
  void whole(std::uint32_t value) {
    if (value < 0x80) return put(static_cast<std::uint8_t>(value));
    const int num_bytes = value <= 0xFF ? 1 : value <= 0xFFFF ? 2 : 4;
    put(num_bytes == 1 ? 0xCC : num_bytes == 2 ? 0xCD : 0xCE);
    for (int i = num_bytes; i-- > 0;) put(static_cast<std::uint8_t>(value >> 8 * i & 0xFF));
  }
  void real(double value) {
    const auto raw = std::bit_cast<std::uint64_t>(value);
    put(0xCB);
    for (int i = 8; i-- > 0;) put(static_cast<std::uint8_t>(raw >> 8 * i & 0xFF));
  }
  void bytes(const std::uint8_t* data, std::size_t size) {
    put(0xC4);
    put(static_cast<std::uint8_t>(size));
    for (std::size_t i = 0; i < size; ++i) put(data[i]);
  }
  const std::uint8_t* data() const { return buffer_; }
  std::size_t size() const { return size_; }

 private:
  void put(std::uint8_t byte) {
    if (size_ < sizeof buffer_) buffer_[size_++] = byte;
  }
  std::uint8_t buffer_[kLongestMessage];
  std::size_t size_ = 0;
};

// takes values of a message; after something it does not know, is_good() is false
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  bool is_good() const { return is_good_; }

  std::size_t map() {
    const std::uint8_t head = next();
    if ((head & 0xF0) == 0x80) return head & 0x0F;
    if (head == 0xDE) return big(2);
    is_good_ = false;
    return 0;
  }
  std::string_view text() {
    const std::uint8_t head = next();
    std::size_t size = 0;
    if ((head & 0xE0) == 0xA0)
      size = head & 0x1F;
    else if (head == 0xD9 || head == 0xDA)
      size = big(head == 0xD9 ? 1 : 2);
    else
      is_good_ = false;
    return {reinterpret_cast<const char*>(skip(size)), is_good_ ? size : 0};
  }
  bool flag() {
    const std::uint8_t head = next();
    is_good_ &= head == 0xC2 || head == 0xC3;
    return head == 0xC3;
  }
  std::uint64_t whole() {
    const std::uint8_t head = next();
    if (head < 0x80) return head;
    if (head >= 0xCC && head <= 0xCF) return big(std::size_t{1} << (head - 0xCC));
    is_good_ = false;
    return 0;
  }
  // also a list of whole numbers, which is what a bytearray becomes in some versions
  std::size_t bytes(std::array<std::uint8_t, 64>& out) {
    const std::uint8_t head = next();
    std::size_t size = 0;
    const bool is_list = (head & 0xF0) == 0x90 || head == 0xDC;
    if ((head & 0xF0) == 0x90)
      size = head & 0x0F;
    else if (head == 0xC4 || head == 0xC5)
      size = big(head == 0xC4 ? 1 : 2);
    else if (head == 0xDC)
      size = big(2);
    else
      is_good_ = false;
    if (size > out.size()) is_good_ = false;
    if (!is_good_) return 0;
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(is_list ? whole() : next());
    return size;
  }
  void anything() {
    const std::uint8_t head = next();
    if (head < 0x80 || head >= 0xE0 || head == 0xC0 || head == 0xC2 || head == 0xC3) return;
    if ((head & 0xE0) == 0xA0)
      skip(head & 0x1F);
    else if (head == 0xCA || head == 0xCE || head == 0xD2)
      skip(4);
    else if (head == 0xCB || head == 0xCF || head == 0xD3)
      skip(8);
    else if (head == 0xCC || head == 0xD0)
      skip(1);
    else if (head == 0xCD || head == 0xD1)
      skip(2);
    else if (head == 0xD9 || head == 0xC4)
      skip(big(1));
    else
      is_good_ = false;
  }

 private:
  std::uint8_t next() {
    if (at_ == end_) {
      is_good_ = false;
      return 0xC1;
    }
    return *at_++;
  }
  std::uint64_t big(std::size_t num_bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < num_bytes; ++i) value = value << 8 | next();
    return value;
  }
  const std::uint8_t* skip(std::size_t size) {
    if (size > static_cast<std::size_t>(end_ - at_)) {
      is_good_ = false;
      return at_;
    }
    const std::uint8_t* from = at_;
    at_ += size;
    return from;
  }
  const std::uint8_t* at_;
  const std::uint8_t* end_;
  bool is_good_ = true;
};

bool unpack(const std::uint8_t* data, std::size_t length, WireFrame& frame) {
  Reader reader(data, length);
  WireFrame made;
  bool is_remote = false;
  std::uint64_t id = ~std::uint64_t{0};
  const std::size_t num_entries = reader.map();
  for (std::size_t i = 0; i < num_entries && reader.is_good(); ++i) {
    const std::string_view key = reader.text();
    if (key == "arbitration_id")
      id = reader.whole();
    else if (key == "is_extended_id")
      made.is_extended = reader.flag();
    else if (key == "is_remote_frame")
      is_remote = reader.flag();
    else if (key == "is_error_frame")
      made.is_error = reader.flag();
    else if (key == "is_fd")
      made.is_fd = reader.flag();
    else if (key == "bitrate_switch")
      made.is_fast = reader.flag();
    else if (key == "data")
      made.size = static_cast<std::uint8_t>(reader.bytes(made.data));
    else
      reader.anything();
  }
  made.id = static_cast<std::uint32_t>(id);
  const bool is_possible = id <= (made.is_extended ? 0x1FFFFFFFu : 0x7FFu) &&
                           (made.is_fd || made.size <= 8) && fd_size(made.size) == made.size;
  if (!reader.is_good() || is_remote || made.is_error || !is_possible) return false;
  made.is_fast &= made.is_fd;
  frame = made;
  return true;
}

class UdpPort final : public CanPort {
 public:
  UdpPort(const std::string& group, const std::string& interface) : name_(group) {
    const std::size_t colon = group.find(':');
    const std::string address = group.substr(0, colon);
    long port = kDefaultPort;
    if (colon != std::string::npos) {
      char* end = nullptr;
      port = std::strtol(group.c_str() + colon + 1, &end, 10);
      if (*end != '\0' || end == group.c_str() + colon + 1) port = 0;
    }
    if (::inet_pton(AF_INET, address.c_str(), &group_.sin_addr) != 1 ||
        !IN_MULTICAST(ntohl(group_.sin_addr.s_addr)) || port < 1 || port > 65535)
      throw ConfigError("multicast group '" + group +
                        "' must be an IPv4 group such as 239.74.163.2, or "
                        "239.74.163.2:43113 with a port of 1..65535");
    const int index = interface.empty() ? 0 : static_cast<int>(::if_nametoindex(interface.c_str()));
    if (!interface.empty() && index == 0)
      throw ConfigError("there is no network interface '" + interface + "'; `ip link` lists them");
    group_.sin_family = AF_INET;
    group_.sin_port = htons(static_cast<std::uint16_t>(port));
    try {
      open(index);
    } catch (...) {
      close();
      throw;
    }
  }
  ~UdpPort() override { close(); }

  const std::string& name() const noexcept override { return name_; }
  int file() const noexcept override { return receiver_; }

  bool take(WireFrame& frame) noexcept override {
    for (;;) {
      std::uint8_t message[kLongestMessage];
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t count = ::recvfrom(receiver_, message, sizeof message, MSG_DONTWAIT | MSG_TRUNC,
                                       reinterpret_cast<sockaddr*>(&from), &size);
      if (count < 0) return false;
      // whoever sends to a group hears himself: our own frames are known by the port they come from
      if (from.sin_port == own_port_ || static_cast<std::size_t>(count) > sizeof message) continue;
      if (unpack(message, static_cast<std::size_t>(count), frame)) return true;
    }
  }

  bool give(const WireFrame& frame) noexcept override {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    Writer out;
    out.map(11);
    out.key("timestamp"), out.real(double(now.tv_sec) + double(now.tv_nsec) * 1e-9);
    out.key("arbitration_id"), out.whole(frame.id);
    out.key("is_extended_id"), out.flag(frame.is_extended);
    out.key("is_remote_frame"), out.flag(false);
    out.key("is_error_frame"), out.flag(frame.is_error);
    out.key("channel"), out.nil();
    out.key("dlc"), out.whole(frame.size);
    out.key("data"), out.bytes(frame.data.data(), frame.size);
    out.key("is_fd"), out.flag(frame.is_fd);
    out.key("bitrate_switch"), out.flag(frame.is_fast);
    out.key("error_state_indicator"), out.flag(false);
    return ::sendto(sender_, out.data(), out.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&group_),
                    sizeof group_) == static_cast<ssize_t>(out.size());
  }

 private:
  void open(int interface) {
    receiver_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sender_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (receiver_ < 0 || sender_ < 0) fail("cannot make a UDP socket");
    const int on = 1, off = 0;
    const ip_mreqn member{.imr_multiaddr = group_.sin_addr, .imr_address = {}, .imr_ifindex = interface};
    const auto set = [&](int file, int level, int option, const void* value, socklen_t size) {
      if (::setsockopt(file, level, option, value, size) != 0)
        fail("cannot set up the multicast group " + name_);
    };
    set(receiver_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    set(receiver_, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);  // this group, not every one of this port
    if (::bind(receiver_, reinterpret_cast<const sockaddr*>(&group_), sizeof group_) != 0)
      fail("cannot listen to the multicast group " + name_);
    if (::setsockopt(receiver_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof member) != 0)
      fail("cannot join the multicast group " + name_ + " (is there a route to it? or name an interface)");
    if (interface) set(sender_, IPPROTO_IP, IP_MULTICAST_IF, &member, sizeof member);
    const int hops = 1;
    set(sender_, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops);
    // a port of its own from the start
    sockaddr_in own{};
    own.sin_family = AF_INET;
    socklen_t size = sizeof own;
    if (::bind(sender_, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 ||
        ::getsockname(sender_, reinterpret_cast<sockaddr*>(&own), &size) != 0)
      fail("cannot find a UDP port to send from");
    own_port_ = own.sin_port;
  }
  void close() noexcept {
    for (const int file : {receiver_, sender_})
      if (file >= 0) ::close(file);
  }

  const std::string name_;
  sockaddr_in group_{};
  in_port_t own_port_ = 0;
  int receiver_ = -1, sender_ = -1;
};

}  // namespace

std::unique_ptr<CanPort> open_udp_port(const std::string& group, const std::string& interface) {
  return std::make_unique<UdpPort>(group, interface);
}

}  // namespace wallx::emulator
