// Plan, Interpolator, PlanBuffer: rows are met exactly, the spline is C2, and nothing old survives a stop.
// SPDX-License-Identifier: Apache-2.0
#include "control/plan.hpp"

#include <cmath>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"
#include "control/interpolator.hpp"
#include "control/plan_buffer.hpp"

using namespace wallx;

namespace {

std::vector<JointSpec> joints(std::size_t count) {
  std::vector<JointSpec> specs(count);
  for (std::size_t j = 0; j < count; ++j) specs[j].name = "joint" + std::to_string(j);
  return specs;
}

const TimePoint kStart{std::chrono::nanoseconds(123'456'789'012'345)};

std::unique_ptr<Plan> plan_of(const std::vector<double>& rows, std::size_t num_joints, double step = 0.02) {
  auto plan = std::make_unique<Plan>();
  make_plan(*plan, rows, joints(num_joints), kStart, Seconds(step), 0);
  return plan;
}

std::vector<double> random_rows(std::size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> rows(count);
  for (double& value : rows) value = uniform(engine);
  return rows;
}

double at(const Plan& plan, double seconds, std::size_t joint) {
  std::vector<double> positions(plan.num_joints);
  interpolate(plan, plan.start + std::chrono::round<Duration>(Seconds(seconds)), positions);
  return positions[joint];
}

}  // namespace

TEST(every_row_is_met_bit_for_bit) {
  for (unsigned run = 0; run < 200; ++run) {
    const std::size_t num_joints = 1 + run % 8, num_rows = 1 + run * 7 % kMaxRows;
    const auto rows = random_rows(num_rows * num_joints, run);
    const double step = run % 3 == 0 ? 1.0 / 30 : 0.001 * (1 + run % 40);
    const auto plan = plan_of(rows, num_joints, step);
    std::vector<double> positions(num_joints);
    for (std::size_t k = 0; k < num_rows; ++k) {
      const Playhead head = interpolate(*plan, plan->start + plan->step * k, positions);
      CHECK(head.is_in_force && head.is_on_row && !head.is_exhausted);
      CHECK_EQ(head.row, k);
      for (std::size_t j = 0; j < num_joints; ++j) CHECK_EQ(positions[j], rows[k * num_joints + j]);
    }
  }
}

TEST(the_spline_is_smooth_and_ends_at_rest) {
  for (unsigned run = 0; run < 100; ++run) {
    const std::size_t num_rows = 2 + run % 20;
    const auto plan = plan_of(random_rows(num_rows * 2, 1000 + run), 2, 0.1);
    const double h = 1e-4;
    // natural: no curvature at the first row; clamped: no velocity at the last
    CHECK_EQ(plan->curvature[0], 0.0);
    const double end = 0.1 * static_cast<double>(num_rows - 1);
    for (std::size_t j = 0; j < 2; ++j) {
      CHECK_NEAR((at(*plan, end, j) - at(*plan, end - h, j)) / h, 0, 1.0 * h * 2000);
      // velocity and curvature agree on both sides of every inner row
      for (std::size_t k = 1; k + 1 < num_rows; ++k) {
        const double t = 0.1 * static_cast<double>(k);
        const double y = at(*plan, t, j), before = at(*plan, t - h, j), after = at(*plan, t + h, j);
        const double before2 = at(*plan, t - 2 * h, j), after2 = at(*plan, t + 2 * h, j);
        const double v_before = (3 * y - 4 * before + before2) / (2 * h),
                     v_after = (-3 * y + 4 * after - after2) / (2 * h);
        CHECK_NEAR(v_before, v_after, 0.01);
        const double a_before = (y - 2 * before + before2) / (h * h),
                     a_after = (y - 2 * after + after2) / (h * h);
        CHECK_NEAR(a_before, a_after, 0.02 * 2000);
      }
    }
  }
}

TEST(a_straight_line_stays_straight_until_its_end) {
  std::vector<double> rows;
  for (int k = 0; k < 40; ++k) rows.push_back(0.01 * k);
  const auto plan = plan_of(rows, 1, 0.1);
  for (double t = 0; t < 2.0; t += 0.0123) CHECK_NEAR(at(*plan, t, 0), 0.1 * t, 1e-9);
}

TEST(before_is_not_in_force_and_after_is_the_last_row) {
  const auto plan = plan_of({1, 2, 3}, 1, 0.02);
  double p = 0;
  Playhead head = interpolate(*plan, plan->start - std::chrono::nanoseconds(1), {&p, 1});
  CHECK(!head.is_in_force && !head.is_on_row);
  CHECK_EQ(p, 1.0);
  head = interpolate(*plan, plan->end(), {&p, 1});
  CHECK(head.is_in_force && !head.is_exhausted && head.is_on_row);
  CHECK_EQ(p, 3.0);
  head = interpolate(*plan, plan->end() + std::chrono::nanoseconds(1), {&p, 1});
  CHECK(head.is_exhausted && !head.is_on_row);
  CHECK_EQ(head.row, 2u);
  CHECK_EQ(p, 3.0);
}

