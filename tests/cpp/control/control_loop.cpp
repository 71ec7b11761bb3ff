// ControlLoop: what it promises to a robot, on a fake robot and a fake clock.
// SPDX-License-Identifier: Apache-2.0
#include "control/control_loop.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <set>

#include "allocation_counter.hpp"
#include "base/errors.hpp"
#include "check.hpp"
#include "control/estop.hpp"
#include "fake_robot.hpp"

using namespace wallx;
using wallx::test::Bench;
using wallx::test::check_limits;
using wallx::test::FakeRobot;

namespace {

bool is_still(const Bench& bench, int last) {
  const auto& sent = bench.robot->sent;
  for (std::size_t i = sent.size() - static_cast<std::size_t>(last); i < sent.size(); ++i)
    if (sent[i] != sent.back()) return false;
  return true;
}

}  // namespace

TEST(calibrated_sends_nothing_and_reads) {
  Bench bench;
  bench.go_to(1);
  const LoopRecord& record = bench.tick(20);
  CHECK(record.state == LoopState::calibrated);
  CHECK_EQ(bench.robot->num_sends + bench.robot->num_enables, 0);
  CHECK(!record.has_command);
  CHECK_EQ(record.measured[1], bench.robot->pose[1]);
  CHECK_EQ(record.command[1], bench.robot->pose[1]);
}

TEST(startup_is_ramped_from_the_measured_pose) {
  Bench bench;
  bench.tick(5);
  bench.enable();
  CHECK_EQ(bench.robot->num_enables, 1);
  CHECK_EQ(bench.robot->sent.front()[2], 0.1 * 3);        // the measured pose
  CHECK(bench.records.back().state == LoopState::armed);  // no rows yet
  bench.go_to(1.0);
  bench.tick();
  CHECK(bench.records.back().state == LoopState::ramp);
  const int ticks = bench.tick_until(LoopState::run, 2000);
  CHECK(ticks > 100);
  check_limits(*bench.robot, 0.005, 0.25);
  for (int j = 0; j < 3; ++j) CHECK_EQ(bench.robot->goal[j], 1.0);
}

TEST(commands_equal_rows_when_not_limited) {
  Bench bench;
  bench.enable();
  std::vector<double> rows;
  const double start[] = {bench.robot->goal[0], bench.robot->goal[1], bench.robot->goal[2]};
  for (int i = 0; i < 40; ++i)
    for (int j = 0; j < 3; ++j) rows.push_back(start[j] + 0.05 * (1 - std::cos(2.0 * i * 0.05)));
  // a start between ticks is moved up to the next one
  const std::uint64_t sequence = bench.loop->submit(rows, bench.now + std::chrono::microseconds(1),
                                                    Seconds(0.05), bench.loop->generation());
  CHECK_EQ(sequence, 1u);
  int num_rows_met = 0, num_limited = 0;
  std::set<int> met;
  for (int i = 0; i < 39 * 10 + 1; ++i) {
    const LoopRecord& r = bench.tick();
    const bool limited = std::any_of(r.reasons.begin(), r.reasons.end(), [](auto x) { return x != 0; });
    num_limited += limited;
    CHECK_EQ(r.is_exact, !limited);
    if (!r.is_on_row || limited) continue;
    ++num_rows_met;
    met.insert(r.row);
    for (int j = 0; j < 3; ++j) CHECK_EQ(r.command[j], rows[r.row * 3 + j]);
    CHECK_EQ(r.plan_sequence, 1u);
  }
  CHECK_EQ(num_limited, 0);
  CHECK_EQ(num_rows_met, 40);
  CHECK_EQ(met.size(), 40u);
  CHECK(bench.records.back().state == LoopState::run);
  CHECK_EQ(bench.robot->goal[0], rows[39 * 3]);
}

TEST(rows_that_cannot_fall_on_ticks_stay_where_they_are_put) {
  Bench bench;
  bench.enable();
  const double pose = bench.robot->goal[0],
               slope = 0.1;  // rad/s, straight: the spline is the line, but at its end
  const double step = 1.0 / 30;
  std::vector<double> rows;
  for (int i = 0; i < 60; ++i)
    for (int j = 0; j < 3; ++j) rows.push_back(bench.robot->goal[j] + slope * i * step);
  const TimePoint start = bench.now + std::chrono::microseconds(1234);
  bench.loop->submit(rows, start, Seconds(step), bench.loop->generation());
  for (int i = 0; i < 200; ++i) {
    const LoopRecord& record = bench.tick();
    if (record.plan_sequence == 0 || record.row > 40) continue;
    const double since = to_seconds(record.scheduled - start);
    CHECK_NEAR(record.target[0], pose + slope * since, 1e-6);
  }
}

