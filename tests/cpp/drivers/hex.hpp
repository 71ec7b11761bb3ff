// Hex: frames as the documents print them, "FF FF 01 02 01 FB".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace wallx::test {

using Bytes = std::vector<std::uint8_t>;

inline Bytes bytes(const std::string& hex) {
  Bytes result;
  std::istringstream in(hex);
  for (unsigned value = 0; in >> std::hex >> value;) result.push_back(static_cast<std::uint8_t>(value));
  return result;
}

inline std::string hex(std::span<const std::uint8_t> bytes) {
  std::string result;
  for (const std::uint8_t byte : bytes) {
    char text[4];
    std::snprintf(text, sizeof text, "%02X ", byte);
    result += text;
  }
  if (!result.empty()) result.pop_back();
  return result;
}

}  // namespace wallx::test
