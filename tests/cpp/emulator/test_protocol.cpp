// Protocol: published byte vectors both ways, answer order and timing, damaged and hostile input.
// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "base/errors.hpp"
#include "check.hpp"
#include "line.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {
std::int64_t microseconds(TimePoint from, TimePoint to) {
  return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
}
}  // namespace

TEST(answers_the_published_ping) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
}

TEST(answers_the_published_position_read) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 04 02 38 02 BE"), "FF FF 01 04 00 00 08 F2");
}

TEST(takes_the_published_torque_on) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 04 03 28 01 CE"), "FF FF 01 02 00 FC");
  CHECK_EQ(int{line.byte(1, 40)}, 1);
}

TEST(takes_the_published_unlock) {
  Line line(plain_servos(1));
  CHECK_EQ(int{line.byte(1, 55)}, 1);
  CHECK_EQ(line.exchange("FF FF 01 04 03 37 00 C0"), "FF FF 01 02 00 FC");
  CHECK_EQ(int{line.byte(1, 55)}, 0);
}

TEST(takes_the_published_acceleration_goal_time_speed) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 0A 03 29 32 00 08 00 00 E8 03 A3"), "FF FF 01 02 00 FC");
  CHECK_EQ(int{line.byte(1, 41)}, 50);
  CHECK_EQ(line.word(1, 42), 2048);
  CHECK_EQ(line.word(1, 44), 0);
  CHECK_EQ(line.word(1, 46), 1000);
}

TEST(takes_the_published_homing_offset) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 05 03 1F 55 08 7A"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.word(1, 31), 0x0855);
  CHECK_EQ(line.bus.servo(0).present_ticks(), 2048 + 85);  // present = actual - offset
}

TEST(takes_the_published_sync_write_and_stays_quiet) {
  Line line(plain_servos(2));
  CHECK_EQ(line.exchange("FF FF FE 0A 83 2A 02 01 00 08 02 00 04 39"), "");
  CHECK_EQ(line.word(1, 42), 2048);
  CHECK_EQ(line.word(2, 42), 1024);
}

TEST(answers_the_published_sync_read_in_order) {
  Line line(plain_servos(6));
  CHECK_EQ(line.exchange("FF FF FE 0A 82 38 04 01 02 03 04 05 06 24"),
           "FF FF 01 06 00 00 08 00 00 F0 FF FF 02 06 00 00 08 00 00 EF FF FF 03 06 00 00 08 00 00 EE "
           "FF FF 04 06 00 00 08 00 00 ED FF FF 05 06 00 00 08 00 00 EC FF FF 06 06 00 00 08 00 00 EB");
  CHECK_EQ(line.bus.counters().sync_reads, 1u);
  CHECK_EQ(line.bus.counters().answers, 6u);
}

TEST(answers_in_the_order_asked) {
  Line line(plain_servos(3));
  CHECK_EQ(line.exchange("FF FF FE 06 82 08 01 03 01 6C"), "FF FF 03 03 00 01 F8 FF FF 01 03 00 01 FA");
}

TEST(keeps_the_pace_of_the_wire) {
  Line line(plain_servos(6));
  line.exchange("FF FF FE 0A 82 38 04 01 02 03 04 05 06 24");
  REQUIRE(line.timed.size() == 60);
  // 14 bytes out, 60 back, 10 us each: the last bit of byte k of the answers leaves after 14 + k bytes
  CHECK_EQ(microseconds(TimePoint{}, line.timed.front().at), 150);
  CHECK_EQ(microseconds(TimePoint{}, line.timed.back().at), 740);
  for (std::size_t i = 1; i < line.timed.size(); ++i) {
    CHECK_EQ(microseconds(line.timed[i - 1].at, line.timed[i].at), 10);
  }
}

TEST(adds_the_return_delay_of_every_servo) {
  Line line(plain_servos(2));
  line.exchange("FF FF 02 04 03 07 32 BD");  // servo 2: 50 x 2 us
  const TimePoint begin = line.now;
  line.exchange("FF FF FE 06 82 38 02 01 02 3C");  // 10 bytes out, 8 + 8 back
  REQUIRE(line.timed.size() == 16);
  CHECK_EQ(microseconds(begin, line.timed[7].at), 180);
  CHECK_EQ(microseconds(begin, line.timed[8].at), 180 + 100 + 10);
}

TEST(is_slower_on_a_slower_line) {
  BusOptions options;
  options.baud_rate = 115200;
  Line line(plain_servos(1), options);
  line.exchange("FF FF 01 02 01 FB");
  REQUIRE(line.timed.size() == 6);
  CHECK_EQ(microseconds(TimePoint{}, line.timed.back().at), 12 * 86805 / 1000);
}

