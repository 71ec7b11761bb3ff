// SafetyLimiter: its promises, as properties over thousands of random robots, targets and periods.
// SPDX-License-Identifier: Apache-2.0
#include "control/safety_limiter.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"
#include "control/stop_profile.hpp"

using namespace wallx;

namespace {

constexpr double kPi = 3.14159265358979323846;

struct Random {
  std::mt19937_64 engine;
  explicit Random(std::uint64_t seed) : engine(seed) {}
  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(engine);
  }
  double log_uniform(double low, double high) { return std::exp(uniform(std::log(low), std::log(high))); }
  int below(int n) { return static_cast<int>(engine() % static_cast<std::uint64_t>(n)); }
};

JointSpec random_joint(Random& random) {
  JointSpec joint;
  joint.name = "joint";
  const double middle = random.uniform(-1, 1), half = random.log_uniform(0.05, 3);
  joint.limits = {middle - half, middle + half, random.log_uniform(0.1, 10), random.log_uniform(0.5, 100),
                  random.log_uniform(5, 5000)};
  return joint;
}

const double kPeriods[] = {0.001, 0.002, 0.004, 0.005, 0.01};

struct Target {
  int kind;
  JointLimits limits;
  double at, walk_step, frequency, amplitude, phase;
  Target(Random& random, const JointLimits& l, double start)
      : kind(random.below(6)),
        limits(l),
        at(start),
        walk_step(random.log_uniform(1e-6, 0.1)),
        frequency(random.log_uniform(0.05, 20)),
        amplitude(random.uniform(0, 1.5) * (l.max_position - l.min_position)),
        phase(random.uniform(0, 2 * kPi)) {}
  double next(Random& random, int tick, double dt) {
    const double span = limits.max_position - limits.min_position;
    switch (kind) {
      case 0:
        return at += random.uniform(-walk_step, walk_step);  // random walk
      case 1:
        return random.below(200) == 0 ? at = random.uniform(-4, 4) : at;  // steps
      case 2:
        return limits.min_position + span / 2 + amplitude * std::sin(2 * kPi * frequency * tick * dt + phase);
      case 3:
        return random.uniform(limits.min_position - span, limits.max_position + span);  // jumps every tick
      case 4:
        return tick % 2 ? 1e6 : -1e6;  // absurd
      default:
        return random.below(50) == 0 ? at = (random.below(2) ? 10 : -10) : at;  // bang-bang, outside
    }
  }
};

// the largest excess of each limit over a run, as a share of the limit (position: [rad])
struct Excess {
  double position = 0, velocity = 0, acceleration = 0, jerk = 0;
  double p = 0, v = 0, a = 0;
  JointLimits limits;
  double dt;
  Excess(const JointLimits& l, double start, double period) : p(start), limits(l), dt(period) {}
  void add(double next) {
    const double nv = (next - p) / dt, na = (nv - v) / dt, j = (na - a) / dt;
    const double noise = 4 * 2.3e-16 * (1 + std::abs(next));
    position = std::max({position, next - limits.max_position, limits.min_position - next});
    velocity = std::max(velocity, (std::abs(nv) - noise / dt) / limits.max_velocity - 1);
    acceleration = std::max(acceleration, (std::abs(na) - 2 * noise / dt / dt) / limits.max_acceleration - 1);
    jerk = std::max(jerk, (std::abs(j) - 4 * noise / dt / dt / dt) / limits.max_jerk - 1);
    p = next, v = nv, a = na;
  }
};

// made once, looked at by four tests
const std::vector<Excess>& adversarial_runs() {
  static std::vector<Excess> runs;
  if (!runs.empty()) return runs;
  for (int run = 0; run < 2500; ++run) {
    Random random(1000 + run);
    const JointSpec joint = random_joint(random);
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    double start = random.uniform(joint.limits.min_position, joint.limits.max_position);
    if (random.below(10) == 0)
      start = random.below(2) ? joint.limits.min_position : joint.limits.max_position;
    REQUIRE(limiter.reset({&start, 1}, 0).has_value());
    Target target(random, joint.limits, start);
    Excess excess(joint.limits, start, dt);
    int braking = 0;
    for (int tick = 1; tick < 600; ++tick) {
      LimitReasons reasons;
      if (random.below(150) == 0) braking = random.below(60);
      const double wanted = target.next(random, tick, dt);
      const SafeCommand command =
          braking-- > 0 ? limiter.brake(tick, reasons) : limiter.limit({&wanted, 1}, tick, reasons);
      excess.add(command.position()[0]);
      if (braking < 0 && reasons.any == 0) CHECK_EQ(command.position()[0], wanted);
      CHECK_EQ(reasons.any & (kLimitYieldedJerk | kLimitYieldedAcceleration | kLimitStepCap), 0);
    }
    runs.push_back(excess);
  }
  return runs;
}

}  // namespace

