// Robot contract: what every Robot promises, written once; ROBOT_CONTRACT(family, make_arm) runs it for one
// motor family against its emulator, in lock-step on a simulated clock. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"
#include "contract/command_maker.hpp"
#include "hardware/robot.hpp"

namespace wallx::test {

// one way in which a unit may differ from what embodiment and calibration say
struct Mismatch {
  std::string what;                // for the failing test's message
  std::function<void()> spoil;     // makes joint 1 differ, before connect()
  std::vector<std::string> parts;  // the refusal must contain each: what, the found and the expected value
};

// Three joints or more, at rest, torque off, no gravity, mid-range; and what a test may do to them. Joint
// arguments are indices, positions are the joint's own in SI, by the emulator's account and not the driver's.
class ArmUnderTest {
 public:
  virtual ~ArmUnderTest() = default;
  virtual Robot& robot() = 0;
  virtual void advance(Duration duration) = 0;       // simulated time passes
  virtual double position(std::size_t joint) = 0;    // where it stands          [rad]
  virtual double goal(std::size_t joint) = 0;        // what it was told last    [rad]
  virtual double resolution(std::size_t joint) = 0;  // one unit on the wire     [rad]
  virtual bool has_torque(std::size_t joint) = 0;
  virtual double torque_bound(std::size_t joint) = 0;  // share of its configured maximum
  virtual std::uint64_t num_requests() = 0;            // whatever the host sent, so far
  virtual std::uint64_t num_writes() = 0;              // those that change a motor's registers or state
  virtual void silence(std::size_t joint, bool is_silent) = 0;
  virtual void reboot(std::size_t joint) = 0;  // volatile state lost; answers again soon after
  virtual void hang_up() = 0;                  // the line's far end is gone
  virtual std::vector<Mismatch> mismatches() = 0;
};
using MakeArm = std::unique_ptr<ArmUnderTest> (*)();

namespace robot_contract {

inline constexpr Duration kTick = std::chrono::milliseconds(5);
inline constexpr TimePoint kNever = TimePoint::max();  // nothing waits for real time here

// one arm with what every test needs
struct Bench {
  explicit Bench(MakeArm make) : arm(make()), robot(arm->robot()) {}

  std::size_t size() const { return robot.embodiment().joints.size(); }
  SafeCommand command(const std::vector<double>& position) const {
    return SafetyLimiter::make(robot.serial(), tick, position);
  }
  std::vector<double> measured() const {
    return {state.position.begin(), state.position.begin() + static_cast<std::ptrdiff_t>(size())};
  }
  Result read() { return robot.read(kNever, state); }
  Result send(const std::vector<double>& position) { return robot.send(command(position), tick, kNever); }
  Result enable(const std::vector<double>& position) { return robot.enable(command(position), tick, kNever); }
  void start() {
    robot.connect();
    REQUIRE(read().ok());
    REQUIRE(enable(measured()).ok());
  }
  // one period of a loop; the first failure of read and send
  Result cycle(const std::vector<double>& position) {
    ++tick;
    arm->advance(kTick);
    const Result result = read();
    const Result sent = send(position);
    return result.ok() ? sent : result;
  }
  // `cycles` periods on the straight line from the first to the last position
  void move(const std::vector<double>& from, const std::vector<double>& to, int cycles) {
    std::vector<double> row(size());
    for (int i = 1; i <= cycles; ++i) {
      for (std::size_t k = 0; k < size(); ++k) row[k] = from[k] + (to[k] - from[k]) * i / cycles;
      REQUIRE(cycle(row).ok());
    }
  }