TEST(holds_when_the_chunk_is_late) {
  Bench bench;
  bench.enable();
  bench.wave(20, 0.05);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  REQUIRE(bench.tick_until(LoopState::hold, 400) > 0);
  CHECK(bench.records.back().cause.reason == Reason::plan_exhausted);
  CHECK_EQ(bench.loop->generation(), 0u);  // nobody stopped it: the late chunk is welcome
  bench.tick(200);
  CHECK(is_still(bench, 100));
  check_limits(*bench.robot, 0.005);
  const double held = bench.robot->goal[0];
  bench.wave(20, 0.05, 0.1);
  CHECK(bench.tick_until(LoopState::ramp, 3) > 0);
  CHECK(bench.tick_until(LoopState::run, 400) > 0);
  check_limits(*bench.robot, 0.005);
  CHECK(bench.robot->goal[0] != held);
  CHECK_EQ(bench.loop->counters().num_holds, 1u);  // none for the missing first plan
}

TEST(a_hold_asked_for_lasts_until_resume_and_a_new_plan) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(60);
  bench.loop->request(kRequestHold);
  CHECK(bench.tick().state == LoopState::hold);
  CHECK_EQ(bench.loop->generation(), 1u);
  CHECK(bench.records.back().cause.reason == Reason::requested);
  bench.tick(300);
  CHECK(is_still(bench, 100));
  check_limits(*bench.robot, 0.005);
  // a plan alone does not move it
  CHECK(bench.wave(100, 0.05) > 0);
  bench.tick(50);
  CHECK(bench.records.back().state == LoopState::hold);
  CHECK(is_still(bench, 100));
  // nor does resume without one
  bench.loop->request(kRequestHold);
  bench.tick(2);
  bench.loop->request(kRequestResume);
  bench.tick(50);
  CHECK(bench.records.back().state == LoopState::hold);
  CHECK(is_still(bench, 100));
  bench.wave(100, 0.05);
  CHECK(bench.tick_until(LoopState::run, 100) > 0);
}

TEST(hold_beats_resume_in_the_same_tick) {
  Bench bench;
  bench.enable();
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  bench.loop->request(kRequestResume | kRequestHold);
  bench.tick();
  bench.go_to(0.7);
  bench.tick(50);
  CHECK(bench.records.back().state == LoopState::hold);
}

TEST(late_generation_dies) {
  Bench bench;
  bench.enable();
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  // the policy's chunk is on its way while the stop comes in: dead at the reader
  const std::vector<double> row(3, -0.5);
  CHECK(bench.loop->submit(row, bench.now, Seconds(60), 0) > 0);
  bench.loop->request(kRequestHold | kRequestResume);
  bench.tick(2);
  bench.loop->request(kRequestResume);
  bench.tick(20);
  CHECK(bench.records.back().state == LoopState::hold);
  // and at the door
  CHECK_EQ(bench.loop->submit(row, bench.now, Seconds(60), 0), 0u);
  bench.tick(20);
  CHECK(bench.records.back().state == LoopState::hold);
  CHECK(bench.robot->goal[0] > 0.4);
  // one of the new generation lives
  CHECK(bench.loop->submit(row, bench.now, Seconds(60), 1) > 0);
  CHECK(bench.tick_until(LoopState::run, 2000) > 0);
  CHECK_EQ(bench.robot->goal[0], -0.5);
  CHECK_THROWS(bench.loop->submit(row, bench.now, Seconds(60), 2), ConfigError, "generation 2");
}