TEST(never_exceeds_position) {
  for (const Excess& e : adversarial_runs()) CHECK(e.position <= 0);
}
TEST(never_exceeds_velocity) {
  for (const Excess& e : adversarial_runs()) CHECK(e.velocity <= 1e-9);
}
TEST(never_exceeds_acceleration) {
  for (const Excess& e : adversarial_runs()) CHECK(e.acceleration <= 1e-8);
}
TEST(never_exceeds_jerk) {
  for (const Excess& e : adversarial_runs()) CHECK(e.jerk <= 1e-6);
}

// streams made by integrating random jerks; whenever a stop would break a limit, the stream follows the stop
TEST(passes_a_feasible_target_through_bit_for_bit) {
  int num_fast = 0, num_turned = 0;
  for (int run = 0; run < 2000; ++run) {
    Random random(50000 + run);
    const JointSpec joint = random_joint(random);
    const JointLimits& l = joint.limits;
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    double p = random.uniform(l.min_position, l.max_position), v = 0, a = 0;
    REQUIRE(limiter.reset({&p, 1}, 0).has_value());
    const double share = 1 - 1e-6;
    const double max_v = l.max_velocity * share, max_a = l.max_acceleration * share,
                 max_j = l.max_jerk * share;
    double j = 0, fastest = 0;
    for (int tick = 1; tick < 500; ++tick) {
      if (random.below(20) == 0)
        j = random.below(3) == 0 ? (random.below(2) ? max_j : -max_j) : random.uniform(-max_j, max_j);
      double next_a = std::clamp(a + j * dt, -max_a, max_a);
      const double next_v = v + next_a * dt;
      const StopProfile stop = StopProfile::from(next_v, next_a, max_a, max_j, dt);
      const double end = p + next_v * dt + stop.displacement() * max_j * dt * dt * dt;
      const double back = p + next_v * dt + stop.sign * stop.backward_way() * max_j * dt * dt * dt;
      if (std::abs(next_v) > max_v || stop.peak * max_j * dt * dt > max_v ||
          std::max({end, back, p + next_v * dt}) > l.max_position - 1e-9 ||
          std::min({end, back, p + next_v * dt}) < l.min_position + 1e-9) {
        next_a = StopProfile::from(v, a, max_a, max_j, dt).first() * max_j * dt;
        ++num_turned;
      }
      a = next_a, v += a * dt, p += v * dt;
      fastest = std::max(fastest, std::abs(v));
      LimitReasons reasons;
      const SafeCommand command = limiter.limit({&p, 1}, tick, reasons);
      CHECK_EQ(command.position()[0], p);
      CHECK_EQ(int(reasons.any), 0);
    }
    num_fast += fastest > 0.5 * l.max_velocity;
  }
  CHECK(num_fast > 100);  // the streams come near the limits
  CHECK(num_turned > 1000);
}

