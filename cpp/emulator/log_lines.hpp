// LogLines: the first and the last line of an emulator's log, the same for every host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.hpp"
#include "base/time.hpp"

namespace wallx::emulator {

inline std::string line_head(const char* kind) {
  std::string line = "{\"t\":";
  line += std::to_string(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
  line += ",\"kind\":\"";
  line += kind;
  line += '"';
  return line;
}

// `drives`: id and name of each, in the order of the log's state lines
inline std::string start_line(const std::string& port, bool is_realtime,
                              const std::vector<std::pair<int, std::string>>& drives) {
  std::string ids, names;
  for (const auto& [id, name] : drives) {
    if (!ids.empty()) ids += ',', names += ',';
    ids += std::to_string(id);
    names += quote_json(name);
  }
  return line_head("start") + ",\"port\":" + quote_json(port) +
         (is_realtime ? ",\"realtime\":true" : ",\"realtime\":false") + ",\"ids\":[" + ids + "],\"names\":[" +
         names + "]}";
}

// takes counters by name, as for_each_counter gives them
class CounterLine {
 public:
  template <class Value>
  void operator()(const char* name, Value value) {
    line_ += (is_first_ ? "\"" : ",\"") + std::string(name) + "\":" + std::to_string(value);
    is_first_ = false;
  }
  std::string text() && { return std::move(line_) + "}}"; }

 private:
  std::string line_ = line_head("end") + ",\"counters\":{";
  bool is_first_ = true;
};

}  // namespace wallx::emulator