TEST(detects_a_closed_bus_within_one_tick) {
  Bench bench;
  bench.enable();
  bench.wave(60, 0.05);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.robot->is_closed = true;
  const LoopRecord& record = bench.tick();
  CHECK(record.state == LoopState::fault);
  CHECK(record.finding.reason == Reason::bus_closed);
  bench.tick(200);
  const auto report = bench.loop->fault_report();
  REQUIRE(report.has_value());
  CHECK(report->cause.reason == Reason::bus_closed);
  CHECK(!report->records.empty() && report->records.size() <= 64);
  CHECK(report->records.back().state == LoopState::fault);
  CHECK(report->records.front().state != LoopState::fault);
  const std::string message = fault_message(*report, bench.robot->embodiment(), bench.config);
  CHECK(message.find("bus is closed") != std::string::npos);
}

TEST(a_bus_that_closes_while_sending_is_a_fault) {
  Bench bench;
  bench.enable();
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  bench.robot->send_error = ErrorCode::bus_closed;
  CHECK(bench.tick().state == LoopState::fault);
}

TEST(sends_that_keep_failing_are_a_fault) {
  Bench bench;
  bench.enable();
  bench.go_to(0.5);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  bench.robot->send_error = ErrorCode::timeout;
  const int ticks = bench.tick_until(LoopState::fault, 100);
  CHECK(ticks >= 20 && ticks <= 22);  // 100 ms
  CHECK(bench.records.back().cause.reason == Reason::send_failed);
}

TEST(commands_that_were_not_sent_make_no_jump) {
  Bench bench;
  bench.enable();
  bench.go_to(1.5);
  bench.tick(20);
  for (int round = 0; round < 5; ++round) {
    bench.robot->send_error = ErrorCode::timeout;
    bench.tick(15);
    bench.robot->send_error = ErrorCode::ok;
    bench.tick(10);
  }
  CHECK(bench.loop->state() != LoopState::fault);
  const auto& sent = bench.robot->sent;
  REQUIRE(sent.size() > 50);
  const double step = 3.0 / 200 * (1 + 1e-9);  // max_velocity for one period
  for (std::size_t i = 1; i < sent.size(); ++i)
    for (std::size_t j = 0; j < sent[i].size(); ++j) CHECK(std::abs(sent[i][j] - sent[i - 1][j]) <= step);
}

TEST(stale_joint_holds_then_faults) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.robot->silent_joint = 1;
  CHECK_EQ(bench.tick_until(LoopState::hold, 100), 4);  // older than three periods
  CHECK(bench.records.back().cause.reason == Reason::stale_feedback);
  CHECK_EQ(bench.records.back().cause.joint, 1);
  CHECK_EQ(bench.tick_until(LoopState::fault, 100), 21 - 4);  // older than 100 ms
  CHECK_EQ(bench.records.back().cause.joint, 1);
  // the others still obey: braking goes on and the last command is kept
  bench.tick(200);
  CHECK(is_still(bench, 100));
  check_limits(*bench.robot, 0.005);
  CHECK(bench.robot->num_sends > 200);
  const auto report = bench.loop->fault_report();
  REQUIRE(report.has_value());
  const std::string message = fault_message(*report, bench.robot->embodiment(), bench.config);
  CHECK(message.find("joint 'joint1' (id 2)") != std::string::npos);
  CHECK(message.find("0.1") != std::string::npos);
  // latched, until reset and enabled again
  bench.robot->silent_joint = -1;
  bench.loop->request(kRequestEnable | kRequestResume);
  bench.wave(100, 0.05);
  bench.tick(50);
  CHECK(bench.records.back().state == LoopState::fault);
  bench.loop->request(kRequestReset);
  CHECK(bench.tick().state == LoopState::identify);
  CHECK(bench.records.back().requests == kRequestReset);  // in the recording
  CHECK_EQ(bench.loop->counters().num_resets, 1u);
  CHECK(bench.tick().state == LoopState::calibrated);
  CHECK(!bench.loop->fault_report().has_value());
  bench.enable();
  bench.go_to(0.5);
  CHECK(bench.tick_until(LoopState::run, 1000) > 0);
}

TEST(one_missed_answer_changes_nothing) {
  Bench bench;
  bench.enable();
  bench.wave(60, 0.05);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.robot->silent_joint = 0;
  bench.tick(3);
  CHECK(bench.records.back().state == LoopState::run);
  CHECK(bench.records.back().sample_age[0] > 0.014f);
  bench.robot->silent_joint = -1;
  bench.tick(3);
  CHECK(bench.records.back().state == LoopState::run);
  CHECK_EQ(bench.loop->counters().num_stale_ticks, 3u);
}

