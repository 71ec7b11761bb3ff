// SocketCanBus keeps the CAN bus contract in a real kernel: `make test-can` runs this as root with the
// interfaces of tests/can_vm/guest. SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/socketcan_bus.hpp"

#include <fcntl.h>
#include <linux/can.h>
#include <linux/can/error.h>
#include <linux/can/raw.h>
#include <linux/tty.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "contract/can_bus_contract.hpp"

namespace wallx::test {
namespace {

constexpr char kFd[] = "vcan0";
constexpr char kClassic[] = "vcan1";

void set_up(const std::string& interface, bool is_up) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  REQUIRE(::ioctl(fd, SIOCGIFFLAGS, &request) == 0);
  request.ifr_flags = static_cast<short>(is_up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  REQUIRE(::ioctl(fd, SIOCSIFFLAGS, &request) == 0);
  ::close(fd);
}

// two ends of one wire; `far` may be the same interface, whose sockets hear each other
class KernelLine final : public CanLineUnderTest {
 public:
  KernelLine(std::string near, std::string far, int data_bit_rate)
      : near_name_(std::move(near)),
        near_({.port = near_name_, .data_bit_rate = data_bit_rate}),
        far_({.port = std::move(far), .data_bit_rate = data_bit_rate}) {
    set_up(near_name_, true);
    far_.open();
  }
  ~KernelLine() override { set_up(near_name_, true); }
  CanBus& bus() override { return near_; }
  std::unique_ptr<CanBus> make_classic() override {
    return std::make_unique<SocketCanBus>(BusConfig{.port = near_name_});
  }
  void write_far(const Frames& frames) override { CHECK(far_.transmit(frames, can_patient()).ok()); }
  Frames read_far(std::size_t count) override { return receive_frames(far_, count); }
  void hang_up() override { set_up(near_name_, false); }

