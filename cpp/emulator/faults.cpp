// Faults: names to kinds, and what is wrong with a fault that cannot be.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/faults.hpp"

#include <cmath>
#include <sstream>

#include "base/errors.hpp"

namespace wallx::emulator {
namespace {

template <class Keep>
std::string names(Keep&& keep) {
  std::string text;
  for (const FaultRow& row : kFaultRows) {
    if (keep(row.kind)) text += (text.empty() ? "" : ", ") + std::string(row.name);
  }
  return text;
}

bool is_counted_in(std::string_view unit) {
  return unit == "id" || unit == "bits" || unit == "mode" || unit == "turns";
}

constexpr bool is_in_order() {
  for (std::size_t i = 0; i < kNumFaults; ++i) {
    if (kFaultRows[i].kind != static_cast<FaultKind>(i)) return false;
  }
  return true;
}
static_assert(is_in_order());

}  // namespace

const FaultRow& fault_row(FaultKind kind) { return kFaultRows[static_cast<std::size_t>(kind)]; }

const FaultRow& find_fault(std::string_view name) {
  for (const FaultRow& row : kFaultRows) {
    if (row.name == name) return row;
  }
  throw ConfigError("unknown fault '" + std::string(name) + "'; known are " +
                    names([](FaultKind) { return true; }));
}

void check_fault(std::string_view family, FaultSupport supported, FaultKind kind, int id, double value) {
  const FaultRow& row = fault_row(kind);
  const std::string name = row.name;
  if (!supported.has(kind)) {
    throw ConfigError("the emulated " + std::string(family) + " drives cannot do the fault '" + name +
                      "'; they can do " + names([&](FaultKind other) { return supported.has(other); }));
  }
  if (row.scope == FaultScope::line && id != kEveryDrive) {
    throw ConfigError("the fault '" + name + "' belongs to the whole line; leave the id " +
                      std::to_string(id) + " away");
  }
  if (row.scope == FaultScope::one_drive && id == kEveryDrive) {
    throw ConfigError("the fault '" + name + "' needs the id of one drive");
  }
  const bool is_whole = is_counted_in(row.unit);
  if (!(value >= row.min && value <= row.max) || (is_whole && value != std::floor(value))) {
    std::ostringstream text;
    text << "the fault '" << name << "' takes " << (is_whole ? "whole numbers " : "") << row.min << ".."
         << row.max << ' ' << row.unit << ", got " << value;
    throw ConfigError(text.str());
  }
}

}  // namespace wallx::emulator
