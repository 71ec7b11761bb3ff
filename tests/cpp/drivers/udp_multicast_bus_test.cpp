// UdpMulticastBus keeps the CAN bus contract on the loopback interface; its messages are python-can's to the
// byte. SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/udp_multicast_bus.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <unistd.h>

#include <random>
#include <string>

#include "contract/can_bus_contract.hpp"
#include "drivers/buses/can_message.hpp"

namespace wallx::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes from_hex(const std::string& digits) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return bytes;
}

// a UDP port of this process: two runs of the tests must not hear each other
int own_port() { return 20'000 + ::getpid() % 40'000; }

BusConfig on_group(const std::string& group, int data_bit_rate = 5'000'000) {
  return {.kind = "udp_multicast",
          .port = group + ":" + std::to_string(own_port()),
          .data_bit_rate = data_bit_rate,
          .interface = "lo"};
}

class UdpLine final : public CanLineUnderTest {
 public:
  explicit UdpLine(std::string group)
      : group_(std::move(group)), near_(on_group(group_)), far_(on_group(group_)) {
    far_.open();
  }
  CanBus& bus() override { return near_; }
  std::unique_ptr<CanBus> make_classic() override {
    return std::make_unique<UdpMulticastBus>(on_group(group_, 0));
  }
  void write_far(const Frames& frames) override { CHECK(far_.transmit(frames, can_patient()).ok()); }
  Frames read_far(std::size_t count) override { return receive_frames(far_, count); }

 private:
  const std::string group_;
  UdpMulticastBus near_, far_;
};

std::unique_ptr<CanLineUnderTest> make_udp_line() { return std::make_unique<UdpLine>("239.74.163.2"); }
CAN_BUS_CONTRACT(udp_multicast, make_udp_line)

// on whichever network interface has a route to such groups; often loopback has none
TEST(udp_multicast_speaks_ipv6_too) {
  const std::string group = "[ff15:7079:7468:6f6e:6465:6d6f:6d63:6173]:" + std::to_string(own_port());
  struct if_nameindex* const interfaces = ::if_nameindex();
  bool is_carried = false;
  for (const struct if_nameindex* one = interfaces; one && one->if_index != 0 && !is_carried; ++one) {
    const BusConfig config{.port = group, .data_bit_rate = 1'000'000, .interface = one->if_name};
    UdpMulticastBus near(config), far(config);
    try {
      near.open();
      far.open();
    } catch (const BusError&) {
      continue;
    }
    const Frames sent{make_frame(6, {6})};
    CanFrame buffer;
    std::size_t received = 0;
    // an interface that is down takes frames and carries none
    if (!near.transmit(sent, can_patient()).ok() ||
        !far.receive({&buffer, 1}, Clock::now() + std::chrono::milliseconds(200), received).ok())
      continue;
    is_carried = true;
    CHECK(is_same({buffer}, sent));
    CHECK(far.transmit(sent, can_patient()).ok());
    CHECK(is_same(receive_frames(near, 1), sent));
  }
  ::if_freenameindex(interfaces);
  if (!is_carried) std::printf("  not run: no network interface here carries IPv6 multicast\n");
}

// sends bytes to the group as any program could
void send_raw(const Bytes& bytes) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ip_mreqn on{};
  on.imr_ifindex = static_cast<int>(::if_nametoindex("lo"));
  CHECK_EQ(::setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &on, sizeof on), 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(own_port()));
  ::inet_pton(AF_INET, "239.74.163.2", &to.sin_addr);
  CHECK_EQ(::sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to),
           static_cast<ssize_t>(bytes.size()));
  ::close(fd);
}

Bytes encoded(const CanFrame& frame, double timestamp = 1.5) {
  std::array<std::uint8_t, kMaxCanMessage> message;
  const std::size_t size = encode_can_message(frame, timestamp, message);
  return {message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size)};
}

TEST(udp_multicast_ignores_and_counts_what_is_no_frame) {
  UdpMulticastBus bus(on_group("239.74.163.2"));
  bus.open();
  send_raw({});
  send_raw({0xFF, 0x00});
  send_raw(Bytes(2000, 0x80));
  send_raw(encoded(make_frame(0x77, {7})));
  CHECK(is_same(receive_frames(bus, 1), {make_frame(0x77, {7})}));
  CHECK_EQ(bus.num_ignored(), 3u);
}

TEST(udp_multicast_keeps_the_time_a_frame_waited) {
  UdpMulticastBus bus(on_group("239.74.163.2"));
  bus.open();
  send_raw(encoded(make_frame(1, {1})));
  const TimePoint sent = Clock::now();
  send_raw(encoded(make_frame(2, {2})));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));  // the frames wait meanwhile: that is the test
  const Frames frames = receive_frames(bus, 2);
  CHECK(frames[0].received_at <= sent + std::chrono::milliseconds(1));
  CHECK(frames[0].received_at <= frames[1].received_at);
}

TEST(udp_multicast_refuses_what_is_no_group) {
  for (const char* bad : {"", "127.0.0.1", "239.74.163.2:", "239.74.163.2:0", "239.74.163.2:65536",
                          "239.74.163.2:1x", "::1", "[ff15::1", "[ff15::1]43113", "nowhere", "224.0.0.256"})
    CHECK_THROWS(UdpMulticastBus({.port = bad}), ConfigError, "must be a multicast group");
  for (const char* good : {"239.74.163.2", "224.0.0.251:5353", "ff15::1", "[ff15::1]", "[ff15::1]:99"})
    CHECK(!UdpMulticastBus({.port = good}).is_open());
  UdpMulticastBus bus({.port = "239.74.163.2", .interface = "no-such-if"});
  CHECK_THROWS(bus.open(), BusError, "no network interface no-such-if");
}

