// CAN bus contract: what every CanBus promises, written once; CAN_BUS_CONTRACT(name, make_line) runs it for
// one kind of bus. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "base/errors.hpp"
#include "check.hpp"
#include "hardware/can_bus.hpp"

namespace wallx::test {

using Frames = std::vector<CanFrame>;

// a bus and the other end of its line
class CanLineUnderTest {
 public:
  virtual ~CanLineUnderTest() = default;
  virtual CanBus& bus() = 0;                           // closed; one that can do FD
  virtual std::unique_ptr<CanBus> make_classic() = 0;  // another, on the same line, without FD
  virtual void write_far(const Frames& frames) = 0;
  virtual Frames read_far(std::size_t count) = 0;  // waits for that many; fewer: the test fails
  virtual void hang_up() { std::abort(); }         // only asked for by CAN_BUS_HANG_UP_CONTRACT
};
using MakeCanLine = std::unique_ptr<CanLineUnderTest> (*)();

inline CanFrame make_frame(std::uint32_t id, const std::vector<std::uint8_t>& data) {
  CanFrame frame{.id = id, .size = static_cast<std::uint8_t>(data.size())};
  std::copy(data.begin(), data.end(), frame.data.begin());
  return frame;
}

inline bool is_same(const CanFrame& a, const CanFrame& b) {
  return a.id == b.id && a.is_extended == b.is_extended && a.is_fd == b.is_fd &&
         a.is_bit_rate_switched == b.is_bit_rate_switched && a.size == b.size &&
         std::equal(a.data.begin(), a.data.begin() + a.size, b.data.begin());
}

inline bool is_same(const Frames& a, const Frames& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const CanFrame& x, const CanFrame& y) { return is_same(x, y); });
}

inline void require_valid(const Frames& frames) {
  for (const CanFrame& frame : frames) REQUIRE(is_valid(frame));
}

// every length, both kinds of id at both ends of their range, classic and FD with and without the fast rate,
// and control characters in the data
inline Frames every_kind_of_frame() {
  Frames frames;
  for (const std::uint32_t id : {0x000u, 0x001u, 0x123u, 0x7FFu})
    for (std::uint8_t size = 0; size <= 8; ++size) frames.push_back({.id = id, .size = size});
  for (const std::uint32_t id : {0x000u, 0x7FFu, 0x800u, 0x1ABC'DEF0u, 0x1FFF'FFFFu})
    frames.push_back({.id = id, .is_extended = true, .size = 8});
  for (const std::uint8_t size : kCanSizes)
    for (const bool is_switched : {false, true})
      frames.push_back({.id = 0x700u + size,
                        .is_extended = is_switched,
                        .is_fd = true,
                        .is_bit_rate_switched = is_switched,
                        .size = size});
  std::uint8_t value = 0;
  for (CanFrame& frame : frames)
    for (std::uint8_t i = 0; i < frame.size; ++i) frame.data[i] = value += 37;
  require_valid(frames);
  return frames;
}

inline TimePoint can_patient() { return Clock::now() + std::chrono::seconds(20); }

inline Frames receive_frames(CanBus& bus, std::size_t count) {
  Frames all;
  while (all.size() < count) {
    CanFrame buffer[5];
    std::size_t received = 0;
    REQUIRE(bus.receive(buffer, can_patient(), received).ok());
    REQUIRE(received > 0 && received <= 5);
    all.insert(all.end(), buffer, buffer + received);
  }
  return all;
}