TEST(converges_to_a_still_target) {
  int most_ticks = 0;
  for (int run = 0; run < 2500; ++run) {
    Random random(90000 + run);
    const JointSpec joint = random_joint(random);
    const JointLimits& l = joint.limits;
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    const double start = random.uniform(l.min_position, l.max_position);
    REQUIRE(limiter.reset({&start, 1}, 0).has_value());
    double goal = random.uniform(l.min_position, l.max_position);
    if (random.below(4) == 0)
      goal = std::clamp(start + random.uniform(-1, 1) * 0.01, l.min_position, l.max_position);
    if (random.below(8) == 0) goal = random.below(2) ? l.min_position : l.max_position;
    const double way = std::abs(goal - start);
    const double side = goal > start ? 1 : -1;
    // a step of one period's reach is taken at once and cannot be told from a moving target
    const double allowed =
        std::max(1e-9, way <= 2 * l.max_jerk * dt * dt * dt ? 2 * l.max_jerk * dt * dt * dt : 0.0);
    const double time = way / l.max_velocity + 2 * l.max_velocity / l.max_acceleration +
                        2 * std::sqrt(way / l.max_acceleration) + 4 * std::cbrt(way / l.max_jerk) +
                        4 * l.max_acceleration / l.max_jerk;
    const int bound = static_cast<int>(1.5 * time / dt) + 60;
    int arrived = -1;
    double overshoot = 0;
    for (int tick = 1; tick <= bound + 300; ++tick) {
      LimitReasons reasons;
      const SafeCommand command = limiter.limit({&goal, 1}, tick, reasons);
      overshoot = std::max(overshoot, side * (command.position()[0] - goal));
      if (command.position()[0] != goal)
        arrived = -1;
      else if (arrived < 0)
        arrived = tick;
    }
    CHECK(arrived >= 0 && arrived <= bound);
    CHECK(overshoot <= allowed);
    most_ticks = std::max(most_ticks, arrived);
    if (!(arrived >= 0 && arrived <= bound && overshoot <= allowed))
      std::printf("run %d dt %g way %g arrived %d bound %d overshoot %g V %g A %g J %g\n", run, dt, way,
                  arrived, bound, overshoot, l.max_velocity, l.max_acceleration, l.max_jerk);
  }
  CHECK(most_ticks > 100);
}

namespace {

// a target that moves; returns the tick from which on every command is the target, or -1
template <class Motion>
int caught_at(const JointSpec& joint, double dt, double start, int num_ticks, Motion motion) {
  SafetyLimiter limiter({&joint, 1}, 7, dt);
  REQUIRE(limiter.reset({&start, 1}, 0).has_value());
  int caught = -1;
  for (int tick = 1; tick <= num_ticks; ++tick) {
    LimitReasons reasons;
    const double target = motion(tick * dt);
    const SafeCommand command = limiter.limit({&target, 1}, tick, reasons);
    if (command.position()[0] != target)
      caught = -1;
    else if (caught < 0)
      caught = tick;
  }
  return caught;
}

}  // namespace

TEST(catches_up_with_a_moving_target) {
  for (int run = 0; run < 600; ++run) {
    Random random(130000 + run);
    JointSpec joint = random_joint(random);
    JointLimits& l = joint.limits;
    l.min_position = -1e3, l.max_position = 1e3;
    const double dt = kPeriods[random.below(5)];
    const double start = random.uniform(-1, 1), first = random.uniform(-1, 1);
    const double way = 2, share = random.uniform(0.05, 0.6);
    const double time = way / (l.max_velocity * (1 - share)) + 4 * l.max_velocity / l.max_acceleration +
                        4 * std::sqrt(way / l.max_acceleration) + 6 * std::cbrt(way / l.max_jerk) +
                        8 * l.max_acceleration / l.max_jerk;
    const int bound = static_cast<int>(2 * time / dt) + 200;
    int caught;
    if (random.below(2)) {
      const double v = (random.below(2) ? 1 : -1) * share * l.max_velocity;
      caught = caught_at(joint, dt, start, bound + 200, [&](double t) { return first + v * t; });
    } else {
      // a sine whose velocity, acceleration and jerk are at most that share of the limits
      const double amplitude = random.uniform(0.05, 1);
      const double omega =
          share * std::min({l.max_velocity / amplitude, std::sqrt(l.max_acceleration / amplitude),
                            std::cbrt(l.max_jerk / amplitude)});
      caught = caught_at(joint, dt, start, bound + 200,
                         [&](double t) { return first + amplitude * std::sin(omega * t + 1); });
    }
    CHECK(caught > 0 && caught <= bound);
    if (!(caught > 0 && caught <= bound))
      std::printf("run %d dt %g caught %d bound %d share %g V %g A %g J %g\n", run, dt, caught, bound, share,
                  l.max_velocity, l.max_acceleration, l.max_jerk);
  }
}