// what msgpack makes of python-can's messages
TEST(can_message_is_python_cans_to_the_byte) {
  CHECK(encoded(make_frame(0x123, {1, 2, 3})) == from_hex("8ba974696d657374616d70cb3ff8000000000000ae61726269"
                                                          "74726174696f6e5f6964cd0123ae69735f657874656e646564"
                                                          "5f6964c2af69735f72656d6f74655f6672616d65c2ae69735f"
                                                          "6572726f725f6672616d65c2a76368616e6e656cc0a3646c63"
                                                          "03a464617461c403010203a569735f6664c2ae626974726174"
                                                          "655f737769746368c2b56572726f725f73746174655f696e64"
                                                          "696361746f72c2"));
  CanFrame frame = make_frame(0x1ABCDEF0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  frame.is_extended = frame.is_fd = frame.is_bit_rate_switched = true;
  CHECK(encoded(frame, 1'700'000'000.25) == from_hex("8ba974696d657374616d70cb41d954fc40100000ae6172626974726"
                                                     "174696f6e5f6964ce1abcdef0ae69735f657874656e64"
                                                     "65645f6964c3af69735f72656d6f74655f6672616d65c2ae69735f6"
                                                     "572726f725f6672616d65c2a76368616e6e656cc0a364"
                                                     "6c630ca464617461c40c000102030405060708090a0ba569735f666"
                                                     "4c3ae626974726174655f737769746368c3b56572726f"
                                                     "725f73746174655f696e64696361746f72c2"));
}

TEST(can_message_reads_every_width_and_order) {
  CanFrame frame;
  // {"data": bin16 "AB", "arbitration_id": uint64 5, "is_extended_id": false, "dlc": int8 1}, map16
  CHECK(decode_can_message(from_hex("de0004a464617461c50001abae6172626974726174696f6e5f6964cf0000000000000005"
                                    "ae69735f657874656e6465645f6964c2a3646c63d001"),
                           frame));
  CHECK(is_same(frame, make_frame(5, {0xAB})));
  // {"arbitration_id": 1}: extended and empty, as python-can's defaults say
  CHECK(decode_can_message(from_hex("81ae6172626974726174696f6e5f696401"), frame));
  CHECK(frame.is_extended && frame.id == 1 && frame.size == 0);
  for (const char* bad :
       {"", "c0", "90", "8b", "81", "81a3646c63", "81a3646c6301",  // no map, cut short, length without data
        "81ae6172626974726174696f6e5f6964ff",                      // id -1
        "81ae6172626974726174696f6e5f6964ce20000000",              // id of 30 bits
        "82ae6172626974726174696f6e5f6964cd0800ae69735f657874656e6465645f6964c2",  // 12 bits, not extended
        "81af69735f72656d6f74655f6672616d65c3", "81ae69735f6572726f725f6672616d65c3",  // remote, error
        "81a7756e6b6e6f776ec0", "80c0", "81a464617461c409010203040506070809",  // unknown, left over, 9 bytes
        "81a464617461c6ffffffff00", "81a46461746190", "dfffffffff"})           // longer than it is, a list
    CHECK(!decode_can_message(from_hex(bad), frame));
}

// fixed seed; half of the messages are valid ones, the other half such with up to three bytes changed
TEST(can_message_survives_ten_thousand_datagrams) {
  std::mt19937_64 random(7);
  const auto below = [&random](std::uint64_t bound) { return random() % bound; };
  int num_valid = 0;
  for (int i = 0; i < 10'000; ++i) {
    CanFrame frame;
    frame.is_extended = below(2) != 0;
    frame.is_fd = below(2) != 0;
    frame.is_bit_rate_switched = frame.is_fd && below(2) != 0;
    frame.id = static_cast<std::uint32_t>(below(frame.is_extended ? 0x2000'0000 : 0x800));
    frame.size = kCanSizes[below(frame.is_fd ? 16 : 9)];
    for (std::size_t k = 0; k < frame.size; ++k) frame.data[k] = static_cast<std::uint8_t>(random());
    Bytes message = encoded(frame, static_cast<double>(random()));
    CanFrame read;
    REQUIRE(decode_can_message(message, read));
    REQUIRE(is_same(read, frame));
    if (i % 2 == 0) continue;
    for (std::uint64_t changes = 1 + below(3); changes > 0 && !message.empty(); --changes) {
      const auto at = static_cast<std::ptrdiff_t>(below(message.size()));
      switch (below(3)) {
        case 0:
          message[static_cast<std::size_t>(at)] = static_cast<std::uint8_t>(random());
          break;
        case 1:
          message.erase(message.begin() + at);
          break;
        default:
          message.insert(message.begin() + at, static_cast<std::uint8_t>(random()));
      }
    }
    // a buffer of exactly its size: a byte read too far is found by the address sanitizer
    const Bytes exact(message);
    const CanFrame untouched = make_frame(0x321, {1});
    CanFrame mutated = untouched;
    if (decode_can_message(exact, mutated)) {
      ++num_valid;
      REQUIRE(is_valid(mutated));
    } else {
      REQUIRE(is_same(mutated, untouched));
    }
  }

  CHECK(num_valid > 50 && num_valid < 4900);  // the mutations reach both answers
}

}  // namespace
}  // namespace wallx::test
