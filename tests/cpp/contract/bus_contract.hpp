// Bus contract: what every Bus promises, written once; BUS_CONTRACT(name, make_line) runs it for one kind of
// bus. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"
#include "hardware/bus.hpp"

namespace wallx::test {

using Bytes = std::vector<std::uint8_t>;

// a bus and the other end of its line
class LineUnderTest {
 public:
  virtual ~LineUnderTest() = default;
  virtual Bus& bus() = 0;
  virtual void write_far(const Bytes& bytes) = 0;
  virtual Bytes read_far(std::size_t count) = 0;  // waits for that many; fewer: the test fails
  virtual void hang_up() = 0;
};
using MakeLine = std::unique_ptr<LineUnderTest> (*)();

// far enough away that only a bus that does not wake up reaches it
inline TimePoint patient() { return Clock::now() + std::chrono::seconds(20); }

inline Bytes receive_exactly(Bus& bus, std::size_t count) {
  Bytes all;
  while (all.size() < count) {
    std::uint8_t buffer[64];
    std::size_t received = 0;
    REQUIRE(bus.receive(buffer, patient(), received).ok());
    REQUIRE(received > 0 && received <= sizeof buffer);
    all.insert(all.end(), buffer, buffer + received);
  }
  return all;
}

inline Bytes every_byte() {
  Bytes bytes(256);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}

namespace bus_contract {

// control characters, line ends and 0xFF included: nothing on the way may interpret them
inline void delivers_every_byte_unchanged_both_ways(MakeLine make) {
  auto line = make();
  line->bus().open();
  CHECK(line->bus().transmit(every_byte(), patient()).ok());
  CHECK(line->read_far(256) == every_byte());
  line->write_far(every_byte());
  CHECK(receive_exactly(line->bus(), 256) == every_byte());
}

inline void wakes_up_for_bytes_that_come_while_it_waits(MakeLine make) {
  auto line = make();
  line->bus().open();
  std::thread writer([&] { line->write_far({7}); });
  CHECK(receive_exactly(line->bus(), 1) == Bytes{7});
  writer.join();
}

inline void times_out_at_the_deadline_and_not_before(MakeLine make) {
  auto line = make();
  line->bus().open();
  std::uint8_t buffer[8];
  std::size_t received = 99;
  const TimePoint deadline = Clock::now() + std::chrono::milliseconds(3);
  CHECK(line->bus().receive(buffer, deadline, received).code == ErrorCode::timeout);
  CHECK(Clock::now() >= deadline);
  CHECK_EQ(received, 0u);
}

inline void takes_what_is_there_even_after_the_deadline(MakeLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({1, 2});
  CHECK(receive_exactly(line->bus(), 1).size() >= 1);  // the bytes have surely arrived
  line->write_far({3});
  Bytes all;
  std::uint8_t buffer[8];
  std::size_t received = 0;
  while (all.empty() || all.back() != 3) {
    const Result result = line->bus().receive(buffer, TimePoint{}, received);
    REQUIRE(result.ok() || result.code == ErrorCode::timeout);
    all.insert(all.end(), buffer, buffer + received);
  }
  CHECK_EQ(int{all.back()}, 3);
}

inline void discards_what_arrived_before(MakeLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({1, 2, 3});
  CHECK(receive_exactly(line->bus(), 1).front() == 1);
  line->write_far({4, 5});
  CHECK(line->bus().discard_input().ok());
  line->write_far({9});
  CHECK(receive_exactly(line->bus(), 1) == Bytes{9});
}

inline void gives_up_when_the_queue_stays_full(MakeLine make) {
  auto line = make();
  line->bus().open();
  const Bytes block(4096, 0x55);
  Result result;
  for (int i = 0; i < 1000 && result.ok(); ++i)
    result = line->bus().transmit(block, Clock::now() + std::chrono::milliseconds(20));
  CHECK(result.code == ErrorCode::timeout);
}

inline void refuses_everything_while_closed(MakeLine make) {
  auto line = make();
  std::uint8_t buffer[8];
  std::size_t received = 99;
  CHECK(!line->bus().is_open());
  CHECK(line->bus().transmit(Bytes{1}, patient()).code == ErrorCode::bus_closed);
  CHECK(line->bus().receive(buffer, patient(), received).code == ErrorCode::bus_closed);
  CHECK(line->bus().discard_input().code == ErrorCode::bus_closed);
  CHECK_EQ(received, 0u);
}

inline void opens_once_closes_often_and_opens_again(MakeLine make) {
  auto line = make();
  line->bus().open();
  CHECK(line->bus().is_open());
  CHECK_THROWS(line->bus().open(), BusError, line->bus().name().c_str());
  CHECK(line->bus().is_open());
  line->bus().close();
  line->bus().close();
  CHECK(!line->bus().is_open());
  line->bus().open();
  CHECK(line->bus().transmit(Bytes{42}, patient()).ok());
  CHECK(line->read_far(1) == Bytes{42});
}

inline void forgets_what_arrived_before_it_was_opened(MakeLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({1, 2, 3});
  CHECK(receive_exactly(line->bus(), 1).front() == 1);
  line->bus().close();
  line->bus().open();
  line->write_far({9});
  CHECK(receive_exactly(line->bus(), 1) == Bytes{9});
}

inline void says_bus_closed_when_the_far_end_is_gone(MakeLine make) {
  auto line = make();
  line->bus().open();
  line->hang_up();
  std::uint8_t buffer[8];
  std::size_t received = 99;
  CHECK(line->bus().receive(buffer, patient(), received).code == ErrorCode::bus_closed);
  CHECK(line->bus().transmit(Bytes{1}, patient()).code == ErrorCode::bus_closed);
  CHECK_EQ(received, 0u);
  line->bus().close();
  CHECK(!line->bus().is_open());
}

inline void wakes_up_when_the_far_end_goes_away(MakeLine make) {
  auto line = make();
  line->bus().open();
  std::thread killer([&] { line->hang_up(); });
  std::uint8_t buffer[8];
  std::size_t received = 0;
  CHECK(line->bus().receive(buffer, patient(), received).code == ErrorCode::bus_closed);
  killer.join();
}

}  // namespace bus_contract
}  // namespace wallx::test

#define BUS_PROMISE(kind, make, promise) \
  TEST(kind##_##promise) { ::wallx::test::bus_contract::promise(make); }

#define BUS_CONTRACT(kind, make)                                       \
  BUS_PROMISE(kind, make, delivers_every_byte_unchanged_both_ways)     \
  BUS_PROMISE(kind, make, wakes_up_for_bytes_that_come_while_it_waits) \
  BUS_PROMISE(kind, make, times_out_at_the_deadline_and_not_before)    \
  BUS_PROMISE(kind, make, takes_what_is_there_even_after_the_deadline) \
  BUS_PROMISE(kind, make, discards_what_arrived_before)                \
  BUS_PROMISE(kind, make, gives_up_when_the_queue_stays_full)          \
  BUS_PROMISE(kind, make, refuses_everything_while_closed)             \
  BUS_PROMISE(kind, make, opens_once_closes_often_and_opens_again)     \
  BUS_PROMISE(kind, make, forgets_what_arrived_before_it_was_opened)   \
  BUS_PROMISE(kind, make, says_bus_closed_when_the_far_end_is_gone)    \
  BUS_PROMISE(kind, make, wakes_up_when_the_far_end_goes_away)
