// Host: the emulated arm behind a pseudo-terminal: answers, outlives its users, logs, stops cleanly.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/errors.hpp"
#include "check.hpp"
#include "emulator/pty_host.hpp"
#include "line.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {

struct Folder {
  Folder() {
    char name[] = "/tmp/emulator_test_XXXXXX";
    REQUIRE(::mkdtemp(name));
    path = name;
  }
  ~Folder() {
    for (const char* name : {"/log.jsonl", "/port"}) ::unlink((path + name).c_str());
    ::rmdir(path.c_str());
  }
  std::string path;
};

struct Port {
  explicit Port(const std::string& path) : file(::open(path.c_str(), O_RDWR | O_NOCTTY)) {
    REQUIRE(file >= 0);
  }
  ~Port() { ::close(file); }
  // waits for `size` bytes of answer, at most 5 s: an upper bound against a hang, not a promise
  std::string exchange(const std::string& request, std::size_t size) {
    const Bytes bytes = hex(request);
    REQUIRE(::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    Bytes answer;
    pollfd poll_file{file, POLLIN, 0};
    while (answer.size() < size && ::poll(&poll_file, 1, 5000) > 0) {
      std::uint8_t buffer[64];
      const ssize_t count = ::read(file, buffer, sizeof buffer);
      if (count <= 0) break;
      answer.insert(answer.end(), buffer, buffer + count);
    }
    return show(answer);
  }
  int file;
};

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST(host_answers_through_the_terminal_and_survives_a_reopen) {
  PtyHost host("feetech_sts", plain_servos(2), {}, {});
  for (int round = 0; round < 3; ++round) {
    Port port(host.port());
    CHECK_EQ(port.exchange("FF FF 01 02 01 FB", 6), "FF FF 01 02 00 FC");
    CHECK_EQ(port.exchange("FF FF 02 02 01 FA", 6), "FF FF 02 02 00 FB");
  }
  host.stop();
  host.stop();
  CHECK(::open(host.port().c_str(), O_RDWR | O_NOCTTY) < 0);
}

TEST(host_makes_and_removes_its_link) {
  Folder folder;
  const std::string link = folder.path + "/port";
  {
    PtyHost host("feetech_sts", plain_servos(1), {}, {link, ""});
    Port port(link);
    CHECK_EQ(port.exchange("FF FF 01 02 01 FB", 6), "FF FF 01 02 00 FC");
  }
  struct stat status;
  CHECK(::lstat(link.c_str(), &status) != 0);
  std::ofstream(link) << "someone's file";
  CHECK_THROWS(PtyHost("feetech_sts", plain_servos(1), {}, {link, ""}), DeviceError, "not a link");
  CHECK_EQ(lines_of(link).size(), 1u);
  CHECK_THROWS(PtyHost("feetech_sts", plain_servos(1), {}, {"", folder.path + "/absent/log"}), DeviceError,
               "absent/log");
}

TEST(host_writes_what_it_received_and_did) {
  Folder folder;
  const std::string log = folder.path + "/log.jsonl";
  {
    PtyHost host("feetech_sts", plain_servos(2), {}, {"", log});
    Port port(host.port());
    port.exchange("FF FF FE 0A 83 2A 02 01 00 08 02 00 04 39", 0);
    port.exchange("FF FF 01 04 03 28 01 CE", 6);
    host.with_bus([](SerialLine& bus) { bus.set_fault(FaultKind::drop, 2, 1); });
    port.exchange("FF FF FE 06 82 38 02 01 02 3C", 8);
  }
  const std::vector<std::string> lines = lines_of(log);
  REQUIRE(lines.size() > 5);
  CHECK(lines.front().find("\"kind\":\"start\"") != std::string::npos);
  CHECK(lines.back().find("\"kind\":\"end\"") != std::string::npos);
  CHECK(lines.back().find("\"sync_writes\":1,") != std::string::npos);
  const auto contains = [&](const char* text) {
    for (const std::string& line : lines) {
      if (line.find(text) != std::string::npos) return true;
    }
    return false;
  };
  CHECK(
      contains("\"name\":\"sync_write\",\"instruction\":131,\"ids\":[1,2],\"address\":42,\"length\":2,"
               "\"data\":\"00080004\",\"goals\":{\"1\":2048,\"2\":1024}"));
  CHECK(
      contains("\"name\":\"write\",\"instruction\":3,\"ids\":[1],\"address\":40,\"length\":1,\"data\":\"01\","
               "\"torque\":{\"1\":1}"));
  CHECK(contains("\"name\":\"sync_read\",\"instruction\":130,\"ids\":[1,2],\"address\":56,\"length\":2}"));
  CHECK(contains("\"fault\":\"drop\",\"action\":\"set\",\"id\":2,\"value\":1}"));
  CHECK(contains("\"fault\":\"drop\",\"action\":\"hit\",\"id\":2"));
  CHECK(contains("\"kind\":\"state\",\"position\":[2048,2048],\"goal\":[2048,2048],\"torque\":[0,0]"));
}

TEST(quotes_json_text) { CHECK_EQ(quote_json("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\""); }

TEST(host_counts_answers_that_nobody_reads) {
  PtyHost host("feetech_sts", plain_servos(1), {}, {});
  Port port(host.port());
  // 92 answers of 134 bytes are three times what a terminal holds
  for (int i = 0; i < 92; ++i) {
    const Bytes read_all = hex("FF FF 01 04 02 00 80 78");
    REQUIRE(::write(port.file, read_all.data(), read_all.size()) == static_cast<ssize_t>(read_all.size()));
  }
  std::uint64_t sent = 0;
  while (sent < 92 * 134) {
    host.with_bus([&](SerialLine& bus) { sent = bus.counters().bytes_sent; });
    ::sched_yield();
  }
  CHECK(host.counters().output_lost > 0);
  Bytes rest(8192);
  const ssize_t held = ::read(port.file, rest.data(), rest.size());
  CHECK(held > 0 && held <= 4095);
}
