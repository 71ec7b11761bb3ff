// SerialBus keeps the bus contract on a pseudo-terminal, takes its port for itself, and says why when it
// cannot. SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/serial_bus.hpp"

#include <asm/termbits.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "drivers/pty.hpp"

namespace wallx::test {
namespace {

class PtyLine final : public LineUnderTest {
 public:
  PtyLine() : bus_(pty_.slave(), 1'000'000) {}
  Bus& bus() override { return bus_; }
  void write_far(const Bytes& bytes) override { pty_.write(bytes); }
  Bytes read_far(std::size_t count) override {
    Bytes all;
    while (all.size() < count) {
      const Bytes some = pty_.read_some();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  void hang_up() override { pty_.hang_up(); }

 private:
  Pty pty_;
  SerialBus bus_;
};

std::unique_ptr<LineUnderTest> make_pty_line() { return std::make_unique<PtyLine>(); }

BUS_CONTRACT(serial, make_pty_line)

// whether the kernel lets nobody else in; root is let in nevertheless and can ask
bool is_exclusive(const std::string& port) {
  const int fd = ::open(port.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && errno == EBUSY) return true;
  int exclusive = 0;
  CHECK(fd >= 0 && ::ioctl(fd, TIOCGEXCL, &exclusive) == 0);
  ::close(fd);
  return exclusive != 0;
}

TEST(serial_sets_baud_rates_that_have_no_name) {
  for (const int baud_rate : {9600, 115'200, 250'000, 1'000'000, 1'234'567, 4'000'000}) {
    Pty pty;
    SerialBus bus(pty.slave(), baud_rate);
    bus.open();
    termios2 settings{};
    CHECK_EQ(::ioctl(pty.master(), TCGETS2, &settings), 0);
    CHECK_EQ(settings.c_ospeed, static_cast<speed_t>(baud_rate));
    CHECK_EQ(settings.c_ispeed, static_cast<speed_t>(baud_rate));
    CHECK_EQ(settings.c_cflag & (CSIZE | PARENB | CSTOPB | CRTSCTS | HUPCL), static_cast<tcflag_t>(CS8));
    CHECK_EQ(settings.c_lflag | settings.c_iflag | settings.c_oflag, 0u);
  }
}

TEST(serial_refuses_baud_rates_out_of_bounds) {
  CHECK_THROWS(SerialBus("/dev/null", 9599), ConfigError, "9599, must be 9600..4000000");
  CHECK_THROWS(SerialBus("/dev/null", 4'000'001), ConfigError, "4000001");
  CHECK_THROWS(SerialBus("/dev/null", -1), ConfigError, "-1");
}

TEST(serial_names_a_port_that_is_not_there) {
  SerialBus bus("/dev/wallx-no-such-port", 1'000'000);
  CHECK_THROWS(bus.open(), BusError, "/dev/wallx-no-such-port");
  CHECK(!bus.is_open());
}

TEST(serial_refuses_what_is_not_a_serial_device) {
  SerialBus bus("/dev/null", 1'000'000);
  CHECK_THROWS(bus.open(), BusError, "/dev/null is not a serial device");
  CHECK(!bus.is_open());
}

TEST(serial_second_open_in_this_process_names_port_and_pid) {
  Pty pty;
  SerialBus first(pty.slave(), 1'000'000);
  first.open();
  SerialBus second(pty.slave(), 115'200);
  CHECK_THROWS(second.open(), BusError, pty.slave().c_str());
  CHECK_THROWS(second.open(), BusError, ("pid " + std::to_string(::getpid())).c_str());
  CHECK(!second.is_open());
  // the refused one has touched nothing
  termios2 settings{};
  CHECK_EQ(::ioctl(pty.master(), TCGETS2, &settings), 0);
  CHECK_EQ(settings.c_ospeed, speed_t{1'000'000});
  CHECK(first.transmit(Bytes{1}, patient()).ok());
  first.close();
  second.open();
  CHECK(second.is_open());
}

TEST(serial_names_the_process_that_holds_the_port) {
  Pty pty;
  int ready[2], release[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0 && ::pipe2(release, O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  char byte = 0;
  if (child == 0) {
    ::close(release[1]);  // so that a parent that dies releases the child too
    SerialBus bus(pty.slave(), 1'000'000);
    try {
      bus.open();
      byte = 1;
    } catch (const BusError&) {
    }
    (void)!::write(ready[1], &byte, 1);
    (void)!::read(release[0], &byte, 1);
    ::_exit(0);
  }
  CHECK_EQ(::read(ready[0], &byte, 1), 1);
  CHECK_EQ(int{byte}, 1);
  SerialBus bus(pty.slave(), 1'000'000);
  CHECK_THROWS(bus.open(), BusError, ("in use by process " + std::to_string(child)).c_str());
  // a holder that dies without closing leaves the port free
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  bus.open();
  CHECK(bus.is_open());
  for (const int fd : {ready[0], ready[1], release[0], release[1]}) ::close(fd);
}

TEST(serial_shuts_others_out_until_it_closes) {
  Pty pty;
  SerialBus bus(pty.slave(), 1'000'000);
  bus.open();
  CHECK(is_exclusive(pty.slave()));
  bus.close();
  CHECK(!is_exclusive(pty.slave()));
}

}  // namespace
}  // namespace wallx::test
