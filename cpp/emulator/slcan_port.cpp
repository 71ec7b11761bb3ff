// CAN port as an slcan adapter: a pseudo-terminal, and the adapter's side of the text protocol.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/errors.hpp"
#include "emulator/can_port.hpp"

namespace wallx::emulator {
namespace {

constexpr std::size_t kLongestLine = 1 + 8 + 1 + 128;
constexpr std::size_t kTerminalSize = 4095;  // what a terminal's queue holds

[[noreturn]] void fail(const std::string& what) { throw DeviceError(what + ": " + std::strerror(errno)); }

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// -1: not a hexadecimal number
long number(std::string_view text) {
  long value = 0;
  for (const char c : text) {
    if (digit(c) < 0) return -1;
    value = value * 16 + digit(c);
  }
  return text.empty() ? -1 : value;
}

class SlcanPort final : public CanPort {
 public:
  explicit SlcanPort(const std::string& link) : link_(link) {
    try {
      open();
      make_link();
    } catch (...) {
      close();
      throw;
    }
  }
  ~SlcanPort() override { close(); }

  const std::string& name() const noexcept override { return name_; }
  int file() const noexcept override { return master_; }

  bool take(WireFrame& frame) noexcept override {
    for (;;) {
      while (next_ < size_) {
        const char c = input_[next_++];
        if (c != '\r') {
          if (line_size_ < sizeof line_) line_[line_size_] = c;
          ++line_size_;
          continue;
        }
        const std::size_t length = line_size_;
        line_size_ = 0;
        if (length > sizeof line_) {
          say("\a");
        } else if (obey({line_, length}, frame)) {
          return true;
        }
      }
      // what is there is asked for first: a read that finds nothing would wait for a kernel worker of normal
      // priority
      int available = 0;
      if (::ioctl(master_, FIONREAD, &available) != 0 || available <= 0) return false;
      const ssize_t count = ::read(master_, input_, sizeof input_);
      if (count <= 0) return false;
      next_ = 0;
      size_ = static_cast<std::size_t>(count);
    }
  }

  bool give(const WireFrame& frame) noexcept override {
    if (!is_open_ || frame.is_error) return false;  // the format has no error frames
    char text[kLongestLine + 1];
    std::size_t size = 0;
    const char plain = frame.is_fd ? (frame.is_fast ? 'b' : 'd') : 't';
    text[size++] = frame.is_extended ? static_cast<char>(plain - 'a' + 'A') : plain;
    constexpr char kDigits[] = "0123456789ABCDEF";
    for (int shift = frame.is_extended ? 28 : 8; shift >= 0; shift -= 4)
      text[size++] = kDigits[frame.id >> shift & 15];
    int code = 0;
    while (kSizes[code] < frame.size) ++code;
    text[size++] = kDigits[code];
    for (int i = 0; i < kSizes[code]; ++i) {
      text[size++] = kDigits[frame.data[static_cast<std::size_t>(i)] >> 4];
      text[size++] = kDigits[frame.data[static_cast<std::size_t>(i)] & 15];
    }
    text[size++] = '\r';
    return say({text, size});
  }

 private:
  static constexpr int kSizes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64};

