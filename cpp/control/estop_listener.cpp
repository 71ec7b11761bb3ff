// EstopListener: one poll over all sources.
// SPDX-License-Identifier: Apache-2.0
#include "control/estop_listener.hpp"

#include <fcntl.h>
#include <linux/gpio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "base/errors.hpp"
#include "control/estop.hpp"

namespace wallx {
namespace {

constexpr unsigned kDebounceUs = 2000;

[[noreturn]] void fail(const std::string& what, int error, const char* fix) {
  throw DeviceError("e-stop: " + what + ": " + std::strerror(error) + "; " + fix);
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw ConfigError("e-stop: the socket's path '" + path + "' has " + std::to_string(path.size()) +
                      " bytes, must have 1.." + std::to_string(sizeof address.sun_path - 1) +
                      "; set XDG_RUNTIME_DIR to a shorter one");
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int make_socket() {
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) fail("no socket", errno, "close other programs");
  return socket;
}

bool connects(const sockaddr_un& address) {
  const int socket = make_socket();
  const bool is_served = ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(socket);
  return is_served;
}

// false: the other end is gone
bool is_alive(ssize_t count) noexcept {
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

// what is there, thrown away; false: the other end is gone
bool drain(int descriptor) noexcept {
  char bytes[4096];
  return is_alive(::read(descriptor, bytes, sizeof bytes));
}

}  // namespace

bool EstopKeys::is_estop(char key) noexcept {
  const bool is_typing = length_ > 0;
  const bool is_space = key == ' ';
  if (key == '\r' || key == '\n' || key == '\x1b')
    length_ = 0;
  else if (key == '\x7f' || key == '\b')
    length_ -= is_typing;
  else if ((is_typing || key == '/') && (key & 0xc0) != 0x80)  // the first byte of a letter
    length_ += length_ < 100000;
  const bool is_second = is_space && was_space_;
  was_space_ = is_space;
  return is_space && (!is_typing || is_second);
}

EstopListener::EstopListener(const EstopSources& sources) : sources_(sources) {
  try {
    wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_ < 0) fail("no event descriptor", errno, "close other programs");
    if (!sources_.socket.empty()) open_socket();
    line_ = sources_.line_descriptor;
    if (!sources_.gpio_chip.empty()) open_line();
    // signals belong to the other threads
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw DeviceError(std::string("e-stop: no thread to listen: ") + error.what());
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  } catch (...) {
    close_all();
    throw;
  }
}

EstopListener::~EstopListener() {
  const std::uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof one);
  thread_.join();
  close_all();
}

void EstopListener::open_socket() {
  const sockaddr_un address = address_of(sources_.socket);
  if (connects(address))
    throw ConfigError("e-stop: another program listens on " + sources_.socket +
                      "; stop it first: one program drives a robot");
  ::unlink(sources_.socket.c_str());  // of one that died
  socket_ = make_socket();
  // before bind: there must be no moment at which others may write
  if (::fchmod(socket_, 0600) != 0) fail("cannot protect the socket", errno, "check the file system");
  if (::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("cannot listen on " + sources_.socket, errno, "check that its folder exists and is this user's");
}

void EstopListener::open_line() {
  const char* const fix =
      "check gpio_chip and gpio_line under [estop] of the robot's file, and the permissions";
  const int chip = ::open(sources_.gpio_chip.c_str(), O_RDONLY | O_CLOEXEC);
  if (chip < 0) fail("cannot open " + sources_.gpio_chip, errno, fix);
  gpio_v2_line_request request{};
  request.offsets[0] = static_cast<__u32>(sources_.gpio_line);
  request.num_lines = 1;
  std::strncpy(request.consumer, "wallx-edge e-stop", sizeof request.consumer - 1);
  request.config.flags = GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING;  // active: pressed
  if (sources_.is_active_low)
    request.config.flags |= GPIO_V2_LINE_FLAG_ACTIVE_LOW | GPIO_V2_LINE_FLAG_BIAS_PULL_UP;
  request.config.num_attrs = 1;
  request.config.attrs[0].mask = 1;
  request.config.attrs[0].attr.id = GPIO_V2_LINE_ATTR_ID_DEBOUNCE;
  request.config.attrs[0].attr.debounce_period_us = kDebounceUs;
  const int outcome = ::ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request);
  const int error = errno;
  ::close(chip);
  if (outcome != 0)
    fail("cannot take line " + std::to_string(sources_.gpio_line) + " of " + sources_.gpio_chip, error, fix);
  line_ = request.fd;
  has_line_ = true;
  if (is_pressed()) estop_all();
}

bool EstopListener::is_pressed() const noexcept {
  if (is_line_lost_.load(std::memory_order_acquire)) return true;
  if (!has_line_) return false;
  gpio_v2_line_values values{.bits = 0, .mask = 1};
  return ::ioctl(line_, GPIO_V2_LINE_GET_VALUES_IOCTL, &values) != 0 || (values.bits & 1) != 0;
}

void EstopListener::close_all() noexcept {
  if (socket_ >= 0) {
    ::close(socket_);
    ::unlink(sources_.socket.c_str());
  }
  if (has_line_) ::close(line_);
  if (wake_ >= 0) ::close(wake_);
}

void EstopListener::run() noexcept {
  pollfd polls[] = {{wake_, POLLIN, 0},
                    {socket_, POLLIN, 0},
                    {line_, POLLIN, 0},
                    {sources_.key_descriptor, POLLIN, 0}};  // poll() ignores -1
  auto& [wake, socket, line, key] = polls;
  while (true) {
    if (::poll(polls, std::size(polls), -1) < 0) continue;
    if (wake.revents) return;
    if (socket.revents) {
      (void)drain(socket_);
      estop_all();
    }
    if (line.revents) {
      if (!drain(line_)) {
        is_line_lost_.store(true, std::memory_order_release);
        line.fd = -1;  // a cut wire: once is enough
      }
      estop_all();
    }
    if (key.revents && !take_keys()) key.fd = -1;
  }
}

// false: the terminal is gone
bool EstopListener::take_keys() noexcept {
  char bytes[256];
  const ssize_t count = ::read(sources_.key_descriptor, bytes, sizeof bytes);
  for (ssize_t i = 0; i < count; ++i)
    if (keys_.is_estop(bytes[i])) estop_all();
  // a program that does not read loses keys, never the e-stop
  if (count > 0 && sources_.key_sink >= 0)
    (void)!::send(sources_.key_sink, bytes, static_cast<std::size_t>(count), MSG_DONTWAIT | MSG_NOSIGNAL);
  return is_alive(count);
}

void send_estop(const std::string& path) {
  const sockaddr_un address = address_of(path);
  const int socket = make_socket();
  const char byte = 'e';
  const ssize_t sent =
      ::sendto(socket, &byte, 1, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(socket);
  // a full queue is full of e-stops
  if (sent != 1 && error != EAGAIN)
    fail("nobody listens on " + path, error, "the robot is not connected, or it is another user's");
}

}  // namespace wallx
