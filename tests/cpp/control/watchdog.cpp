// Watchdog and StateMachine: every rule once, without a loop.
// SPDX-License-Identifier: Apache-2.0
#include "control/watchdog.hpp"

#include <cmath>

#include "check.hpp"
#include "control/state_machine.hpp"

using namespace wallx;

namespace {

const TimePoint kNow{std::chrono::seconds(100)};
const WatchdogConfig kConfig{std::chrono::milliseconds(15), std::chrono::milliseconds(100)};

JointState fresh() {
  JointState state;
  state.num_joints = 3;
  for (std::size_t j = 0; j < 3; ++j) state.sampled_at[j] = kNow;
  return state;
}

Finding find(const JointState& state, bool has_plan = true, bool exhausted = false, bool closed = false) {
  return watch(kConfig, {kNow, &state, closed, has_plan, exhausted});
}

const Finding kOk{};
const Finding kNoPlan{Verdict::hold, Reason::no_plan, -1};
const Finding kStaleHold{Verdict::hold, Reason::stale_feedback, 1};
const Finding kStaleFault{Verdict::fault, Reason::stale_feedback, 1};
const Finding kClosed{Verdict::fault, Reason::bus_closed, -1};

StateMachine calibrated() {
  StateMachine machine;
  machine.decide({0, kNoPlan, true, false});
  return machine;
}

StateMachine running() {
  StateMachine machine = calibrated();
  machine.decide({kRequestEnable, kNoPlan, true, false});
  machine.enabled();
  machine.decide({0, kOk, true, false});
  machine.decide({0, kOk, false, true});
  return machine;
}

}  // namespace

TEST(watchdog_is_content_with_fresh_feedback_and_rows) {
  JointState state = fresh();
  state.sampled_at[0] = kNow + std::chrono::milliseconds(3);  // answers arrive after the tick's time
  CHECK(find(state).verdict == Verdict::ok);
  CHECK_EQ(sample_age(state, 0, kNow), 0.0);
}

TEST(watchdog_holds_then_faults_on_the_oldest_joint) {
  JointState state = fresh();
  state.sampled_at[1] = kNow - std::chrono::milliseconds(15);
  CHECK(find(state).verdict == Verdict::ok);
  state.sampled_at[1] -= std::chrono::nanoseconds(1);
  CHECK(find(state).verdict == Verdict::hold && find(state).reason == Reason::stale_feedback);
  CHECK_EQ(find(state).joint, 1);
  state.sampled_at[2] = kNow - std::chrono::milliseconds(100);
  CHECK(find(state).verdict == Verdict::hold);
  CHECK_EQ(find(state).joint, 2);
  state.sampled_at[2] -= std::chrono::nanoseconds(1);
  CHECK(find(state).verdict == Verdict::fault);
  state = fresh();
  state.sampled_at[0] = TimePoint{};  // never
  CHECK(find(state).verdict == Verdict::fault);
  CHECK_EQ(find(state).joint, 0);
}

TEST(watchdog_holds_without_rows_and_faults_on_a_closed_bus_or_nan) {
  JointState state = fresh();
  CHECK(find(state, false).verdict == Verdict::hold && find(state, false).reason == Reason::no_plan);
  CHECK(find(state, true, true).verdict == Verdict::hold &&
        find(state, true, true).reason == Reason::plan_exhausted);
  CHECK(find(state, true, false, true).verdict == Verdict::fault);
  CHECK(find(state, true, false, true).reason == Reason::bus_closed);
  state.position[2] = std::nan("");
  CHECK(find(state).verdict == Verdict::fault && find(state).reason == Reason::not_finite);
  CHECK_EQ(find(state).joint, 2);
  state.position[3] = state.position[2];
  state.position[2] = 0;
  CHECK(find(state).verdict == Verdict::ok);  // not a joint of this robot
}

TEST(watchdog_faults_on_what_a_drives_family_calls_a_fault) {
  JointState state = fresh();
  state.drive_error[1] = 1;
  state.drive_health[1] = DriveHealth::warning;
  CHECK(find(state).verdict == Verdict::ok);
  state.drive_health[1] = DriveHealth::fault;
  CHECK(find(state).verdict == Verdict::fault && find(state).reason == Reason::drive_fault);
  CHECK_EQ(find(state).joint, 1);
}

TEST(a_loop_identifies_every_joint_before_it_is_calibrated) {
  StateMachine machine;
  CHECK(machine.state() == LoopState::boot);
  machine.decide({0, kStaleFault, true, false});
  CHECK(machine.state() == LoopState::identify);
  machine.decide({0, kStaleHold, true, false});
  CHECK(machine.state() == LoopState::identify);
  machine.decide({0, kNoPlan, true, false});
  CHECK(machine.state() == LoopState::calibrated);
  machine.decide({0, kStaleHold, true, false});
  CHECK(machine.state() == LoopState::calibrated);  // one lost answer
  machine.decide({0, kStaleFault, true, false});
  CHECK(machine.state() == LoopState::identify);
}

TEST(only_enable_leads_to_motion) {
  StateMachine machine = calibrated();
  for (const std::uint8_t request : {kRequestHold, kRequestResume, kRequestReset}) {
    const Decision decision = machine.decide({request, kOk, true, true});
    CHECK(machine.state() == LoopState::calibrated);
    CHECK(decision.motion == Motion::none && !decision.enables);
  }
  CHECK(machine.decide({kRequestEnable, kNoPlan, true, false}).enables);
  machine.enabled();
  CHECK(machine.state() == LoopState::armed);
  CHECK(machine.decide({0, kNoPlan, true, false}).motion == Motion::brake);
  CHECK(machine.state() == LoopState::armed);  // stands, until there is a plan
  CHECK(machine.decide({0, kOk, true, false}).motion == Motion::follow);
  CHECK(machine.state() == LoopState::ramp);
}