namespace can_bus_contract {

inline void delivers_every_kind_of_frame_unchanged_both_ways(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  CHECK(line->bus().is_fd());
  for (const CanFrame& frame : every_kind_of_frame()) {
    CHECK(line->bus().transmit({&frame, 1}, can_patient()).ok());
    CHECK(is_same(line->read_far(1), {frame}));
    line->write_far({frame});
    CHECK(is_same(receive_frames(line->bus(), 1), {frame}));
  }
}

inline void keeps_the_order_of_a_burst(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  Frames burst;
  for (std::uint8_t i = 0; i < 16; ++i) burst.push_back(make_frame(0x10u + i, {i, 2, 3}));
  CHECK(line->bus().transmit(burst, can_patient()).ok());
  CHECK(is_same(line->read_far(16), burst));
  line->write_far(burst);
  CHECK(is_same(receive_frames(line->bus(), 16), burst));
}

inline void does_not_hear_itself(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  CHECK(line->bus().transmit(Frames{make_frame(1, {1})}, can_patient()).ok());
  CHECK(is_same(line->read_far(1), {make_frame(1, {1})}));
  line->write_far({make_frame(2, {2})});
  CHECK(is_same(receive_frames(line->bus(), 1), {make_frame(2, {2})}));
}

inline void stamps_what_it_receives(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  const TimePoint before = Clock::now();
  // a transport without stamps of its own says how long the frame has waited at most: since this look
  CHECK(line->bus().discard_input().ok());
  line->write_far({make_frame(5, {1})});
  const Frames frames = receive_frames(line->bus(), 1);
  // transports that convert the kernel's stamp may be off by what their two looks at clocks are apart
  CHECK(frames[0].received_at >= before - std::chrono::milliseconds(1));
  CHECK(frames[0].received_at <= Clock::now());
}

inline void wakes_up_for_frames_that_come_while_it_waits(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  std::thread writer([&] { line->write_far({make_frame(7, {7})}); });
  CHECK(is_same(receive_frames(line->bus(), 1), {make_frame(7, {7})}));
  writer.join();
}

inline void times_out_at_the_deadline_and_not_before(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  CanFrame buffer[2];
  std::size_t received = 99;
  const TimePoint deadline = Clock::now() + std::chrono::milliseconds(3);
  CHECK(line->bus().receive(buffer, deadline, received).code == ErrorCode::timeout);
  CHECK(Clock::now() >= deadline);
  CHECK_EQ(received, 0u);
}

inline void takes_what_is_there_even_after_the_deadline(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({make_frame(1, {}), make_frame(2, {})});
  CHECK(receive_frames(line->bus(), 1).size() >= 1);
  line->write_far({make_frame(3, {})});
  std::uint32_t last = 0;
  while (last != 3) {
    CanFrame buffer[4];
    std::size_t received = 0;
    const Result result = line->bus().receive(buffer, TimePoint{}, received);
    REQUIRE(result.ok() || result.code == ErrorCode::timeout);
    if (received > 0) last = buffer[received - 1].id;
  }
  CHECK_EQ(last, 3u);
}

inline void discards_what_arrived_before(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({make_frame(1, {1}), make_frame(2, {2})});
  CHECK_EQ(receive_frames(line->bus(), 1).front().id, 1u);
  line->write_far({make_frame(3, {3})});
  CHECK(line->bus().discard_input().ok());
  line->write_far({make_frame(9, {9})});
  CHECK(is_same(receive_frames(line->bus(), 1), {make_frame(9, {9})}));
}

inline void refuses_frames_that_cannot_exist(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  const Frames good{make_frame(1, {1})};
  CanFrame no_such_id = good[0], no_such_size = good[0], no_such_fd_size = good[0], switched = good[0];
  no_such_id.id = 0x800;
  no_such_size.size = 9;
  no_such_fd_size.is_fd = true;
  no_such_fd_size.size = 13;
  switched.is_bit_rate_switched = true;
  for (const CanFrame& bad : {no_such_id, no_such_size, no_such_fd_size, switched}) {
    const Result result = line->bus().transmit(Frames{good[0], bad}, can_patient());
    CHECK(result.code == ErrorCode::out_of_range);
    CHECK_EQ(result.detail, 1);
  }
  // nothing of a refused batch went out
  CHECK(line->bus().transmit(Frames{make_frame(2, {2})}, can_patient()).ok());
  CHECK(is_same(line->read_far(1), {make_frame(2, {2})}));
}

inline void refuses_fd_frames_on_a_classic_bus(MakeCanLine make) {
  auto line = make();
  const auto bus = line->make_classic();
  bus->open();
  CHECK(!bus->is_fd());
  CanFrame frame = make_frame(1, {1});
  frame.is_fd = true;
  CHECK(bus->transmit({&frame, 1}, can_patient()).code == ErrorCode::out_of_range);
  frame.is_fd = false;
  CHECK(bus->transmit({&frame, 1}, can_patient()).ok());
  CHECK(is_same(line->read_far(1), {frame}));
}

inline void refuses_everything_while_closed(MakeCanLine make) {
  auto line = make();
  CanFrame buffer[2];
  std::size_t received = 99;
  CHECK(!line->bus().is_open());
  CHECK(line->bus().transmit(Frames{make_frame(1, {})}, can_patient()).code == ErrorCode::bus_closed);
  CHECK(line->bus().receive(buffer, can_patient(), received).code == ErrorCode::bus_closed);
  CHECK(line->bus().discard_input().code == ErrorCode::bus_closed);
  CHECK_EQ(received, 0u);
}

inline void opens_once_closes_often_and_opens_again(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  CHECK(line->bus().is_open());
  CHECK_THROWS(line->bus().open(), BusError, line->bus().name().c_str());
  CHECK(line->bus().is_open());
  line->bus().close();
  line->bus().close();
  CHECK(!line->bus().is_open());
  line->bus().open();
  CHECK(line->bus().transmit(Frames{make_frame(42, {42})}, can_patient()).ok());
  CHECK(is_same(line->read_far(1), {make_frame(42, {42})}));
}

inline void forgets_what_arrived_before_it_was_opened(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  line->write_far({make_frame(1, {1}), make_frame(2, {2})});
  CHECK_EQ(receive_frames(line->bus(), 1).front().id, 1u);
  line->bus().close();
  line->bus().open();
  line->write_far({make_frame(9, {9})});
  CHECK(is_same(receive_frames(line->bus(), 1), {make_frame(9, {9})}));
}

// of transports that feel the other end

inline void gives_up_when_the_queue_stays_full(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  const Frames block(64, make_frame(0x55, {1, 2, 3, 4, 5, 6, 7, 8}));
  Result result;
  for (int i = 0; i < 1000 && result.ok(); ++i)
    result = line->bus().transmit(block, Clock::now() + std::chrono::milliseconds(20));
  CHECK(result.code == ErrorCode::timeout);
}

inline void says_bus_closed_when_the_far_end_is_gone(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  line->hang_up();
  CanFrame buffer[2];
  std::size_t received = 99;
  CHECK(line->bus().receive(buffer, can_patient(), received).code == ErrorCode::bus_closed);
  CHECK(line->bus().transmit(Frames{make_frame(1, {})}, can_patient()).code == ErrorCode::bus_closed);
  CHECK_EQ(received, 0u);
  line->bus().close();
  CHECK(!line->bus().is_open());
}

inline void wakes_up_when_the_far_end_goes_away(MakeCanLine make) {
  auto line = make();
  line->bus().open();
  std::thread killer([&] { line->hang_up(); });
  CanFrame buffer[2];
  std::size_t received = 0;
  CHECK(line->bus().receive(buffer, can_patient(), received).code == ErrorCode::bus_closed);
  killer.join();
}

}  // namespace can_bus_contract
}  // namespace wallx::test