TEST(leaves_the_slot_of_a_silent_servo_empty) {
  Line line(plain_servos(3));
  CHECK(line.bus.set_fault(FaultKind::silent, 2, 0));
  CHECK_EQ(line.exchange("FF FF FE 07 82 38 02 01 02 03 38"),
           "FF FF 01 04 00 00 08 F2 FF FF 03 04 00 00 08 F0");
  REQUIRE(line.timed.size() == 16);
  CHECK_EQ(microseconds(line.timed[7].at, line.timed[8].at), 90);  // 8 bytes of silence, then the first byte
  CHECK_EQ(line.bus.counters().unanswered, 1u);
  CHECK(line.bus.clear_fault(FaultKind::silent, 2));
  CHECK_EQ(line.exchange("FF FF 02 02 01 FA"), "FF FF 02 02 00 FB");
}

TEST(answers_a_broadcast_ping_one_after_the_other) {
  Line line(plain_servos(2));
  CHECK_EQ(line.exchange("FF FF FE 02 01 FE"), "FF FF 01 02 00 FC FF FF 02 02 00 FB");
}

TEST(ignores_and_counts_a_wrong_checksum) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 04 03 28 01 CD"), "");
  CHECK_EQ(int{line.byte(1, 40)}, 0);
  CHECK_EQ(line.bus.counters().checksum_errors, 1u);
  CHECK_EQ(line.bus.counters().instructions, 0u);
}

TEST(finds_a_good_packet_behind_garbage) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("00 FF 12 FF FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
  // a broken length swallows the next packet, which is found again
  CHECK_EQ(line.exchange("FF FF 01 06 01 FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
}

TEST(forgets_half_a_packet_after_silence) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 0A 03"), "");
  line.wait(0.05);
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.bus.counters().truncated, 1u);
}

TEST(refuses_impossible_parameters) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 04 02 7F 02 77"), "");              // past the last register
  CHECK_EQ(line.exchange("FF FF 01 04 02 38 00 C0"), "");              // nothing to read
  CHECK_EQ(line.exchange("FF FF FE 08 83 2A 02 01 00 08 02 3F"), "");  // half a group
  CHECK_EQ(line.bus.counters().malformed, 3u);
  CHECK_EQ(line.word(1, 42), 2048);
}

TEST(leaves_read_only_registers_alone) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 05 03 38 00 00 BE"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.word(1, 56), 2048);
  CHECK_EQ(line.exchange("FF FF 01 05 03 03 11 22 C0"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.word(1, 3), 777);
}

TEST(answers_writes_only_at_response_level_1) {
  Line line(plain_servos(1));
  CHECK_EQ(line.exchange("FF FF 01 04 03 08 00 EF"), "");  // level 0 holds at once
  CHECK_EQ(line.exchange("FF FF 01 04 03 29 05 C9"), "");
  CHECK_EQ(int{line.byte(1, 41)}, 5);
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.exchange("FF FF 01 04 02 29 01 CE"), "FF FF 01 03 00 05 F6");
}

TEST(a_prepared_write_waits_for_the_action) {
  Line line(plain_servos(2));
  CHECK_EQ(line.exchange("FF FF 01 05 04 2A 00 06 C5"), "FF FF 01 02 00 FC");
  CHECK_EQ(line.exchange("FF FF 02 05 04 2A 00 07 C3"), "FF FF 02 02 00 FB");
  CHECK_EQ(line.word(1, 42), 2048);
  CHECK_EQ(int{line.byte(1, 64)}, 1);
  CHECK_EQ(line.exchange("FF FF FE 02 05 FA"), "");
  CHECK_EQ(line.word(1, 42), 0x0600);
  CHECK_EQ(line.word(2, 42), 0x0700);
  CHECK_EQ(int{line.byte(1, 64)}, 0);
}

TEST(a_servo_answers_under_the_wrong_id_on_command) {
  Line line(plain_servos(2));
  CHECK(line.bus.set_fault(FaultKind::wrong_id, 1, 7));
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 07 02 00 F6");
  CHECK(line.bus.clear_fault(FaultKind::wrong_id, 1));
  CHECK_EQ(line.exchange("FF FF 01 02 01 FB"), "FF FF 01 02 00 FC");
  CHECK(!line.bus.set_fault(FaultKind::wrong_id, 9, 1));
}

TEST(counts_a_host_that_does_not_wait_for_answers) {
  Line line(plain_servos(1));
  line.exchange("FF FF 01 02 01 FB");
  line.exchange("FF FF 01 02 01 FB");
  CHECK_EQ(line.bus.counters().collisions, 0u);
  line.exchange("FF FF 01 02 01 FB FF FF 01 02 01 FB");
  CHECK_EQ(line.bus.counters().collisions, 1u);
}