  std::unique_ptr<ArmUnderTest> arm;
  Robot& robot;
  JointState state;
  std::uint64_t tick = 1;
};

inline void has_torque_nowhere(Bench& bench) {
  for (std::size_t i = 0; i < bench.size(); ++i) CHECK(!bench.arm->has_torque(i));
}

inline void connect_finds_every_motor_and_changes_nothing(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  CHECK(bench.arm->num_requests() > 0);
  CHECK_EQ(bench.arm->num_writes(), 0u);
  has_torque_nowhere(bench);
  const std::uint64_t requests = bench.arm->num_requests();
  bench.robot.connect();  // twice is once
  CHECK_EQ(bench.arm->num_requests(), requests);
}

inline void connect_refuses_every_mismatch_with_both_values_and_enables_nothing(MakeArm make) {
  const std::size_t count = make()->mismatches().size();
  CHECK(count > 0);
  for (std::size_t i = 0; i < count; ++i) {
    Bench bench(make);
    const Mismatch mismatch = bench.arm->mismatches()[i];
    mismatch.spoil();
    std::string message;
    try {
      bench.robot.connect();
      fail(__FILE__, __LINE__, "accepted: " + mismatch.what);
      continue;
    } catch (const WallxError& error) {
      message = error.what();
    }
    std::vector<std::string> parts = mismatch.parts;
    parts.push_back("'" + bench.robot.embodiment().joints[1].name + "'");
    for (const std::string& part : parts)
      if (message.find(part) == std::string::npos)
        fail(__FILE__, __LINE__, mismatch.what + ": message lacks '" + part + "': " + message);
    CHECK_EQ(bench.arm->num_writes(), 0u);
    has_torque_nowhere(bench);
    CHECK(bench.read().code == ErrorCode::wrong_state);
    CHECK(bench.enable(std::vector<double>(bench.size())).code == ErrorCode::wrong_state);
    CHECK_EQ(bench.arm->num_writes(), 0u);
  }
}

inline void connect_names_the_motor_that_is_silent(MakeArm make) {
  Bench bench(make);
  bench.arm->silence(1, true);
  const std::string name = "'" + bench.robot.embodiment().joints[1].name + "'";
  CHECK_THROWS(bench.robot.connect(), BusTimeout, name.c_str());
  bench.arm->silence(1, false);
  bench.robot.connect();
  CHECK(bench.read().ok());
}

inline void read_gives_si_and_times(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  const TimePoint before = Clock::now();
  REQUIRE(bench.read().ok());
  const TimePoint after = Clock::now();
  CHECK_EQ(bench.state.num_joints, bench.size());
  for (std::size_t i = 0; i < bench.size(); ++i) {
    CHECK_NEAR(bench.state.position[i], bench.arm->position(i), bench.arm->resolution(i));
    CHECK(std::abs(bench.state.velocity[i]) < 0.05);
    CHECK(std::abs(bench.state.load[i]) < 0.05);
    CHECK(bench.state.sampled_at[i] >= before && bench.state.sampled_at[i] <= after);
    CHECK_EQ(int{bench.state.drive_error[i]}, 0);
  }
  CHECK_EQ(bench.arm->num_writes(), 0u);
}

inline void a_silent_motor_keeps_its_old_entry_and_time(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  const JointState old = bench.state;
  bench.arm->silence(1, true);
  const Result result = bench.read();
  CHECK(result.code == ErrorCode::timeout);
  CHECK_EQ(result.joint, 1);
  CHECK_EQ(bench.state.position[1], old.position[1]);
  CHECK(bench.state.sampled_at[1] == old.sampled_at[1]);
  CHECK(bench.state.sampled_at[0] > old.sampled_at[0]);
  CHECK(bench.state.sampled_at[2] > old.sampled_at[2]);
  bench.arm->silence(1, false);
  CHECK(bench.read().ok());
  CHECK(bench.state.sampled_at[1] > old.sampled_at[1]);
}

inline void a_motor_that_never_answered_has_no_time(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  bench.arm->silence(1, true);
  CHECK(!bench.read().ok());
  CHECK(bench.state.sampled_at[1] == TimePoint{});
}

inline void nothing_works_before_connect_or_after_disconnect(MakeArm make) {
  Bench bench(make);
  const std::vector<double> zero(bench.size());
  for (int round = 0; round < 2; ++round) {
    const std::uint64_t requests = bench.arm->num_requests();
    CHECK(bench.read().code == ErrorCode::wrong_state);
    CHECK(bench.send(zero).code == ErrorCode::wrong_state);
    CHECK(bench.enable(zero).code == ErrorCode::wrong_state);
    CHECK(bench.robot.limit_torque(0.5, kNever).code == ErrorCode::wrong_state);
    CHECK_EQ(bench.arm->num_requests(), requests);
    if (round == 0) bench.start();
    bench.robot.disconnect();
  }
}

inline void send_is_refused_until_enable(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  CHECK(bench.send(bench.measured()).code == ErrorCode::wrong_state);
  CHECK_EQ(bench.arm->num_writes(), 0u);
  REQUIRE(bench.enable(bench.measured()).ok());
  bench.robot.disconnect();
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  const std::uint64_t writes = bench.arm->num_writes();
  CHECK(bench.send(bench.measured()).code == ErrorCode::wrong_state);
  CHECK_EQ(bench.arm->num_writes(), writes);
}

inline void send_refuses_another_robots_ticks_or_widths_command(MakeArm make) {
  Bench bench(make), other(make);
  CHECK(bench.robot.serial() != other.robot.serial());
  bench.start();
  const std::vector<double> row = bench.measured();
  const std::uint64_t writes = bench.arm->num_writes(), tick = bench.tick;
  CHECK(bench.robot.send(other.command(row), tick, kNever).code == ErrorCode::wrong_state);
  CHECK(bench.robot.send(bench.command(row), tick + 1, kNever).code == ErrorCode::wrong_state);
  CHECK(bench.robot.send(bench.command(row), tick - 1, kNever).code == ErrorCode::wrong_state);
  std::vector<double> narrow = row;
  narrow.pop_back();
  CHECK(bench.send(narrow).code == ErrorCode::wrong_state);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::vector<double> broken = row;
    broken[1] = bad;
    const Result result = bench.send(broken);
    CHECK(result.code == ErrorCode::not_finite);
    CHECK_EQ(result.joint, 1);
  }
  CHECK_EQ(bench.arm->num_writes(), writes);
  CHECK(bench.send(row).ok());
}

inline void enable_holds_the_measured_pose(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  std::vector<double> before;
  for (std::size_t i = 0; i < bench.size(); ++i) before.push_back(bench.arm->position(i));
  REQUIRE(bench.enable(bench.measured()).ok());
  for (std::size_t i = 0; i < bench.size(); ++i) {
    CHECK(bench.arm->has_torque(i));
    CHECK_NEAR(bench.arm->goal(i), bench.state.position[i], bench.arm->resolution(i));
    CHECK_NEAR(bench.arm->torque_bound(i), 1.0, 0.01);
  }
  for (int i = 0; i < 100; ++i) REQUIRE(bench.cycle(bench.measured()).ok());
  for (std::size_t i = 0; i < bench.size(); ++i)
    CHECK_NEAR(bench.arm->position(i), before[i], 4 * bench.arm->resolution(i));
}

inline void enable_refuses_a_pose_that_was_not_measured(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  CHECK(bench.enable(std::vector<double>(bench.size())).code == ErrorCode::wrong_state);  // never read
  REQUIRE(bench.read().ok());
  std::vector<double> far = bench.measured();
  far[1] += 0.2;
  const Result result = bench.enable(far);
  CHECK(result.code == ErrorCode::out_of_range);
  CHECK_EQ(result.joint, 1);
  far[1] = std::nan("");
  CHECK(bench.enable(far).code == ErrorCode::not_finite);
  CHECK(bench.robot.enable(bench.command(bench.measured()), bench.tick + 1, kNever).code ==
        ErrorCode::wrong_state);
  bench.arm->silence(1, true);
  CHECK(!bench.read().ok());
  CHECK(bench.enable(bench.measured()).code == ErrorCode::wrong_state);  // the last read missed a joint
  bench.arm->silence(1, false);
  CHECK_EQ(bench.arm->num_writes(), 0u);
  has_torque_nowhere(bench);
}

inline void enable_fails_when_a_motor_does_not_confirm(MakeArm make) {
  Bench bench(make);
  bench.robot.connect();
  REQUIRE(bench.read().ok());
  bench.arm->silence(1, true);
  const Result result = bench.enable(bench.measured());
  CHECK(!result.ok());
  CHECK_EQ(result.joint, 1);
}

inline void motors_go_where_they_are_sent_in_both_directions(MakeArm make) {
  Bench bench(make);
  bench.start();
  std::vector<double> at = bench.measured();
  for (const double offset : {0.3, -0.3}) {
    std::vector<double> to(bench.size());
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = bench.arm->position(i) + offset;
    bench.move(at, to, 60);
    for (std::size_t i = 0; i < to.size(); ++i) CHECK(bench.state.velocity[i] * offset > 0);
    at = to;
    for (int i = 0; i < 200; ++i) REQUIRE(bench.cycle(at).ok());
    for (std::size_t i = 0; i < to.size(); ++i) {
      CHECK_NEAR(bench.arm->position(i), to[i], 0.03);  // what the controller leaves, not what rounding does
      CHECK_NEAR(bench.state.position[i], bench.arm->position(i), 2 * bench.arm->resolution(i));
    }
  }
}

// both ways and over the whole range: what is sent arrives, and what is measured is what stands there
inline void positions_survive_the_wire_within_one_unit(MakeArm make) {
  Bench bench(make);
  bench.start();
  std::vector<double> at = bench.measured();
  constexpr int kPlaces = 13;
  for (int place = 0; place < kPlaces; ++place) {
    std::vector<double> to(bench.size());
    for (std::size_t i = 0; i < to.size(); ++i) {
      const JointLimits& limits = bench.robot.embodiment().joints[i].limits;
      to[i] = limits.min_position + (limits.max_position - limits.min_position) * place / (kPlaces - 1);
    }
    bench.move(at, to, place == 0 ? 300 : 60);
    at = to;
    for (int i = 0; i < 100; ++i) REQUIRE(bench.cycle(at).ok());
    for (std::size_t i = 0; i < to.size(); ++i) {
      CHECK_NEAR(bench.arm->goal(i), to[i], bench.arm->resolution(i));
      CHECK_NEAR(bench.state.position[i], bench.arm->position(i), 2 * bench.arm->resolution(i));
    }
  }
}

inline void a_motor_that_restarted_is_noticed_and_the_others_hold(MakeArm make) {
  Bench bench(make);
  bench.start();
  const std::vector<double> row = bench.measured();
  REQUIRE(bench.cycle(row).ok());
  bench.arm->reboot(1);
  Result found;
  for (int i = 0; i < 200 && found.code != ErrorCode::torque_off; ++i) {
    const Result result = bench.cycle(row);
    if (!result.ok()) found = result;
  }
  CHECK(found.code == ErrorCode::torque_off);
  CHECK_EQ(found.joint, 1);
  CHECK(!bench.arm->has_torque(1));  // nothing turned it on again behind the loop's back
  CHECK(bench.arm->has_torque(0));
  CHECK(bench.arm->has_torque(2));
  REQUIRE(bench.read().code == ErrorCode::torque_off);
  REQUIRE(bench.enable(bench.measured()).ok());
  CHECK(bench.arm->has_torque(1));
  CHECK(bench.cycle(row).ok());
}

inline void limit_torque_bounds_it_and_keeps_it_on(MakeArm make) {
  Bench bench(make);
  bench.start();
  CHECK(bench.robot.limit_torque(0.25, kNever).ok());
  bench.arm->advance(kTick);
  for (std::size_t i = 0; i < bench.size(); ++i) {
    CHECK_NEAR(bench.arm->torque_bound(i), 0.25, 0.02);
    CHECK(bench.arm->has_torque(i));
  }
  CHECK(bench.robot.limit_torque(1e-9, kNever).ok());
  bench.arm->advance(kTick);
  for (std::size_t i = 0; i < bench.size(); ++i) CHECK(bench.arm->has_torque(i));
  const std::uint64_t writes = bench.arm->num_writes();
  for (const double bad : {0.0, -0.1, 1.0001})
    CHECK(bench.robot.limit_torque(bad, kNever).code == ErrorCode::out_of_range);
  CHECK(bench.robot.limit_torque(std::nan(""), kNever).code == ErrorCode::not_finite);
  CHECK_EQ(bench.arm->num_writes(), writes);
}

inline void enable_restores_the_torque_that_a_stop_took(MakeArm make) {
  Bench bench(make);
  bench.start();
  CHECK(bench.robot.limit_torque(0.1, kNever).ok());
  REQUIRE(bench.read().ok());
  REQUIRE(bench.enable(bench.measured()).ok());
  bench.arm->advance(kTick);
  for (std::size_t i = 0; i < bench.size(); ++i) CHECK_NEAR(bench.arm->torque_bound(i), 1.0, 0.01);
}

inline void disconnect_sends_nothing_and_leaves_the_torque(MakeArm make) {
  Bench bench(make);
  bench.robot.disconnect();
  bench.start();
  const std::uint64_t requests = bench.arm->num_requests();
  bench.robot.disconnect();
  bench.robot.disconnect();
  CHECK_EQ(bench.arm->num_requests(), requests);
  for (std::size_t i = 0; i < bench.size(); ++i) CHECK(bench.arm->has_torque(i));
  bench.start();  // and again
  CHECK(bench.send(bench.measured()).ok());
}

inline void a_bus_that_is_gone_is_reported_by_every_call(MakeArm make) {
  Bench bench(make);
  bench.start();
  const std::vector<double> row = bench.measured();
  bench.arm->hang_up();
  CHECK(bench.read().code == ErrorCode::bus_closed);
  CHECK(bench.send(row).code == ErrorCode::bus_closed);
  CHECK(bench.robot.limit_torque(0.5, kNever).code == ErrorCode::bus_closed);
  bench.robot.disconnect();
  CHECK_THROWS(bench.robot.connect(), BusError, "");
}

}  // namespace robot_contract
}  // namespace wallx::test