TEST(feedback_that_is_not_finite_is_a_fault) {
  Bench bench;
  bench.enable();
  bench.wave(60, 0.05, 0.5);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(30);
  bench.robot->nan_joint = 2;
  CHECK(bench.tick().state == LoopState::fault);
  CHECK_EQ(bench.records.back().cause.joint, 2);
  bench.tick(200);
  for (const auto& command : bench.robot->sent)
    for (const double p : command) CHECK(std::isfinite(p));
  CHECK(is_still(bench, 100));
}

TEST(never_enables_on_feedback_it_does_not_have) {
  Bench bench;
  bench.robot->silent_joint = 0;
  bench.loop->request(kRequestEnable);
  CHECK(bench.tick().state == LoopState::fault);
  CHECK_EQ(bench.robot->num_enables, 0);
  Bench nan;
  nan.robot->nan_joint = 0;
  nan.loop->request(kRequestEnable);
  CHECK(nan.tick().state == LoopState::fault);
  CHECK_EQ(nan.robot->num_enables, 0);
  Bench refused;
  refused.robot->refuses_enable = true;
  refused.loop->request(kRequestEnable);
  CHECK(refused.tick().state == LoopState::fault);
  CHECK(refused.records.back().cause.reason == Reason::enable_failed);
  CHECK_EQ(refused.records.back().cause.joint, 1);
}

TEST(an_answer_lost_while_enabling_is_asked_for_again) {
  Bench bench;
  bench.tick(3);
  bench.robot->silent_joint = 1;
  bench.loop->request(kRequestEnable);
  bench.tick();
  CHECK_EQ(bench.robot->num_enables, 0);
  CHECK(bench.loop->state() == LoopState::calibrated);
  bench.robot->silent_joint = -1;
  bench.robot->num_lost_enables = 2;
  bench.tick(2);
  CHECK_EQ(bench.robot->num_enables, 0);
  bench.tick();
  CHECK_EQ(bench.robot->num_enables, 1);
  CHECK(bench.robot->is_torque_on);
  bench.tick();
  CHECK(bench.loop->state() == LoopState::armed);
}

TEST(enabling_that_never_answers_is_a_fault) {
  Bench bench;
  bench.robot->num_lost_enables = 1000;
  bench.tick(3);
  bench.loop->request(kRequestEnable);
  bench.tick(6);
  CHECK(bench.loop->state() == LoopState::fault);
}

TEST(estop_latches_and_lowers_torque) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(60);
  bench.loop->estop();
  CHECK(bench.tick().state == LoopState::fault);
  CHECK_EQ(bench.robot->torque_share[0], 1.0);  // full torque to brake with
  bench.tick(300);
  CHECK(is_still(bench, 100));
  check_limits(*bench.robot, 0.005);
  CHECK_EQ(bench.robot->torque_share[0], 0.5);
  CHECK_EQ(bench.robot->num_torque_limits, 1);
  CHECK(bench.robot->is_torque_on);
  // latched
  bench.loop->request(kRequestResume | kRequestEnable);
  bench.wave(100, 0.05);
  bench.tick(50);
  CHECK(bench.records.back().state == LoopState::fault);
  CHECK(is_still(bench, 100));
  // reset alone moves nothing, and drops the plan; enabling starts from the measured pose and restores the
  // torque
  CHECK(bench.records.back().cause.reason == Reason::estop);
  const auto report = bench.loop->fault_report();
  REQUIRE(report.has_value());
  CHECK(fault_message(*report, bench.robot->embodiment(), bench.config).find("e-stop") != std::string::npos);
  bench.loop->request(kRequestReset);
  CHECK_EQ(bench.tick_until(LoopState::calibrated, 3), 2);
  const int sends = bench.robot->num_sends;
  bench.tick(20);
  CHECK_EQ(bench.robot->num_sends, sends);
  CHECK_EQ(bench.robot->torque_share[0], 0.5);
  for (int j = 0; j < 3; ++j) bench.robot->pose[j] -= 0.05;  // it sagged
  bench.robot->lag = 0;
  bench.enable();
  bench.robot->lag = 0.5;
  CHECK_EQ(bench.robot->torque_share[0], 1.0);
  CHECK_EQ(bench.robot->num_enables, 2);
  CHECK_EQ(bench.robot->goal[0], bench.robot->pose[0]);
  bench.wave(100, 0.05);
  CHECK(bench.tick_until(LoopState::run, 400) > 0);
}