TEST(brake_reaches_rest_within_bound_and_stays) {
  int num_moving = 0;
  for (int run = 0; run < 2000; ++run) {
    Random random(170000 + run);
    const JointSpec joint = random_joint(random);
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    const double start = random.uniform(joint.limits.min_position, joint.limits.max_position);
    REQUIRE(limiter.reset({&start, 1}, 0).has_value());
    Target target(random, joint.limits, start);
    const int before = random.below(500);
    LimitReasons reasons;
    Excess excess(joint.limits, start, dt);
    for (int tick = 1; tick <= before; ++tick) {
      const double wanted = target.next(random, tick, dt);
      excess.add(limiter.limit({&wanted, 1}, tick, reasons).position()[0]);
    }
    num_moving += !limiter.is_at_rest();
    const int bound = static_cast<int>(limiter.max_stop_time() / dt) + 1;
    int ticks = 0;
    while (!limiter.is_at_rest() && ticks <= bound)
      excess.add(limiter.brake(before + ++ticks, reasons).position()[0]);
    CHECK(ticks <= bound);
    const double rest = limiter.command()[0];
    for (int i = 0; i < 50; ++i) CHECK_EQ(limiter.brake(0, reasons).position()[0], rest);
    CHECK(excess.position <= 0 && excess.velocity < 1e-9 && excess.acceleration < 1e-8 && excess.jerk < 1e-6);
  }
  CHECK(num_moving > 1000);
}

TEST(nan_never_reaches_the_command) {
  const double poison[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()};
  for (int run = 0; run < 2000; ++run) {
    Random random(210000 + run);
    const std::vector<JointSpec> joints{random_joint(random), random_joint(random)};
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter(joints, 7, dt);
    const double start[] = {joints[0].limits.min_position, joints[1].limits.max_position};
    CHECK(!limiter.reset(std::vector<double>{0, poison[random.below(3)]}, 0).has_value());
    REQUIRE(limiter.reset(start, 0).has_value());
    Excess excess[] = {{joints[0].limits, start[0], dt}, {joints[1].limits, start[1], dt}};
    for (int tick = 1; tick < 300; ++tick) {
      double target[] = {random.uniform(-3, 3), random.uniform(-3, 3)};
      const bool poisoned = random.below(3) == 0;
      const int which = random.below(2);
      if (poisoned) target[which] = poison[random.below(3)];
      LimitReasons reasons;
      const SafeCommand command = limiter.limit(target, tick, reasons);
      CHECK_EQ(reasons.is_fault(), poisoned);
      CHECK_EQ((reasons.joint[which] & kLimitNotFinite) != 0, poisoned);
      CHECK_EQ(reasons.joint[1 - which] & kLimitNotFinite, 0);
      for (int j = 0; j < 2; ++j) {
        CHECK(std::isfinite(command.position()[j]));
        excess[j].add(command.position()[j]);
      }
    }
    for (const Excess& e : excess)
      CHECK(e.position <= 0 && e.velocity < 1e-9 && e.acceleration < 1e-8 && e.jerk < 1e-6);
  }
}

TEST(a_pose_outside_the_limits_only_moves_inside) {
  for (int run = 0; run < 600; ++run) {
    Random random(250000 + run);
    const JointSpec joint = random_joint(random);
    const JointLimits& l = joint.limits;
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    const bool above = random.below(2);
    const double start =
        above ? l.max_position + random.log_uniform(1e-9, 1) : l.min_position - random.log_uniform(1e-9, 1);
    REQUIRE(limiter.reset({&start, 1}, 0).has_value());
    CHECK_EQ(limiter.command()[0], start);
    Target target(random, l, start);
    LimitReasons reasons;
    double last = start;
    Excess excess(l, start, dt);
    for (int tick = 1; tick < 500; ++tick) {
      const double wanted = target.next(random, tick, dt);
      const double p =
          (random.below(10) == 0 ? limiter.brake(tick, reasons) : limiter.limit({&wanted, 1}, tick, reasons))
              .position()[0];
      if (last > l.max_position) CHECK(p <= last);
      if (last < l.min_position) CHECK(p >= last);
      if (last <= l.max_position && last >= l.min_position) CHECK(p <= l.max_position && p >= l.min_position);
      CHECK_EQ(reasons.any & (kLimitYieldedJerk | kLimitYieldedAcceleration | kLimitStepCap), 0);
      excess.add(p);
      last = p;
    }
    CHECK(excess.velocity < 1e-9 && excess.acceleration < 1e-8 && excess.jerk < 1e-6);
    // a still target inside brings it in
    const double inside = (l.min_position + l.max_position) / 2;
    for (int tick = 0; tick < 200000 && limiter.command()[0] != inside; ++tick)
      limiter.limit({&inside, 1}, tick, reasons);
    CHECK_EQ(limiter.command()[0], inside);
  }
}