  void open() {
    master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master_ < 0) fail("cannot open a pseudo-terminal");
    char path[128];
    if (::grantpt(master_) != 0 || ::unlockpt(master_) != 0 || ::ptsname_r(master_, path, sizeof path) != 0)
      fail("cannot set up the pseudo-terminal");
    name_ = path;
    slave_ = ::open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);  // kept open, so that the port outlives its users
    if (slave_ < 0) fail("cannot open the pseudo-terminal " + name_);
    termios settings;
    if (::tcgetattr(slave_, &settings) != 0) fail("cannot read the settings of " + name_);
    ::cfmakeraw(&settings);
    if (::tcsetattr(slave_, TCSANOW, &settings) != 0) fail("cannot set " + name_ + " to raw mode");
  }
  void make_link() {
    if (link_.empty()) return;
    struct stat status;
    if (::lstat(link_.c_str(), &status) == 0) {
      if (!S_ISLNK(status.st_mode))
        throw DeviceError(
            "the link " + link_ +
            " for the emulated port would replace something that is not a link; name another path");
      ::unlink(link_.c_str());
    }
    if (::symlink(name_.c_str(), link_.c_str()) != 0) fail("cannot make the link " + link_);
    has_link_ = true;
  }
  void close() noexcept {
    char target[128];
    const ssize_t size = has_link_ ? ::readlink(link_.c_str(), target, sizeof target) : 0;
    // only if it is still ours
    if (size > 0 && std::string_view(target, static_cast<std::size_t>(size)) == name_)
      ::unlink(link_.c_str());
    for (const int file : {slave_, master_})
      if (file >= 0) ::close(file);
  }

  // one line without its end; true: it was a frame for the line
  bool obey(std::string_view line, WireFrame& frame) noexcept {
    if (line.empty()) {
      say("\r");
      return false;
    }
    const char command = line[0];
    const bool is_setting = command == 'S' || command == 'Y' || command == 's';
    bool is_done = false;
    if (command == 'O' || command == 'L') {
      is_done = !is_open_;
      is_open_ = true;
    } else if (command == 'C') {
      is_done = is_open_;
      is_open_ = false;
    } else if (is_setting) {
      is_done = !is_open_ && line.size() >= 2;  // the line keeps its own rates
    } else if (command == 'V' || command == 'N' || command == 'F') {
      say(command == 'V' ? "V1013\r" : command == 'N' ? "N0001\r" : "F00\r");
      return false;
    } else if (is_open_ && parse(line, frame)) {
      say(frame.is_extended ? "Z\r" : "z\r");
      return true;
    }
    say(is_done ? "\r" : "\a");
    return false;
  }

  static bool parse(std::string_view line, WireFrame& frame) noexcept {
    const char command = line[0];
    const char kind = command >= 'A' && command <= 'Z' ? static_cast<char>(command - 'A' + 'a') : command;
    if (kind != 't' && kind != 'd' && kind != 'b') return false;
    WireFrame made;
    made.is_extended = kind != command;
    made.is_fd = kind != 't';
    made.is_fast = kind == 'b';
    const std::size_t id_size = made.is_extended ? 8 : 3;
    if (line.size() < 2 + id_size) return false;
    const long id = number(line.substr(1, id_size));
    const int code = digit(line[1 + id_size]);
    if (id < 0 || id > (made.is_extended ? 0x1FFFFFFF : 0x7FF) || code < 0 || (!made.is_fd && code > 8))
      return false;
    made.id = static_cast<std::uint32_t>(id);
    made.size = static_cast<std::uint8_t>(kSizes[code]);
    if (line.size() != 2 + id_size + 2u * made.size) return false;
    for (std::size_t i = 0; i < made.size; ++i) {
      const long byte = number(line.substr(2 + id_size + 2 * i, 2));
      if (byte < 0) return false;
      made.data[i] = static_cast<std::uint8_t>(byte);
    }
    frame = made;
    return true;
  }

  // all or nothing: half a line would spoil the next one
  bool say(std::string_view text) noexcept {
    int unread = 0;
    if (::ioctl(slave_, FIONREAD, &unread) == 0 &&
        static_cast<std::size_t>(unread) + text.size() > kTerminalSize)
      return false;
    // TIOCSTI puts a byte straight into the reader's queue; a write is carried there by a kernel worker of
    // normal priority, milliseconds late on a busy computer. It is a privilege
    if (may_insert_) {
      std::size_t done = 0;
      while (done < text.size() && ::ioctl(slave_, TIOCSTI, &text[done]) == 0) ++done;
      if (done == text.size()) return true;
      if (done > 0) return false;
      may_insert_ = false;
    }
    return ::write(master_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }

  const std::string link_;
  std::string name_;
  int master_ = -1, slave_ = -1;
  bool has_link_ = false, is_open_ = false, may_insert_ = true;
  char input_[512];
  std::size_t next_ = 0, size_ = 0;
  char line_[kLongestLine];
  std::size_t line_size_ = 0;  // also of one that is too long
};

}  // namespace

std::unique_ptr<CanPort> open_slcan_port(const std::string& link) {
  return std::make_unique<SlcanPort>(link);
}

}  // namespace wallx::emulator
