// ControlLoop's thread: it ticks, holds on exit, and shows whole records to other threads; no wall time is
// judged. SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "base/errors.hpp"
#include "check.hpp"
#include "control/control_loop.hpp"
#include "fake_robot.hpp"
#include "hardware/heartbeat.hpp"

using namespace wallx;
using wallx::test::Bench;
using wallx::test::check_limits;
using wallx::test::FakeRobot;

namespace {

std::shared_ptr<FakeRobot> live_robot() {
  const auto robot = std::make_shared<FakeRobot>();
  robot->is_live = true;
  return robot;
}

template <class Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 30000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace

TEST(holds_on_exit) {
  const auto robot = live_robot();
  LoopConfig config;
  // any delay of this machine is a late tick, not a late joint
  config.stale_hold = Seconds(5);
  config.stale_fault = Seconds(10);
  config.max_first_step = 2;
  ControlLoop loop(robot, config);
  loop.start();
  CHECK(loop.is_running());
  CHECK_THROWS(loop.start(), DeviceError, "already running");
  CHECK(loop.real_time_status().is_fifo || !loop.real_time_status().shortfalls.empty());
  loop.request(kRequestEnable);
  const std::vector<double> row(3, 1.9);
  CHECK(loop.submit(row, Clock::now(), Seconds(600), 0) > 0);
  // stop in the middle of the motion
  LoopRecord record;
  REQUIRE(eventually(
      [&] { return loop.snapshot(record) && record.state == LoopState::ramp && record.command[0] > 0.3; }));
  loop.stop();
  CHECK(!loop.is_running());
  REQUIRE(loop.snapshot(record));
  CHECK(record.state == LoopState::hold);
  CHECK(robot->is_torque_on);
  CHECK_EQ(robot->torque_share[0], 1.0);
  check_limits(*robot, 0.005);
  const auto& sent = robot->sent;
  REQUIRE(sent.size() > 2);
  CHECK(sent[sent.size() - 1] == sent[sent.size() - 2]);  // at rest
  CHECK(sent.back()[0] < 1.9);
  CHECK_EQ(loop.counters().num_ticks, record.tick);
  std::uint64_t in_histogram = 0;
  for (const std::uint64_t count : loop.lateness_histogram()) in_histogram += count;
  CHECK_EQ(in_histogram, record.tick);
  // it can be started again, and still holds
  loop.start();
  CHECK(eventually([&] { return loop.counters().num_ticks > record.tick + 3; }));
  loop.stop();
  loop.stop();
  CHECK(sent.back() == sent[sent.size() - 3]);
}

TEST(other_threads_see_whole_records) {
  const auto robot = live_robot();
  robot->keeps_sent = false;
  LoopConfig config;
  config.rate_hz = 1000;
  config.stale_hold = Seconds(5);
  config.stale_fault = Seconds(10);
  ControlLoop loop(robot, config);
  loop.start();
  loop.request(kRequestEnable);
  std::uint64_t last = 0, drained = 0;
  std::vector<LoopRecord> records(64);
  std::vector<double> rows(3 * 20, 0.2);
  while (drained < 1000) {
    LoopRecord newest;
    if (loop.snapshot(newest)) {
      CHECK(newest.tick >= last);
      last = newest.tick;
      CHECK_EQ(newest.num_joints, 3u);
    }
    CHECK(loop.submit(rows, Clock::now(), Seconds(0.05), loop.generation()) > 0);
    const std::size_t count = loop.drain(records);
    for (std::size_t i = 0; i < count; ++i) CHECK_EQ(records[i].tick, ++drained);
    std::this_thread::yield();
  }
  loop.stop();
  CHECK_EQ(loop.counters().num_dropped_records, 0u);
}

TEST(a_bus_that_was_seized_while_a_tick_waited_is_not_written_to) {
  Bench bench;
  bench.enable();
  bench.go_to(1.0);
  bench.tick_until(LoopState::run, 2000);
  Heartbeat watcher(bench.loop->heartbeat_descriptor());
  bench.robot->on_read = [&] { watcher.seize(); };  // as for a process that is stopped in there
  const int before = bench.robot->num_sends;
  CHECK(bench.tick().send.code == ErrorCode::wrong_state);
  CHECK(bench.tick().state == LoopState::fault);
  CHECK(bench.records.back().finding.reason == Reason::stalled);
  bench.tick(20);
  CHECK_EQ(bench.robot->num_sends, before);
}