#define CAN_BUS_PROMISE(kind, make, promise) \
  TEST(kind##_##promise) { ::wallx::test::can_bus_contract::promise(make); }

#define CAN_BUS_CONTRACT(kind, make)                                            \
  CAN_BUS_PROMISE(kind, make, delivers_every_kind_of_frame_unchanged_both_ways) \
  CAN_BUS_PROMISE(kind, make, keeps_the_order_of_a_burst)                       \
  CAN_BUS_PROMISE(kind, make, does_not_hear_itself)                             \
  CAN_BUS_PROMISE(kind, make, stamps_what_it_receives)                          \
  CAN_BUS_PROMISE(kind, make, wakes_up_for_frames_that_come_while_it_waits)     \
  CAN_BUS_PROMISE(kind, make, times_out_at_the_deadline_and_not_before)         \
  CAN_BUS_PROMISE(kind, make, takes_what_is_there_even_after_the_deadline)      \
  CAN_BUS_PROMISE(kind, make, discards_what_arrived_before)                     \
  CAN_BUS_PROMISE(kind, make, refuses_frames_that_cannot_exist)                 \
  CAN_BUS_PROMISE(kind, make, refuses_fd_frames_on_a_classic_bus)               \
  CAN_BUS_PROMISE(kind, make, refuses_everything_while_closed)                  \
  CAN_BUS_PROMISE(kind, make, opens_once_closes_often_and_opens_again)          \
  CAN_BUS_PROMISE(kind, make, forgets_what_arrived_before_it_was_opened)

// the same for transports that notice when the far end is gone
#define CAN_BUS_HANG_UP_CONTRACT(kind, make)                            \
  CAN_BUS_PROMISE(kind, make, says_bus_closed_when_the_far_end_is_gone) \
  CAN_BUS_PROMISE(kind, make, wakes_up_when_the_far_end_goes_away)

// and for those whose queue is bounded by its reader
#define CAN_BUS_FLOW_CONTRACT(kind, make) CAN_BUS_PROMISE(kind, make, gives_up_when_the_queue_stays_full)
