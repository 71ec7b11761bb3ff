// Pty: a pseudo-terminal, whose slave is the serial device under test.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "contract/bus_contract.hpp"

namespace wallx::test {

class Pty {
 public:
  Pty() : master_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    REQUIRE(master_ >= 0 && ::grantpt(master_) == 0 && ::unlockpt(master_) == 0);
    slave_ = ::ptsname(master_);
  }
  ~Pty() { hang_up(); }
  Pty(const Pty&) = delete;
  Pty& operator=(const Pty&) = delete;

  int master() const { return master_; }
  const std::string& slave() const { return slave_; }
  void hang_up() {
    if (master_ >= 0) ::close(master_);
    master_ = -1;
  }

  void write(const Bytes& bytes) {
    CHECK_EQ(::write(master_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  // Waits for something; nothing within 20 s fails the test.
  Bytes read_some() {
    pollfd poll{.fd = master_, .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&poll, 1, 20'000) == 1);
    std::uint8_t buffer[512];
    const ssize_t received = ::read(master_, buffer, sizeof buffer);
    REQUIRE(received > 0);
    return {buffer, buffer + received};
  }

 private:
  int master_;
  std::string slave_;
};

}  // namespace wallx::test
