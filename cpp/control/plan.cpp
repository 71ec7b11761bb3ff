// Plan: checks the rows and solves the spline.
// SPDX-License-Identifier: Apache-2.0
#include "control/plan.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/errors.hpp"

namespace wallx {
namespace {

// second derivatives of one joint's spline, by elimination of the tridiagonal system
void solve(Plan& plan, std::size_t joint) {
  const std::size_t n = plan.num_rows, stride = plan.num_joints;
  const double h = to_seconds(plan.step);
  const auto y = [&](std::size_t i) { return plan.rows[i * stride + joint]; };
  const auto m = [&](std::size_t i) -> double& { return plan.curvature[i * stride + joint]; };
  std::array<double, kMaxRows> ratio;
  m(0) = 0;
  ratio[0] = 0;
  for (std::size_t i = 1; i + 1 < n; ++i) {
    const double pivot = 4 - ratio[i - 1];
    ratio[i] = 1 / pivot;
    m(i) = (6 * (y(i + 1) - 2 * y(i) + y(i - 1)) / (h * h) - m(i - 1)) / pivot;
  }
  if (n < 2) return;
  // zero velocity at the end: m[n-2] + 2 m[n-1] = -6 (y[n-1] - y[n-2]) / h^2
  m(n - 1) = (-6 * (y(n - 1) - y(n - 2)) / (h * h) - m(n - 2)) / (2 - ratio[n - 2]);
  for (std::size_t i = n - 1; i-- > 1;) m(i) -= ratio[i] * m(i + 1);
}

}  // namespace

void make_plan(Plan& plan, std::span<const double> rows, std::span<const JointSpec> joints, TimePoint start,
               Seconds step, std::uint32_t generation) {
  const std::size_t num_joints = joints.size();
  if (num_joints == 0 || num_joints > kMaxJoints || rows.size() % num_joints != 0)
    throw ConfigError("plan: " + std::to_string(rows.size()) + " values are not rows of the robot's " +
                      std::to_string(num_joints) + " joints; pass rows of shape (rows x joints)");
  const std::size_t num_rows = rows.size() / num_joints;
  if (num_rows == 0 || num_rows > kMaxRows)
    throw ConfigError("plan: 1 to " + std::to_string(kMaxRows) + " rows, got " + std::to_string(num_rows) +
                      "; cut the chunk before submitting it");
  if (!(step.count() >= 1e-6 && step.count() <= 3600))
    throw ConfigError("plan: the step must be 1e-6 to 3600 s, got " + std::to_string(step.count()) +
                      "; correct the chunk's step");
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!std::isfinite(rows[i]))
      throw ConfigError("plan: row " + std::to_string(i / num_joints) + ", joint '" +
                        joints[i % num_joints].name + "' (" + std::to_string(i % num_joints) + ") is " +
                        std::to_string(rows[i]) +
                        ", not a finite position [rad]; check the policy's output and the normalizer");
  plan.generation = generation;
  plan.start = start;
  plan.step = std::chrono::round<Duration>(step);
  plan.num_rows = static_cast<std::uint32_t>(num_rows);
  plan.num_joints = static_cast<std::uint32_t>(num_joints);
  std::copy(rows.begin(), rows.end(), plan.rows.begin());
  for (std::size_t j = 0; j < num_joints; ++j) solve(plan, j);
}

}  // namespace wallx