TEST(an_armed_robot_holds_when_it_is_told_to_or_when_a_joint_is_silent) {
  for (const Finding& finding : {kStaleHold, kOk}) {
    StateMachine machine = calibrated();
    machine.decide({kRequestEnable, kNoPlan, true, false});
    machine.enabled();
    const std::uint8_t request = finding.verdict == Verdict::ok ? kRequestHold : Request{};
    machine.decide({request, finding, true, false});
    CHECK(machine.state() == LoopState::hold);
  }
}

TEST(release_needs_rest_and_says_off) {
  StateMachine machine = running();
  CHECK(!machine.decide({kRequestRelease, kOk, true, true}).releases);  // not out of motion
  CHECK(machine.state() == LoopState::run);
  machine.decide({kRequestHold, kOk, false, true});
  CHECK(!machine.decide({kRequestRelease, kNoPlan, false, true}).releases);
  CHECK(machine.decide({0, kNoPlan, true, true}).releases);
  CHECK(machine.decide({0, kNoPlan, true, true}).releases);  // until it worked
  machine.released();
  CHECK(machine.state() == LoopState::off);
  const Decision decision = machine.decide({kRequestResume, kOk, true, true});
  CHECK(decision.motion == Motion::none && !decision.releases && !decision.enables);
  CHECK(machine.decide({kRequestEnable, kNoPlan, true, false}).enables);
}

TEST(release_in_fault_takes_the_torque_and_stays_latched) {
  StateMachine machine = running();
  machine.decide({kRequestEstop, kOk, false, true});
  CHECK(!machine.decide({kRequestRelease, kOk, false, false}).releases);
  CHECK(machine.decide({0, kOk, true, false}).releases);
  machine.released();
  CHECK(machine.is_estop() && !machine.is_enabled());
  CHECK(machine.decide({kRequestEnable, kOk, true, false}).motion == Motion::none);
  machine.decide({kRequestReset, kOk, true, false});
  machine.decide({0, kOk, true, false});
  CHECK(machine.state() == LoopState::calibrated);
}

TEST(enabling_waits_for_fresh_feedback) {
  StateMachine machine = calibrated();
  CHECK(!machine.decide({kRequestEnable, kStaleHold, true, false}).enables);
  CHECK(machine.state() == LoopState::calibrated);
  CHECK(machine.decide({0, kOk, true, false}).enables);
  StateMachine silent;
  CHECK(!silent.decide({kRequestEnable, kStaleFault, true, false}).enables);
  CHECK(silent.state() == LoopState::fault);
  CHECK(!silent.decide({0, kOk, true, false}).enables);
}

TEST(hold_resumes_through_ramp_and_only_at_rest) {
  StateMachine machine = running();
  CHECK(machine.state() == LoopState::run);
  const Finding exhausted{Verdict::hold, Reason::plan_exhausted, -1};
  Decision decision = machine.decide({0, exhausted, false, true});
  CHECK(machine.state() == LoopState::hold && decision.motion == Motion::brake &&
        !decision.starts_generation);
  machine.decide({0, kOk, false, false});
  CHECK(machine.state() == LoopState::hold);  // still moving
  CHECK(machine.decide({0, kOk, true, false}).motion == Motion::follow);
  CHECK(machine.state() == LoopState::ramp);
  machine.decide({0, kOk, false, false});
  CHECK(machine.state() == LoopState::ramp);
  machine.decide({0, kOk, false, true});
  CHECK(machine.state() == LoopState::run);
}

TEST(estop_outranks_faults_except_a_closed_bus) {
  StateMachine machine = running();
  CHECK(machine.decide({kRequestEstop, kOk, false, true}).starts_generation);
  CHECK(machine.is_estop());
  CHECK(!machine.decide({kRequestEstop, kOk, false, true}).starts_generation);
  CHECK(machine.decide({0, kStaleFault, false, false}).motion == Motion::brake);
  CHECK(machine.is_estop());
  CHECK(!machine.fail({Verdict::fault, Reason::send_failed, -1}));
  machine.decide({0, kClosed, true, false});
  CHECK(machine.state() == LoopState::fault && machine.cause().reason == Reason::bus_closed);
  machine.decide({kRequestEstop, kClosed, true, false});
  CHECK(!machine.is_estop());

  StateMachine faulted = running();
  faulted.decide({0, kStaleFault, false, false});
  CHECK(faulted.state() == LoopState::fault && !faulted.is_estop());
  faulted.decide({kRequestEstop, kStaleFault, true, false});
  CHECK(faulted.is_estop());
}

TEST(a_fault_is_latched_and_keeps_holding) {
  StateMachine machine = running();
  CHECK(machine.decide({0, kStaleFault, false, true}).starts_generation);
  for (const std::uint8_t request : {kRequestEnable, kRequestHold, kRequestResume}) {
    const Decision decision = machine.decide({request, kOk, true, true});
    CHECK(machine.state() == LoopState::fault);
    CHECK(decision.motion == Motion::brake);
  }
  machine.decide({kRequestReset, kOk, false, true});
  CHECK(machine.state() == LoopState::fault);  // not while it moves
  CHECK(machine.decide({0, kOk, true, true}).motion == Motion::none);
  CHECK(machine.state() == LoopState::identify);
}

TEST(an_estop_before_enabling_blocks_enabling) {
  StateMachine machine;
  const Decision decision = machine.decide({kRequestEstop | kRequestEnable, kOk, true, false});
  CHECK(machine.is_estop());
  CHECK(decision.motion == Motion::none && !decision.enables);
  CHECK(!machine.decide({kRequestEnable, kOk, true, false}).enables);
}