TEST(drops_and_corrupts_near_the_asked_rate) {
  for (const bool is_drop : {true, false}) {
    BusOptions options;
    options.seed = 11;
    Line line(plain_servos(1), options);
    CHECK(line.bus.set_fault(is_drop ? FaultKind::drop : FaultKind::corrupt, kEveryDrive, 0.1));
    int num_wrong = 0;
    constexpr int kPings = 5000;
    for (int i = 0; i < kPings; ++i) num_wrong += line.exchange("FF FF 01 02 01 FB") != "FF FF 01 02 00 FC";
    // five standard deviations of a binomial
    CHECK_NEAR(num_wrong, 500, 107);
    CHECK_EQ(line.bus.counters().answers_spoiled, static_cast<unsigned>(num_wrong));
  }
}

TEST(faults_one_servo_and_spares_the_others) {
  Line line(plain_servos(3));
  CHECK(line.bus.set_fault(FaultKind::drop, 2, 1));
  CHECK(!line.bus.set_fault(FaultKind::drop, 9, 1));
  CHECK_EQ(line.exchange("FF FF FE 07 82 38 02 01 02 03 38"),
           "FF FF 01 04 00 00 08 F2 FF FF 03 04 00 00 08 F0");
}

TEST(two_runs_of_one_seed_are_bit_equal) {
  const auto run = [](std::uint64_t seed, double slice) {
    BusOptions options;
    options.seed = seed;
    std::vector<ServoSetup> servos = plain_servos(3);
    servos[1].gravity = 0.4, servos[1].pitch_sign = 1;
    Line line(servos, options);
    line.bus.set_fault(FaultKind::drop, kEveryDrive, 0.2);
    line.bus.set_fault(FaultKind::corrupt, kEveryDrive, 0.2);
    line.exchange("FF FF FE 0A 83 28 01 01 01 02 01 03 01 42");
    std::string all;
    Bytes answers;
    for (int cycle = 0; cycle < 200; ++cycle) {
      const TimePoint begin = line.now;
      line.bus.receive(hex(cycle % 50 ? "FF FF FE 07 82 38 06 01 02 03 34"
                                      : "FF FF FE 0D 83 2A 02 01 00 06 02 00 07 03 00 09 29"),
                       line.now);
      for (int i = 1; i <= static_cast<int>(0.005 / slice + 0.5); ++i) {
        line.now = begin + to_duration(Seconds(slice * i));
        line.bus.advance(line.now);
        line.collect(answers);
      }
      line.now = begin + std::chrono::milliseconds(5);
    }
    return show(answers);
  };
  const std::string first = run(5, 0.005);
  CHECK(first.size() > 1000);
  CHECK_EQ(first, run(5, 0.005));
  CHECK_EQ(first, run(5, 0.00013));  // how time is cut does not matter
  CHECK(first != run(6, 0.005));
}

TEST(survives_any_bytes) {
  std::mt19937 random(3);
  Line line(plain_servos(6));
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes(random() % 24);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    if (round % 3 && bytes.size() >= 6) {  // a right frame around random contents reaches the instructions
      bytes[0] = bytes[1] = 0xFF;
      bytes[2] = random() % 4 ? static_cast<std::uint8_t>(random() % 8) : 0xFE;
      bytes[3] = static_cast<std::uint8_t>(bytes.size() - 4);
      const std::uint8_t instructions[] = {1, 2, 3, 4, 5, 6, 0x82, 0x83};
      bytes[4] = instructions[random() % 8];
      unsigned sum = 0;
      for (std::size_t i = 2; i + 1 < bytes.size(); ++i) sum += bytes[i];
      bytes.back() = static_cast<std::uint8_t>(~sum);
    }
    line.exchange(show(bytes));
    for (std::size_t i = 0; i < line.bus.num_servos(); ++i) {
      const int ticks = line.bus.servo(i).present_ticks();
      CHECK(ticks >= 0 && ticks < kTicksPerTurn);
      CHECK(std::isfinite(line.bus.servo(i).velocity()));
    }
  }
  CHECK(line.bus.counters().instructions > 1000);
  CHECK(line.bus.counters().malformed > 100);
}

TEST(refuses_setups_that_make_no_arm) {
  CHECK_THROWS(StsBus(std::vector<ServoSetup>{}, {}), ConfigError, "1 to 32");
  CHECK_THROWS(StsBus(std::vector<ServoSetup>{plain_servo(1), plain_servo(1)}, {}), ConfigError, "id 1");
  ServoSetup setup = plain_servo(1);
  setup.range_min = 3000, setup.range_max = 2000;
  CHECK_THROWS(StsServo(setup), ConfigError, "3000..2000");
  BusOptions options;
  options.baud_rate = 1;
  CHECK_THROWS(StsBus(plain_servos(1), options), ConfigError, "baud rate 1");
}