TEST(estop_beats_reset_and_waits_for_rest) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(60);
  bench.loop->request(kRequestEstop | kRequestReset);
  CHECK(bench.tick().state == LoopState::fault);
  bench.loop->request(kRequestReset);  // while it brakes: not let go of
  CHECK(bench.tick().state == LoopState::fault);
  CHECK(bench.tick_until(LoopState::calibrated, 300) > 3);
  CHECK(is_still(bench, 2));
}

TEST(estop_of_the_process_reaches_every_loop_once) {
  Bench first, second;
  for (Bench* bench : {&first, &second}) {
    bench->enable();
    bench->go_to(0.5);
    REQUIRE(bench->tick_until(LoopState::run, 1000) > 0);
  }
  estop_on_signal(SIGUSR1);
  std::raise(SIGUSR1);
  std::signal(SIGUSR1, SIG_DFL);
  CHECK(first.tick().state == LoopState::fault);
  CHECK(second.tick().state == LoopState::fault);
  first.loop->request(kRequestReset);
  CHECK(first.tick_until(LoopState::calibrated, 100) > 0);
  first.enable();
  CHECK(first.records.back().state == LoopState::armed);
  CHECK_THROWS(estop_on_signal(SIGKILL), ConfigError, "signal 9");
}

TEST(an_estop_goes_on_when_a_joint_falls_silent) {
  Bench bench;
  bench.enable();
  bench.wave(100, 0.05, 0.24);
  REQUIRE(bench.tick_until(LoopState::run, 400) > 0);
  bench.tick(60);
  bench.loop->estop();
  bench.robot->silent_joint = 0;
  bench.tick(300);
  CHECK(bench.records.back().state == LoopState::fault);
  CHECK_EQ(bench.robot->torque_share[0], 0.5);
  CHECK(is_still(bench, 100));
}

TEST(a_plan_takes_over_at_its_start_not_before) {
  Bench bench;
  bench.enable();
  bench.go_to(0.2);
  REQUIRE(bench.tick_until(LoopState::run, 1000) > 0);
  const std::vector<double> later(3, 0.3), latest(3, 0.4);
  const TimePoint start = bench.now;
  bench.loop->submit(later, start + std::chrono::milliseconds(50), Seconds(60), 0);
  bench.tick(5);
  // plans that keep coming for later do not starve the one that waits
  bench.loop->submit(latest, start + std::chrono::milliseconds(100), Seconds(60), 0);
  for (int i = 0; i < 40; ++i) {
    const LoopRecord& r = bench.tick();
    const double due = to_seconds(r.scheduled - start);
    const double expected = due < 0.05 - 1e-9 ? 0.2 : due < 0.1 - 1e-9 ? 0.3 : 0.4;
    CHECK_EQ(r.target[0], expected);
  }
}

TEST(lockstep_is_bit_equal) {
  std::vector<LoopRecord> runs[2];
  for (auto& run : runs) {
    Bench bench;
    bench.tick(3);
    bench.enable();
    for (int i = 0; i < 600; ++i) {
      if (i % 97 == 0) bench.wave(30, 0.02, 0.3 + 0.001 * i, 0.013);
      if (i == 200) bench.robot->silent_joint = 1;
      if (i == 208) bench.robot->silent_joint = -1;
      if (i == 330) bench.loop->request(kRequestHold);
      if (i == 360) bench.loop->request(kRequestResume);
      if (i == 500) bench.loop->estop();
      bench.tick();
    }
    run = bench.records;
  }
  REQUIRE(runs[0].size() == runs[1].size());
  bool moved = false;
  for (std::size_t i = 0; i < runs[0].size(); ++i) {
    const LoopRecord &a = runs[0][i], &b = runs[1][i];
    CHECK(a.command == b.command && a.target == b.target && a.measured == b.measured &&
          a.reasons == b.reasons);
    CHECK(a.state == b.state && a.plan_sequence == b.plan_sequence && a.row == b.row && a.tick == b.tick);
    CHECK(a.lateness_us == b.lateness_us && a.read_us == b.read_us && a.scheduled == b.scheduled);
    moved |= i > 0 && a.command != runs[0][i - 1].command;
  }
  CHECK(moved);
}

