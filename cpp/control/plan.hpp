// Plan: joint rows at a fixed step with the cubic spline through them, in one block that can be copied to the
// loop. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/joint.hpp"
#include "base/time.hpp"

namespace wallx {

inline constexpr std::size_t kMaxRows = 128;

struct Plan {
  std::uint64_t sequence = 0;    // counts the plans of one loop, from 1
  std::uint32_t generation = 0;  // counts the stops before it; a plan from before a stop is dead
  TimePoint start;               // when the first row is due
  Duration step{};  // time between rows, whole nanoseconds; a single row is in force for one step
  std::uint32_t num_rows = 0;
  std::uint32_t num_joints = 0;
  std::array<double, kMaxRows * kMaxJoints> rows;  // positions           (num_rows x num_joints) [rad]
  std::array<double, kMaxRows * kMaxJoints>
      curvature;  // second derivatives  (num_rows x num_joints) [rad/s^2]

  TimePoint end() const noexcept { return start + step * (num_rows > 1 ? num_rows - 1 : 1); }
  std::span<const double> row(std::size_t index) const noexcept {
    return {&rows[index * num_joints], num_joints};
  }
};

// Fills `plan` but for its sequence: a C2 cubic spline per joint through all rows, natural at the first row,
// at zero velocity on the last one, so that a plan that nothing follows ends at rest. Not for the loop's
// thread. rows: (n x joints.size()) [rad]; step > 0 [s]. Throws ConfigError: empty, too many rows, a wrong
// size, not finite.
void make_plan(Plan& plan, std::span<const double> rows, std::span<const JointSpec> joints, TimePoint start,
               Seconds step, std::uint32_t generation);

}  // namespace wallx