TEST(limits_that_cannot_all_be_kept_yield_jerk_then_acceleration) {
  int num_jerk = 0, num_acceleration = 0;
  for (int run = 0; run < 600; ++run) {
    Random random(290000 + run);
    const JointSpec joint = random_joint(random);
    const JointLimits& l = joint.limits;
    const double dt = kPeriods[random.below(5)];
    SafetyLimiter limiter({&joint, 1}, 7, dt);
    const double start = l.min_position, goal = l.max_position;
    REQUIRE(limiter.reset({&start, 1}, 0).has_value());
    LimitReasons reasons;
    for (int tick = random.below(300); tick > 0; --tick) limiter.limit({&goal, 1}, tick, reasons);
    const double share = random.uniform(0.05, 1);
    double v = limiter.velocity()[0], p = limiter.command()[0], a = 0;
    limiter.set_velocity_share(share);
    std::uint8_t seen = 0;
    for (int tick = 1; tick < 300; ++tick) {
      const double next = limiter.limit({&goal, 1}, tick, reasons).position()[0];
      seen |= reasons.any;
      const double nv = (next - p) / dt, noise = 1e-14 / dt;
      CHECK(std::abs(nv) <= share * l.max_velocity * (1 + 1e-9) + noise);  // never yields
      CHECK(next <= l.max_position && next >= l.min_position);
      if (std::abs((nv - v) / dt) > l.max_acceleration * (1 + 1e-8) + 2 * noise / dt)
        CHECK(reasons.any & kLimitYieldedAcceleration);
      if (reasons.any & kLimitYieldedAcceleration) CHECK(reasons.any & kLimitYieldedJerk);
      const double na = (nv - v) / dt;
      if (tick > 1 && std::abs(na - a) > l.max_jerk * dt * (1 + 1e-6) + 4 * noise / dt)
        CHECK(reasons.any & kLimitYieldedJerk);
      v = nv, p = next, a = na;
    }
    CHECK_EQ(seen & kLimitStepCap, 0);
    num_jerk += (seen & kLimitYieldedJerk) && !(seen & kLimitYieldedAcceleration);
    num_acceleration += (seen & kLimitYieldedAcceleration) != 0;
    for (int tick = 0; tick < 400000 && p != goal; ++tick)
      p = limiter.limit({&goal, 1}, tick, reasons).position()[0];
    CHECK_EQ(p, goal);  // it recovers
  }
  CHECK(num_jerk > 50);
  CHECK(num_acceleration > 50);
}

TEST(reasons_name_the_limit_that_was_met) {
  JointSpec joint;
  joint.name = "joint";
  joint.limits = {-1, 1, 1, 10, 200};
  SafetyLimiter limiter({&joint, 1}, 7, 0.005);
  const double zero = 0;
  LimitReasons reasons;
  const auto first = [&](double target) {
    CHECK(limiter.reset({&zero, 1}, 0).has_value());
    limiter.limit({&target, 1}, 1, reasons);
    return int(reasons.joint[0]);
  };
  CHECK_EQ(first(0), 0);
  CHECK_EQ(first(0.9 * 200 * 0.005 * 0.005 * 0.005), 0);
  CHECK_EQ(first(1.1 * 200 * 0.005 * 0.005 * 0.005), int(kLimitJerk));
  CHECK_EQ(first(1.1 * 10 * 0.005 * 0.005), kLimitJerk | kLimitAcceleration);
  CHECK_EQ(first(1.1 * 0.005), kLimitJerk | kLimitAcceleration | kLimitVelocity);
  CHECK_EQ(first(2), kLimitJerk | kLimitAcceleration | kLimitVelocity | kLimitPosition);
}