TEST(a_tick_allocates_nothing) {
  Bench bench;
  bench.keeps_records = bench.robot->keeps_sent = false;
  long inside = 0;
  std::set<LoopState> seen;
  const auto counted = [&](int ticks) {
    for (int i = 0; i < ticks; ++i) {
      bench.now += bench.loop->period();
      bench.robot->now = bench.now;
      const long before = wallx::test::allocations();
      bench.loop->tick(bench.now);
      inside += wallx::test::allocations() - before;
    }
    seen.insert(bench.loop->state());
  };
  counted(5);
  bench.loop->request(kRequestEnable);
  counted(3);
  bench.wave(100, 0.05, 0.24);
  counted(2);
  counted(100);
  bench.loop->request(kRequestHold);
  counted(5);
  bench.loop->request(kRequestResume);
  bench.go_to(-1.9);
  counted(400);
  bench.loop->estop();
  counted(200);
  bench.robot->is_closed = true;
  counted(100);
  CHECK_EQ(inside, 0);
  CHECK(seen.count(LoopState::hold) && seen.count(LoopState::run) && seen.count(LoopState::fault) &&
        seen.count(LoopState::fault));
  const long before = wallx::test::allocations();
  const std::vector<int> some(100);
  CHECK_EQ(wallx::test::allocations() - before, 1);  // the counter counts
}

TEST(snapshot_and_ring_tell_the_same) {
  Bench bench;
  LoopRecord newest;
  CHECK(!bench.loop->snapshot(newest));
  bench.enable();
  bench.wave(60, 0.05);
  bench.tick(100);
  REQUIRE(bench.loop->snapshot(newest));
  CHECK_EQ(newest.tick, bench.records.back().tick);
  std::vector<LoopRecord> drained(1000);
  drained.resize(bench.loop->drain(drained));
  REQUIRE(drained.size() == bench.records.size());
  for (std::size_t i = 0; i < drained.size(); ++i) {
    CHECK_EQ(drained[i].tick, i + 1);
    CHECK(drained[i].state == bench.records[i].state);
    for (int j = 0; j < 3; ++j) {
      CHECK_EQ(drained[i].command[j], bench.records[i].command[j]);
      CHECK_EQ(drained[i].measured[j], bench.records[i].measured[j]);
      CHECK_EQ(int(drained[i].reasons[j]), int(bench.records[i].reasons[j]));
    }
  }
  CHECK_EQ(bench.loop->drain(drained), 0u);
}

TEST(a_full_ring_is_counted_and_never_blocks) {
  Bench bench;
  bench.config.ring_capacity = 16;
  bench.loop = std::make_unique<ControlLoop>(bench.robot, bench.config);
  bench.tick(50);
  CHECK_EQ(bench.loop->counters().num_dropped_records, 34u);
  std::vector<LoopRecord> drained(100);
  CHECK_EQ(bench.loop->drain(drained), 16u);
  CHECK_EQ(drained[15].tick, 16u);
  bench.tick(3);
  CHECK_EQ(bench.loop->drain(drained), 3u);
  CHECK_EQ(drained[0].tick, 51u);
}

TEST(wrong_settings_are_named) {
  const auto make = [](auto change) {
    LoopConfig config;
    change(config);
    ControlLoop loop(std::make_shared<FakeRobot>(), config);
  };
  CHECK_THROWS(make([](LoopConfig& c) { c.rate_hz = 0; }), ConfigError, "rate_hz");
  CHECK_THROWS(make([](LoopConfig& c) { c.rate_hz = std::nan(""); }), ConfigError, "rate_hz");
  CHECK_THROWS(make([](LoopConfig& c) { c.stale_fault = Seconds(0.001); }), ConfigError, "stale_fault");
  CHECK_THROWS(make([](LoopConfig& c) { c.ramp_share = 2; }), ConfigError, "ramp_share");
  CHECK_THROWS(make([](LoopConfig& c) { c.estop_torque_share = 0; }), ConfigError, "estop_torque_share");
  CHECK_THROWS(make([](LoopConfig& c) { c.priority = 100; }), ConfigError, "priority");
  CHECK_THROWS(ControlLoop(nullptr, LoopConfig{}), ConfigError, "no robot");
}
