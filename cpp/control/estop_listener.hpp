// EstopListener: a thread that turns a datagram, a key or an input line into an e-stop of every loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <string>
#include <thread>

namespace wallx {

struct EstopSources {
  std::string socket = {};     // path of a Unix datagram socket, made for this user alone; empty: none
  std::string gpio_chip = {};  // like /dev/gpiochip0; empty: none
  int gpio_line = 0;           // offset of the line on the chip
  bool is_active_low = true;   // the button pulls the line low; a broken wire should, too
  int line_descriptor = -1;    // of a line that was requested already; -1: none
  int key_descriptor = -1;     // of a terminal that hands over single keys; -1: none
  int key_sink = -1;           // takes every key, so that a program can read commands; -1: they are dropped
};

// Which keys are the e-stop: a space; while a command that began with '/' is typed, until Enter or Esc, a
// second space after a space.
class EstopKeys {
 public:
  bool is_estop(char key) noexcept;

 private:
  int length_ = 0;  // of the command so far
  bool was_space_ = false;
};

// All of them end in estop_all(), from which on every loop of the process e-stops in its next tick. Any
// datagram is one, however long. A line that is lost counts as pressed; a terminal that is lost does not.
class EstopListener {
 public:
  // Starts the thread. A line that is pressed already is an e-stop at once. Throws ConfigError: no such line,
  // or a path that is too long or taken; DeviceError: the system refuses.
  explicit EstopListener(const EstopSources& sources);
  ~EstopListener();  // ends the thread, removes the socket
  EstopListener(const EstopListener&) = delete;
  EstopListener& operator=(const EstopListener&) = delete;

  // Whether the line is pressed now, or was lost: as long as it is, nothing may be reset. False without one.
  bool is_pressed() const noexcept;

 private:
  void open_socket();
  void open_line();
  void close_all() noexcept;
  bool take_keys() noexcept;
  void run() noexcept;

  EstopSources sources_;
  int socket_ = -1, line_ = -1, wake_ = -1;  // file descriptors
  bool has_line_ = false;                    // ours to close
  std::atomic<bool> is_line_lost_{false};
  EstopKeys keys_;
  std::thread thread_;
};

// Sends the datagram: for a client in another process. Throws DeviceError: nobody listens there, or not to
// us.
void send_estop(const std::string& socket);

}  // namespace wallx