 private:
  const std::string near_name_;
  SocketCanBus near_, far_;
};

std::unique_ptr<CanLineUnderTest> make_vcan() { return std::make_unique<KernelLine>(kFd, kFd, 5'000'000); }
CAN_BUS_CONTRACT(vcan, make_vcan)
CAN_BUS_HANG_UP_CONTRACT(vcan, make_vcan)

// two emulated adapters on one wire, which carry classic frames: a controller's driver. Their chip keeps five
// frames that nobody has fetched, so bursts are for the virtual interface
std::unique_ptr<CanLineUnderTest> make_adapters() { return std::make_unique<KernelLine>("can0", "can1", 0); }
CAN_BUS_PROMISE(adapters, make_adapters, does_not_hear_itself)
CAN_BUS_PROMISE(adapters, make_adapters, stamps_what_it_receives)
CAN_BUS_PROMISE(adapters, make_adapters, wakes_up_for_frames_that_come_while_it_waits)
CAN_BUS_PROMISE(adapters, make_adapters, says_bus_closed_when_the_far_end_is_gone)

TEST(adapters_carry_every_classic_frame_both_ways) {
  const auto line = make_adapters();
  line->bus().open();
  for (const CanFrame& frame : every_kind_of_frame()) {
    if (frame.is_fd) continue;
    CHECK(line->bus().transmit({&frame, 1}, can_patient()).ok());
    CHECK(is_same(line->read_far(1), {frame}));
    line->write_far({frame});
    CHECK(is_same(receive_frames(line->bus(), 1), {frame}));
  }
}

// writes an error frame to the interface, which sockets on a virtual one hear like a controller's
void report_error(std::uint32_t error_class) {
  const int fd = ::socket(PF_CAN, SOCK_RAW | SOCK_CLOEXEC, CAN_RAW);
  sockaddr_can address{};
  address.can_family = AF_CAN;
  address.can_ifindex = static_cast<int>(::if_nametoindex(kFd));
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  can_frame frame{};
  frame.can_id = CAN_ERR_FLAG | error_class;
  frame.len = CAN_ERR_DLC;
  CHECK_EQ(::write(fd, &frame, sizeof frame), static_cast<ssize_t>(sizeof frame));
  ::close(fd);
}

TEST(socketcan_bus_off_closes_the_bus_until_it_is_opened_again) {
  for (const std::uint32_t what : {CAN_ERR_BUSOFF, CAN_ERR_RESTARTED}) {
    SocketCanBus bus({.port = kFd}), far({.port = kFd});
    bus.open();
    far.open();
    CHECK(far.transmit(Frames{make_frame(1, {})}, can_patient()).ok());
    report_error(what);
    CHECK(far.transmit(Frames{make_frame(2, {})}, can_patient()).ok());
    // what arrived before counts; nothing after it does, though the kernel goes on
    CHECK_EQ(receive_frames(bus, 1).size(), 1u);
    CanFrame frame;
    std::size_t received = 0;
    for (int i = 0; i < 2; ++i) {
      const Result result = bus.receive({&frame, 1}, can_patient(), received);
      CHECK(result.code == ErrorCode::bus_closed && result.detail == kBusOff);
      CHECK(bus.transmit(Frames{make_frame(3, {})}, can_patient()).detail == kBusOff);
      CHECK(bus.discard_input().code == ErrorCode::bus_closed);
    }
    bus.close();
    bus.open();
    CHECK(far.transmit(Frames{make_frame(4, {})}, can_patient()).ok());
    CHECK_EQ(receive_frames(bus, 1)[0].id, 4u);
  }
}

TEST(socketcan_ignores_and_counts_other_error_and_remote_frames) {
  SocketCanBus bus({.port = kFd}), far({.port = kFd});
  bus.open();
  far.open();
  report_error(CAN_ERR_CRTL);
  const int fd = ::socket(PF_CAN, SOCK_RAW | SOCK_CLOEXEC, CAN_RAW);
  sockaddr_can address{};
  address.can_family = AF_CAN;
  address.can_ifindex = static_cast<int>(::if_nametoindex(kFd));
  CHECK_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  can_frame remote{};
  remote.can_id = CAN_RTR_FLAG | 5;
  CHECK_EQ(::write(fd, &remote, sizeof remote), static_cast<ssize_t>(sizeof remote));
  ::close(fd);
  CHECK(far.transmit(Frames{make_frame(6, {})}, can_patient()).ok());
  CHECK_EQ(receive_frames(bus, 1)[0].id, 6u);
  CHECK_EQ(bus.num_ignored(), 2u);
}

TEST(socketcan_keeps_the_time_a_frame_waited) {
  SocketCanBus bus({.port = kFd}), far({.port = kFd});
  bus.open();
  far.open();
  CHECK(far.transmit(Frames{make_frame(1, {})}, can_patient()).ok());
  const TimePoint sent = Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the frame waits meanwhile: that is the test
  CHECK(receive_frames(bus, 1)[0].received_at <= sent + std::chrono::milliseconds(5));
}

TEST(socketcan_says_why_it_cannot_open) {
  SocketCanBus absent({.port = "no-such-can"});
  CHECK_THROWS(absent.open(), BusError,
               "CAN interface no-such-can: cannot be found: No such device; `ip link`");
  SocketCanBus classic({.port = kClassic, .data_bit_rate = 5'000'000});
  CHECK_THROWS(classic.open(), BusError, "vcan1 is not in FD mode");
  set_up(kClassic, false);
  SocketCanBus down({.port = kClassic});
  CHECK_THROWS(down.open(), BusError, "vcan1 is down; bring it up: ip link set vcan1 up");
  set_up(kClassic, true);
  SocketCanBus other_rate({.port = "can0", .bit_rate = 500'000});
  CHECK_THROWS(other_rate.open(), BusError,
               "can0 runs with a bit_rate of 1000000 bit/s, the robot's file says 500000");
  CHECK_THROWS(SocketCanBus({.port = "a-name-far-too-long"}), ConfigError,
               "must be a network interface of 1..15");
  CHECK_THROWS(SocketCanBus({.port = ""}), ConfigError, "''");
  CHECK(!absent.is_open() && !classic.is_open() && !down.is_open());
}

// the kernel's own slcan, on a line that nobody reads: its queue fills, and poll does not tell
TEST(socketcan_gives_up_at_the_deadline_when_the_queue_stays_full) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(master >= 0 && ::grantpt(master) == 0 && ::unlockpt(master) == 0);
  const int slave = ::open(::ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  const int discipline = N_SLCAN;
  REQUIRE(::ioctl(slave, TIOCSETD, &discipline) == 0);
  ifreq request{};
  REQUIRE(::ioctl(slave, SIOCGIFNAME, &request) == 0);
  const std::string interface = request.ifr_name;
  set_up(interface, true);
  SocketCanBus bus({.port = interface});
  bus.open();
  const Frames block(64, make_frame(0x55, {1, 2, 3, 4, 5, 6, 7, 8}));
  Result result;
  TimePoint deadline;
  for (int i = 0; i < 1000 && result.ok(); ++i) {
    deadline = Clock::now() + std::chrono::milliseconds(20);
    result = bus.transmit(block, deadline);
  }
  CHECK(result.code == ErrorCode::timeout);
  CHECK(Clock::now() >= deadline - std::chrono::milliseconds(1));
  CHECK(bus.is_open());
  // unplugged: the interface goes away under the bus
  ::close(slave);
  ::close(master);
  CanFrame frame;
  std::size_t received = 0;
  CHECK(bus.receive({&frame, 1}, can_patient(), received).code == ErrorCode::bus_closed);
}

}  // namespace
}  // namespace wallx::test
