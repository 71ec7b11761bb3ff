// EstopListener: every source ends in the process's e-stop counter, and nothing else does.
// SPDX-License-Identifier: Apache-2.0
#include "control/estop_listener.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/errors.hpp"
#include "check.hpp"
#include "control/estop.hpp"

using namespace wallx;

namespace {

bool eventually_counts(std::uint32_t count) {
  for (int i = 0; i < 20000 && estop_count() < count; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return estop_count() == count;
}

struct Pair {
  Pair() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0); }
  ~Pair() {
    ::close(ends[0]);
    if (ends[1] >= 0) ::close(ends[1]);
  }
  void write(const char* text) { REQUIRE(::write(ends[1], text, std::strlen(text)) > 0); }
  void hang_up() {
    ::close(ends[1]);
    ends[1] = -1;
  }
  int ends[2];
};

std::string socket_path() { return "estop_test_" + std::to_string(::getpid()) + ".socket"; }

}  // namespace

TEST(a_datagram_is_an_estop) {
  const std::string path = socket_path();
  CHECK_THROWS(send_estop(path), DeviceError, "nobody listens");
  {
    const EstopListener listener({.socket = path});
    struct stat file{};
    REQUIRE(::stat(path.c_str(), &file) == 0);
    CHECK_EQ(file.st_mode & 0777, 0600u);  // this user's alone
    const std::uint32_t before = estop_count();
    send_estop(path);
    CHECK(eventually_counts(before + 1));
    send_estop(path);
    CHECK(eventually_counts(before + 2));
    CHECK_THROWS(EstopListener({.socket = path}), ConfigError, "another program listens");
    send_estop(path);
    CHECK(eventually_counts(before + 3));
  }
  CHECK_THROWS(send_estop(path), DeviceError, "nobody listens");
  CHECK_EQ(::access(path.c_str(), F_OK), -1);
}

TEST(a_socket_that_a_dead_program_left_is_replaced) {
  const std::string path = socket_path();
  std::ofstream(path) << "left behind";
  const EstopListener listener({.socket = path});
  const std::uint32_t before = estop_count();
  send_estop(path);
  CHECK(eventually_counts(before + 1));
}

TEST(a_line_that_is_pressed_or_lost_is_an_estop) {
  Pair line;
  const EstopListener listener({.line_descriptor = line.ends[0]});
  const std::uint32_t before = estop_count();
  line.write("an edge event");
  CHECK(eventually_counts(before + 1));
  CHECK(!listener.is_pressed());
  line.hang_up();
  CHECK(eventually_counts(before + 2));
  CHECK(listener.is_pressed());  // for good: nothing is reset on a cut wire
}

TEST(only_the_key_is_an_estop_and_a_lost_terminal_is_not) {
  Pair terminal, line;
  const EstopListener listener({.line_descriptor = line.ends[0], .key_descriptor = terminal.ends[0]});
  const std::uint32_t before = estop_count();
  terminal.write("abc\n");
  terminal.write("x y");
  CHECK(eventually_counts(before + 1));
  terminal.hang_up();
  line.write("x");  // what came before it was looked at too
  CHECK(eventually_counts(before + 2));
}

TEST(while_a_command_is_typed_two_spaces_are_the_estop) {
  const auto count = [](const char* typed) {
    EstopKeys keys;
    int stops = 0;
    for (const char* key = typed; *key; ++key) stops += keys.is_estop(*key);
    return stops;
  };
  CHECK_EQ(count("/subtask pick the cube\n"), 0);
  CHECK_EQ(count("/subtask pick the cube\n "), 1);
  CHECK_EQ(count("/subtask pick\x1b "), 1);
  CHECK_EQ(count("/subtask  "), 1);
  CHECK_EQ(count("/sub   "), 2);
  CHECK_EQ(count("/s\x7f\x7f "), 1);             // erased: no command is typed
  CHECK_EQ(count("\x7f\x7f/a b\r \r"), 1);       // erasing nothing is nothing
  CHECK_EQ(count("a / "), 1);                    // a letter alone begins no command
  CHECK_EQ(count("/\xe6\x8b\xbf\x7f\x7f "), 1);  // a letter of three bytes is one letter
  CHECK_EQ(count("a\n/b c"), 0);
}

TEST(keys_are_passed_on_and_a_full_sink_loses_keys_only) {
  Pair terminal, sink;
  const EstopListener listener({.key_descriptor = terminal.ends[0], .key_sink = sink.ends[0]});
  terminal.write("/ask why");
  char text[9]{};
  REQUIRE(::recv(sink.ends[1], text, 8, MSG_WAITALL) == 8);
  CHECK_EQ(std::string(text), "/ask why");
  for (int i = 0; i < 4096; ++i)
    terminal.write("0123456789012345678901234567890123456789012345678901234567890123");
  const std::uint32_t before = estop_count();
  terminal.write("\n ");
  CHECK(eventually_counts(before + 1));
}

TEST(sources_that_are_not_there_are_named) {
  CHECK_THROWS(EstopListener({.gpio_chip = "/dev/gpiochip_absent"}), DeviceError, "/dev/gpiochip_absent");
  CHECK_THROWS(EstopListener({.gpio_chip = "/dev/null"}), DeviceError, "line 0 of /dev/null");
  CHECK_THROWS(EstopListener({.socket = std::string(200, 'x')}), ConfigError, "200 bytes");
  CHECK_THROWS(EstopListener({.socket = "no/such/folder/x"}), DeviceError, "no/such/folder");
}