TEST(a_command_that_is_pulled_back_never_moves_away_and_keeps_every_limit_afterwards) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> anywhere(-2.5, 2.5);
  constexpr double dt = 0.005;
  long num_pulled = 0;
  for (int run = 0; run < 200; ++run) {
    JointSpec joint;
    joint.name = "joint";
    joint.limits = {-2, 2, 3, 20, 400};
    joint.max_following_error = 0.3;
    joint.static_sag = 0.05;
    joint.grips = run % 3 == 0;
    const double pulled_to = joint.grips ? 0.3 : 0.05;
    SafetyLimiter limiter({&joint, 1}, 1, dt);
    double measured = anywhere(random) / 2;
    REQUIRE(limiter.reset({&measured, 1}, 1).has_value());
    double target = 0, v = 0;
    bool was_pulled = false;
    for (std::uint64_t tick = 2; tick < 400; ++tick) {
      if (tick % 50 == 2) target = anywhere(random);
      measured += std::clamp(limiter.command()[0] - measured, -0.002, 0.002);  // a joint that lags far behind
      const double before = limiter.command()[0], ahead = before - measured;
      was_pulled = limiter.pull_back(0, measured);
      const double now = limiter.command()[0];
      CHECK_EQ(was_pulled, std::abs(ahead) > 0.3);
      if (was_pulled) {
        ++num_pulled;
        CHECK_NEAR(std::abs(now - measured), pulled_to, 1e-12);
        CHECK(std::min(before, measured) <= now && now <= std::max(before, measured));
        v = 0;
      } else {
        CHECK_EQ(now, before);
      }
      LimitReasons reasons;
      const double next = limiter.limit({&target, 1}, tick, reasons).position()[0];
      const double nv = (next - now) / dt;
      CHECK(std::abs(nv) <= 3 * (1 + 1e-9));
      CHECK(std::abs(nv - v) / dt <= 20 * (1 + 1e-6));
      CHECK(next >= -2 && next <= 2);
      v = nv;
    }
  }
  CHECK(num_pulled > 1000);
  JointSpec joint;
  joint.limits = {-2, 2, 3, 20, 400};
  SafetyLimiter limiter({&joint, 1}, 1, dt);
  CHECK(!limiter.pull_back(0, std::nan("")));
}

TEST(commands_carry_robot_and_tick) {
  JointSpec joint;
  joint.name = "joint";
  joint.limits = {-1, 1, 1, 10, 200};
  SafetyLimiter limiter({&joint, 1}, 99, 0.005);
  const double zero = 0;
  const auto measured = limiter.reset({&zero, 1}, 5);
  REQUIRE(measured.has_value());
  CHECK_EQ(measured->robot(), 99u);
  CHECK_EQ(measured->tick(), 5u);
  LimitReasons reasons;
  CHECK_EQ(limiter.limit({&zero, 1}, 6, reasons).tick(), 6u);
  CHECK_EQ(limiter.brake(7, reasons).tick(), 7u);
  CHECK_EQ(limiter.brake(8, reasons).position().size(), 1u);
}

TEST(wrong_limits_are_named) {
  const auto make = [](auto change) {
    JointSpec joint;
    joint.name = "elbow";
    joint.limits = {-1, 1, 1, 10, 200};
    change(joint.limits);
    SafetyLimiter limiter({&joint, 1}, 1, 0.005);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(make([&](JointLimits& l) { l.max_velocity = 0; }), ConfigError, "'elbow': max_velocity");
  CHECK_THROWS(make([&](JointLimits& l) { l.max_acceleration = -1; }), ConfigError, "max_acceleration");
  CHECK_THROWS(make([&](JointLimits& l) { l.max_jerk = nan; }), ConfigError, "max_jerk");
  CHECK_THROWS(make([&](JointLimits& l) { l.max_position = -1; }), ConfigError, "max_position");
  CHECK_THROWS(make([&](JointLimits& l) { l.min_position = nan; }), ConfigError, "min_position");
  CHECK_THROWS(SafetyLimiter({}, 1, 0.005), ConfigError, "1 to 64 joints");
}
