// Interpolator: a plan and a time in, one position per joint out; pure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "control/plan.hpp"

namespace wallx {

// where a time lies in a plan
struct Playhead {
  bool is_in_force = false;   // not before its start
  bool is_exhausted = false;  // past its end
  bool is_on_row = false;     // exactly at a row's time: the positions are that row's, bit for bit
  std::uint32_t row = 0;      // the last row that is due
};

// positions: (num_joints) [rad]; the first row before the start, the last one after the end
inline Playhead interpolate(const Plan& plan, TimePoint time, std::span<double> positions) noexcept {
  Playhead head;
  head.is_in_force = time >= plan.start;
  head.is_exhausted = time > plan.end();
  const Duration since = std::max(time - plan.start, Duration::zero());
  const std::int64_t index = std::min<std::int64_t>(since / plan.step, plan.num_rows - 1);
  head.row = static_cast<std::uint32_t>(index);
  const Duration past = since - plan.step * index;
  head.is_on_row = head.is_in_force && past == Duration::zero();
  const std::span<const double> row = plan.row(head.row);
  if (past == Duration::zero() || head.row + 1 == plan.num_rows) {
    std::copy(row.begin(), row.end(), positions.begin());
    return head;
  }
  const double h = to_seconds(plan.step);
  const double b = to_seconds(past) / h, a = 1 - b;
  const double scale = h * h / 6;
  const double* curvature = &plan.curvature[head.row * plan.num_joints];
  for (std::size_t j = 0; j < plan.num_joints; ++j) {
    const std::size_t next = j + plan.num_joints;
    positions[j] = a * row[j] + b * row.data()[next] +
                   scale * ((a * a * a - a) * curvature[j] + (b * b * b - b) * curvature[next]);
  }
  return head;
}

}  // namespace wallx
