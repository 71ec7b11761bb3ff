// CandumpLog: one pass over the words of a line.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/candump_log.hpp"

#include <linux/can.h>

#include <cstdio>

namespace wallx {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view next_word(std::string_view& text) noexcept {
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return text = {};
  text.remove_prefix(begin);
  const std::string_view word = text.substr(0, text.find_first_of(kSpace));
  text.remove_prefix(word.size());
  return word;
}

bool read_digits(std::string_view text, std::uint64_t base, std::size_t max_digits,
                 std::uint64_t& value) noexcept {
  if (text.empty() || text.size() > max_digits) return false;
  value = 0;
  for (const char c : text) {
    const int one = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : 99;
    if (one >= static_cast<int>(base)) return false;
    value = value * base + static_cast<std::uint64_t>(one);
  }
  return true;
}

// "(seconds.fraction)", of up to nine digits
bool read_stamp(std::string_view word, std::chrono::nanoseconds& stamp) noexcept {
  if (word.size() < 2 || word.front() != '(' || word.back() != ')') return false;
  word = word.substr(1, word.size() - 2);
  const auto point = word.find('.');
  std::uint64_t seconds = 0, fraction = 0;
  if (!read_digits(word.substr(0, point), 10, 9 + 1, seconds)) return false;
  if (point != std::string_view::npos) {
    const std::string_view digits = word.substr(point + 1);
    if (!read_digits(digits, 10, 9, fraction)) return false;
    for (std::size_t i = digits.size(); i < 9; ++i) fraction *= 10;
  }
  stamp = std::chrono::seconds(seconds) + std::chrono::nanoseconds(fraction);
  return true;
}

bool read_bytes(std::string_view word, CanFrame& frame) noexcept {
  if (word.size() % 2 != 0 || word.size() > 2 * frame.data.size()) return false;
  frame.size = static_cast<std::uint8_t>(word.size() / 2);
  for (std::size_t i = 0; i < frame.size; ++i) {
    std::uint64_t byte = 0;
    if (!read_digits(word.substr(2 * i, 2), 16, 2, byte)) return false;
    frame.data[i] = static_cast<std::uint8_t>(byte);
  }
  return true;
}

}  // namespace

CandumpEvent parse_candump(std::string_view text, CandumpLine& line) noexcept {
  CandumpLine read;
  const std::string_view stamp = next_word(text);
  if (stamp.empty()) return CandumpEvent::other;
  read.channel = next_word(text);
  std::string_view word = next_word(text);
  const std::string_view mark = next_word(text);
  if (!read_stamp(stamp, read.stamp) || word.empty() || !next_word(text).empty())
    return CandumpEvent::malformed;
  if (!mark.empty() && mark != "R" && mark != "T") return CandumpEvent::malformed;
  read.is_sent = mark == "T";

  const auto hash = word.find('#');
  if (hash == std::string_view::npos) {
    if (!read_bytes(word, read.frame)) return CandumpEvent::malformed;
    line = read;
    return CandumpEvent::bytes;
  }
  std::uint64_t id = 0;
  if ((hash != 3 && hash != 8) || !read_digits(word.substr(0, hash), 16, 8, id))
    return CandumpEvent::malformed;
  if (hash == 8 && (id & CAN_ERR_FLAG) != 0) return CandumpEvent::other;
  read.frame.is_extended = hash == 8;
  read.frame.id = static_cast<std::uint32_t>(id);
  word.remove_prefix(hash + 1);
  if (!word.empty() && word[0] == 'R') return CandumpEvent::other;
  if (!word.empty() && word[0] == '#') {
    std::uint64_t flags = 0;
    if (!read_digits(word.substr(1, 1), 16, 1, flags)) return CandumpEvent::malformed;
    read.frame.is_fd = true;
    read.frame.is_bit_rate_switched = (flags & CANFD_BRS) != 0;
    word.remove_prefix(2);
  }
  // candump may write a raw length code above 8 after an eight-byte classic frame
  if (!read.frame.is_fd && word.size() == 18 && word[16] == '_') word.remove_suffix(2);
  if (!read_bytes(word, read.frame)) return CandumpEvent::malformed;
  if (!is_valid(read.frame)) return CandumpEvent::malformed;
  line = read;
  return CandumpEvent::frame;
}

std::string to_candump(const CandumpLine& line, bool is_bytes) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(line.stamp).count();
  char part[48];
  std::snprintf(part, sizeof part, "(%lld.%06lld) ", static_cast<long long>(micros / 1'000'000),
                static_cast<long long>(micros % 1'000'000));
  std::string text = part;
  text += line.channel;
  text += ' ';
  if (!is_bytes) {
    std::snprintf(part, sizeof part, line.frame.is_extended ? "%08X#" : "%03X#", line.frame.id);
    text += part;
    if (line.frame.is_fd) text += line.frame.is_bit_rate_switched ? "#1" : "#0";
  }
  for (std::size_t i = 0; i < line.frame.size; ++i) {
    std::snprintf(part, sizeof part, "%02X", line.frame.data[i]);
    text += part;
  }
  return text + (line.is_sent ? " T" : " R");
}

}  // namespace wallx