TEST(a_single_row_is_in_force_for_one_step) {
  const auto plan = plan_of({0.5}, 1, 2.0);
  double p = 0;
  CHECK(!interpolate(*plan, plan->start + std::chrono::milliseconds(1999), {&p, 1}).is_exhausted);
  CHECK_EQ(p, 0.5);
  CHECK(interpolate(*plan, plan->start + std::chrono::milliseconds(2001), {&p, 1}).is_exhausted);
}

TEST(bad_rows_are_refused_by_name) {
  std::vector<double> rows(12, 0.0);
  rows[7] = std::nan("");
  CHECK_THROWS(plan_of(rows, 3), ConfigError, "row 2, joint 'joint1' (1)");
  rows[7] = INFINITY;
  CHECK_THROWS(plan_of(rows, 3), ConfigError, "inf");
  CHECK_THROWS(plan_of({}, 3), ConfigError, "1 to 128 rows, got 0");
  CHECK_THROWS(plan_of(std::vector<double>(129 * 3), 3), ConfigError, "got 129");
  CHECK_THROWS(plan_of(std::vector<double>(10), 3), ConfigError, "10 values");
  CHECK_THROWS(plan_of({1, 2}, 1, 0), ConfigError, "step");
  CHECK_THROWS(plan_of({1, 2}, 1, -0.1), ConfigError, "step");
  CHECK_THROWS(plan_of({1, 2}, 1, std::nan("")), ConfigError, "step");
}

TEST(the_latest_plan_wins_and_old_generations_die) {
  auto buffer = std::make_unique<PlanBuffer>();
  const auto specs = joints(1);
  const auto submit = [&](double value, std::uint32_t generation, TimePoint start) {
    make_plan(buffer->back(), std::vector<double>{value}, specs, start, Seconds(1), generation);
    return buffer->publish();
  };
  CHECK(buffer->in_force(kStart) == nullptr);
  CHECK_EQ(submit(1, 0, kStart), 1u);
  CHECK_EQ(submit(2, 0, kStart), 2u);
  REQUIRE(buffer->in_force(kStart) != nullptr);
  CHECK_EQ(buffer->in_force(kStart)->sequence, 2u);
  CHECK_EQ(buffer->in_force(kStart)->rows[0], 2.0);
  // one on its way when the stop comes
  CHECK_EQ(submit(3, 0, kStart), 3u);
  buffer->stop();
  CHECK(buffer->in_force(kStart) == nullptr);
  CHECK_EQ(buffer->num_refused(), 1u);
  CHECK_EQ(submit(4, 0, kStart), 0u);
  CHECK(buffer->in_force(kStart) == nullptr);
  CHECK_EQ(submit(5, 1, kStart), 4u);
  CHECK_EQ(buffer->in_force(kStart)->rows[0], 5.0);
}

TEST(plans_wait_for_their_start) {
  auto buffer = std::make_unique<PlanBuffer>();
  const auto specs = joints(1);
  const auto after = [](int ms) { return kStart + std::chrono::milliseconds(ms); };
  const auto submit = [&](double value, int ms) {
    make_plan(buffer->back(), std::vector<double>{value}, specs, after(ms), Seconds(1), 0);
    CHECK(buffer->publish() > 0);
  };
  const auto value = [&](int ms) {
    const Plan* plan = buffer->in_force(after(ms));
    return plan ? plan->rows[0] : -1.0;
  };
  submit(1, 10);
  CHECK_EQ(value(0), -1.0);
  CHECK_EQ(value(10), 1.0);
  submit(2, 30);
  CHECK_EQ(value(15), 1.0);
  submit(3, 50);  // does not starve 2
  CHECK_EQ(value(20), 1.0);
  submit(4, 60);  // replaces 3: the latest of the later ones
  CHECK_EQ(value(29), 1.0);
  CHECK_EQ(value(30), 2.0);
  CHECK_EQ(value(55), 2.0);
  CHECK_EQ(value(60), 4.0);
  submit(5, 100);
  CHECK_EQ(value(61), 4.0);
  submit(6, 62);  // earlier than the one that waits: that one is dropped
  CHECK_EQ(value(62), 6.0);
  CHECK_EQ(value(101), 6.0);
}

TEST(a_reader_never_sees_half_a_plan) {
  auto buffer = std::make_unique<PlanBuffer>();
  const auto specs = joints(4);
  constexpr std::uint64_t kPlans = 20000;
  std::thread writer([&] {
    std::vector<double> rows(16 * 4);
    for (std::uint64_t i = 1; i <= kPlans; ++i) {
      rows.assign(rows.size(), static_cast<double>(i));
      make_plan(buffer->back(), rows, specs, kStart, Seconds(1), 0);
      buffer->publish();
    }
  });
  std::uint64_t last = 0;
  while (last < kPlans) {
    const Plan* plan = buffer->in_force(kStart);
    if (!plan) continue;
    CHECK(plan->sequence >= last);
    last = plan->sequence;
    for (std::size_t i = 0; i < 16 * 4; ++i) CHECK_EQ(plan->rows[i], static_cast<double>(last));
  }
  writer.join();
}
