// SerialBus: termios2 for free baud rates, flock for exclusive use, ppoll for deadlines.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/serial_bus.hpp"

// asm/termbits.h instead of termios.h: only the kernel's header has termios2, and the two cannot meet
#include <asm/termbits.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/serial.h>
#include <linux/tty_flags.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/errors.hpp"
#include "drivers/buses/poll.hpp"

namespace wallx {
namespace {

// pid of the process that holds the flock on the device, 0 when the kernel does not tell
int find_lock_holder(const struct stat& device) {
  std::FILE* locks = std::fopen("/proc/locks", "re");
  if (!locks) return 0;
  char line[256];
  int holder = 0;
  while (holder == 0 && std::fgets(line, sizeof line, locks)) {
    int pid = 0;
    unsigned major_number = 0, minor_number = 0;
    std::uintmax_t inode = 0;
    if (std::sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%" SCNuMAX, &pid, &major_number, &minor_number,
                    &inode) == 4 &&
        major_number == major(device.st_dev) && minor_number == minor(device.st_dev) &&
        inode == device.st_ino)
      holder = pid;
  }
  std::fclose(locks);
  return holder;
}

// pid of a process that has the device open, 0 when none may be looked at: finds programs that take no flock
int find_user(const struct stat& device) {
  DIR* processes = ::opendir("/proc");
  if (!processes) return 0;
  int user = 0;
  while (const dirent* process = user == 0 ? ::readdir(processes) : nullptr) {
    const int pid = std::atoi(process->d_name);
    if (pid <= 0 || pid == ::getpid()) continue;
    const std::string folder = std::string("/proc/") + process->d_name + "/fd";
    DIR* files = ::opendir(folder.c_str());
    if (!files) continue;
    while (const dirent* file = ::readdir(files)) {
      struct stat opened{};
      if (::stat((folder + "/" + file->d_name).c_str(), &opened) == 0 && S_ISCHR(opened.st_mode) &&
          opened.st_rdev == device.st_rdev && opened.st_ino == device.st_ino &&
          opened.st_dev == device.st_dev) {
        user = pid;
        break;
      }
    }
    ::closedir(files);
  }
  ::closedir(processes);
  return user;
}

[[noreturn]] void throw_busy(const std::string& port) {
  struct stat device{};
  int pid = 0;
  if (::stat(port.c_str(), &device) == 0) {
    pid = find_lock_holder(device);
    if (pid == 0) pid = find_user(device);
  }
  std::string message = "serial port " + port + " is in use";
  if (pid == ::getpid())
    message += " by this process (pid " + std::to_string(pid) + "); disconnect the other robot first";
  else if (pid > 0)
    message += " by process " + std::to_string(pid) + "; stop that program first";
  else
    message += " by another program; stop it first (`fuser " + port + "` may name it)";
  throw BusError(message);
}

[[noreturn]] void throw_errno(const std::string& port, const std::string& what, int error) {
  std::string message = "serial port " + port + ": " + what + ": " + std::strerror(error);
  if (error == ENOENT) message += "; is the adapter plugged in? `ls /dev/serial/by-id` lists what is there";
  if (error == EACCES || error == EPERM)
    message += "; add the user to the device's group (`ls -l " + port + "`, often `dialout`)";
  throw BusError(message);
}

}  // namespace

SerialBus::SerialBus(std::string port, int baud_rate, int descriptor)
    : port_(std::move(port)), baud_rate_(baud_rate), inherited_(descriptor) {
  if (baud_rate < kMinBaudRate || baud_rate > kMaxBaudRate)
    throw ConfigError("baud rate of " + port_ + " is " + std::to_string(baud_rate) + ", must be " +
                      std::to_string(kMinBaudRate) + ".." + std::to_string(kMaxBaudRate) +
                      " bit/s; set it in the robot's file");
}

void SerialBus::open() {
  if (is_open()) throw BusError("serial port " + port_ + " is already open; close it first");
  if (inherited_ >= 0) {
    fd_ = inherited_;
    return;
  }
  const int fd = ::open(port_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    if (errno == EBUSY) throw_busy(port_);
    throw_errno(port_, "cannot open", errno);
  }
  bool is_taken = false;
  try {
    take(fd);
    is_taken = true;
    configure(fd);
  } catch (...) {
    if (is_taken) {
      ::ioctl(fd, TIOCNXCL);
      ::flock(fd, LOCK_UN);
    }
    ::close(fd);
    throw;
  }
  fd_ = fd;
}