#define ROBOT_PROMISE(family, make, promise) \
  TEST(family##_##promise) { ::wallx::test::robot_contract::promise(make); }

#define ROBOT_CONTRACT(family, make)                                                               \
  ROBOT_PROMISE(family, make, connect_finds_every_motor_and_changes_nothing)                       \
  ROBOT_PROMISE(family, make, connect_refuses_every_mismatch_with_both_values_and_enables_nothing) \
  ROBOT_PROMISE(family, make, connect_names_the_motor_that_is_silent)                              \
  ROBOT_PROMISE(family, make, read_gives_si_and_times)                                             \
  ROBOT_PROMISE(family, make, a_silent_motor_keeps_its_old_entry_and_time)                         \
  ROBOT_PROMISE(family, make, a_motor_that_never_answered_has_no_time)                             \
  ROBOT_PROMISE(family, make, nothing_works_before_connect_or_after_disconnect)                    \
  ROBOT_PROMISE(family, make, send_is_refused_until_enable)                                        \
  ROBOT_PROMISE(family, make, send_refuses_another_robots_ticks_or_widths_command)                 \
  ROBOT_PROMISE(family, make, enable_holds_the_measured_pose)                                      \
  ROBOT_PROMISE(family, make, enable_refuses_a_pose_that_was_not_measured)                         \
  ROBOT_PROMISE(family, make, enable_fails_when_a_motor_does_not_confirm)                          \
  ROBOT_PROMISE(family, make, motors_go_where_they_are_sent_in_both_directions)                    \
  ROBOT_PROMISE(family, make, positions_survive_the_wire_within_one_unit)                          \
  ROBOT_PROMISE(family, make, a_motor_that_restarted_is_noticed_and_the_others_hold)               \
  ROBOT_PROMISE(family, make, limit_torque_bounds_it_and_keeps_it_on)                              \
  ROBOT_PROMISE(family, make, enable_restores_the_torque_that_a_stop_took)                         \
  ROBOT_PROMISE(family, make, disconnect_sends_nothing_and_leaves_the_torque)                      \
  ROBOT_PROMISE(family, make, a_bus_that_is_gone_is_reported_by_every_call)
