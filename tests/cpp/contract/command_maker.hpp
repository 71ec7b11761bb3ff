// CommandMaker: stands in for control's limiter, the only class that may make commands, where control is not
// linked. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "hardware/safe_command.hpp"

namespace wallx {

class SafetyLimiter {
 public:
  static SafeCommand make(std::uint64_t robot, std::uint64_t tick, const std::vector<double>& position,
                          const std::vector<double>& velocity = {}) {
    SafeCommand command(robot, tick, position.size());
    std::copy(position.begin(), position.end(), command.position_.begin());
    std::copy(velocity.begin(), velocity.end(), command.velocity_.begin());
    return command;
  }
};

}  // namespace wallx