void SerialBus::take(int fd) const {
  termios2 settings{};
  if (::ioctl(fd, TCGETS2, &settings) != 0) {
    if (errno == ENOTTY) throw BusError(port_ + " is not a serial device; give a path like /dev/ttyACM0");
    throw_errno(port_, "cannot read its settings", errno);
  }
  // flock first: TIOCEXCL does not stop root, and a lock that was refused must leave the device untouched
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) throw_busy(port_);
    throw_errno(port_, "cannot lock", errno);
  }
  if (::ioctl(fd, TIOCEXCL) != 0) {
    const int error = errno;
    ::flock(fd, LOCK_UN);
    throw_errno(port_, "cannot take exclusively", error);
  }
}

void SerialBus::configure(int fd) const {
  termios2 settings{};
  if (::ioctl(fd, TCGETS2, &settings) != 0) throw_errno(port_, "cannot read its settings", errno);
  settings.c_iflag = 0;
  settings.c_oflag = 0;
  settings.c_lflag = 0;
  // no HUPCL: closing must not toggle DTR, which resets some adapters
  settings.c_cflag = CS8 | CREAD | CLOCAL | BOTHER | (BOTHER << IBSHIFT);
  settings.c_ispeed = settings.c_ospeed = static_cast<speed_t>(baud_rate_);
  settings.c_cc[VMIN] = 1;  // with 0, "nothing there" would read like a hang-up
  settings.c_cc[VTIME] = 0;
  if (::ioctl(fd, TCSETS2, &settings) != 0)
    throw_errno(port_, "cannot set " + std::to_string(baud_rate_) + " bit/s 8N1", errno);

  termios2 actual{};
  if (::ioctl(fd, TCGETS2, &actual) != 0) throw_errno(port_, "cannot read its settings", errno);
  // a UART tolerates about 2 % between the two ends
  const auto wanted = static_cast<double>(baud_rate_);
  if (std::abs(static_cast<double>(actual.c_ospeed) - wanted) > 0.02 * wanted)
    throw BusError("serial port " + port_ + " cannot do " + std::to_string(baud_rate_) +
                   " bit/s, the nearest is " + std::to_string(actual.c_ospeed) +
                   "; use another adapter or set the servos to that rate");

  // USB adapters collect bytes for up to 16 ms without this flag; where there is no such flag there is no
  // such wait
  serial_struct serial{};
  if (::ioctl(fd, TIOCGSERIAL, &serial) == 0) {
    serial.flags |= ASYNC_LOW_LATENCY;
    (void)::ioctl(fd, TIOCSSERIAL, &serial);
  }
  if (::ioctl(fd, TCFLSH, TCIOFLUSH) != 0) throw_errno(port_, "cannot flush", errno);
}

void SerialBus::close() noexcept {
  if (fd_ < 0) return;
  if (inherited_ >= 0) {
    fd_ = -1;
    return;
  }
  // said explicitly: a pty outlives its slave's last close, and a forked child shares the lock
  ::ioctl(fd_, TIOCNXCL);
  ::flock(fd_, LOCK_UN);
  ::close(fd_);
  fd_ = -1;
}

Result SerialBus::transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept {
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
    if (count > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return {.code = ErrorCode::bus_closed, .detail = errno};
    if (const Result waited = wait_for(fd_, POLLOUT, deadline); !waited.ok()) return waited;
  }
  return {};
}

Result SerialBus::receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                          std::size_t& received) noexcept {
  received = 0;
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  if (buffer.empty()) return {.code = ErrorCode::out_of_range};
  while (true) {
    const ssize_t count = ::read(fd_, buffer.data(), buffer.size());
    if (count > 0) {
      received = static_cast<std::size_t>(count);
      return {};
    }
    if (count == 0) return {.code = ErrorCode::bus_closed};
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return {.code = ErrorCode::bus_closed, .detail = errno};
    if (const Result waited = wait_for(fd_, POLLIN, deadline); !waited.ok()) return waited;
  }
}

Result SerialBus::discard_input() noexcept {
  if (fd_ < 0) return {.code = ErrorCode::bus_closed};
  // reads, not TCFLSH: a read also waits for bytes that the kernel has taken but not yet queued. Bounded, so
  // that a line that never falls silent cannot keep the loop here; what is left then fails the next answer's
  // checks
  std::uint8_t dropped[1024];
  for (int i = 0; i < 16;) {
    const ssize_t count = ::read(fd_, dropped, sizeof dropped);
    if (count == 0) return {.code = ErrorCode::bus_closed};
    if (count < 0 && errno == EAGAIN) return {};
    if (count < 0 && errno != EINTR) return {.code = ErrorCode::bus_closed, .detail = errno};
    if (count > 0) ++i;
  }
  return {};
}

}  // namespace wallx
