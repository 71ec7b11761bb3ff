// StopFile: reads and checks it.
// SPDX-License-Identifier: Apache-2.0
#include "tools/stop_file.hpp"

#include <fstream>
#include <iterator>

#include "base/errors.hpp"
#include "base/json.hpp"

namespace wallx {
namespace {

const Json& get(const Json& object, const char* key) {
  const Json* value = object.find(key);
  if (!value) throw JsonError(std::string("'") + key + "' is missing");
  return *value;
}

int number(const Json& object, const char* key, int low, int high) {
  const std::int64_t value = get(object, key).integer();
  if (value < low || value > high)
    throw JsonError(std::string("'") + key + "' is " + std::to_string(value) + ", must be " +
                    std::to_string(low) + ".." + std::to_string(high));
  return static_cast<int>(value);
}

JointMode mode(const Json& joint) {
  const std::string& text = get(joint, "mode").string();
  if (text == "position") return JointMode::position;
  if (text == "velocity") return JointMode::velocity;
  throw JsonError("'mode' is '" + text + "', must be position or velocity");
}

}  // namespace

StopFile read_stop_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    throw ConfigError("stop file " + path +
                      " cannot be read; wallx-edge writes it when a robot is connected");
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  StopFile file;
  try {
    const Json json = Json::parse(text);
    file.embodiment.name = get(json, "name").string();
    file.embodiment.motor_family = get(json, "motor_family").string();
    file.embodiment.accepts_drop = true;  // nothing is armed here
    const Json& bus = get(json, "bus");
    file.bus.kind = get(bus, "kind").string();
    file.bus.port = get(bus, "port").string();
    file.bus.baud_rate = number(bus, "baud_rate", 1, 100'000'000);
    file.bus.bit_rate = number(bus, "bit_rate", 0, 100'000'000);
    file.bus.data_bit_rate = number(bus, "data_bit_rate", 0, 100'000'000);
    file.bus.interface = get(bus, "interface").string();
    for (const Json& joint : get(json, "joints").array()) {
      JointSpec spec;
      spec.name = get(joint, "name").string();
      spec.id = number(joint, "id", 0, 0x7FFF);
      spec.model_numbers = {0};
      spec.mode = mode(joint);
      spec.limits = {-1, 1, 1, 1, 1};
      file.embodiment.joints.push_back(spec);
      file.calibration.push_back({.id = spec.id, .range_min = 0, .range_max = 4095});
    }
    if (file.embodiment.joints.empty()) throw JsonError("'joints' is empty");
  } catch (const JsonError& error) {
    throw ConfigError("stop file " + path + ": " + error.what() +
                      "; connect the robot with wallx-edge again");
  }
  return file;
}

}  // namespace wallx
