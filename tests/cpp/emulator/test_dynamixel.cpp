// Emulated Dynamixel servos: the published frames, the rules of the control table, the bus watchdog, and what
// the shared read leaves out. SPDX-License-Identifier: Apache-2.0
#include <random>

#include "check.hpp"
#include "emulator/dxl_bus.hpp"
#include "emulator/line.hpp"

namespace wallx::emulator {
namespace {

// two servos 1 and 2, model 1200, at position 2048
struct DxlLine {
  explicit DxlLine(std::vector<ServoSetup> setups = plain_servos(2), BusOptions options = {})
      : bus(setups, options), now(options.start) {}

  std::string exchange(const Bytes& request) {
    bus.receive(request, now);
    Bytes answers;
    while (const auto next = bus.next_event()) {
      now = *next;
      bus.advance(now);
      TimedByte bytes[64];
      while (const std::size_t count = bus.due(now, bytes))
        for (std::size_t i = 0; i < count; ++i) answers.push_back(bytes[i].byte);
    }
    return show(answers);
  }
  std::string exchange(const std::string& request) { return exchange(hex(request)); }
  // a request from its id on, without length and crc; stuffed
  std::string ask(int id, const std::string& body) {
    Bytes raw = hex(body);
    for (std::size_t i = 2; i < raw.size(); ++i)
      if (raw[i - 2] == 0xFF && raw[i - 1] == 0xFF && raw[i] == 0xFD)
        raw.insert(raw.begin() + static_cast<std::ptrdiff_t>(++i), 0xFD);
    Bytes packet{
        0xFF, 0xFF, 0xFD, 0, static_cast<std::uint8_t>(id), static_cast<std::uint8_t>(raw.size() + 2), 0};
    packet.insert(packet.end(), raw.begin(), raw.end());
    unsigned crc = 0;
    for (const unsigned byte : packet)
      for (int bit = 7; bit >= 0; --bit)
        crc = ((crc << 1) ^ (((crc >> 15) ^ (byte >> bit)) & 1 ? 0x8005 : 0)) & 0xFFFF;
    packet.push_back(static_cast<std::uint8_t>(crc & 0xFF));
    packet.push_back(static_cast<std::uint8_t>(crc >> 8));
    return exchange(packet);
  }
  int error(int id, const std::string& body) {
    const std::string answer = ask(id, body);
    return answer.empty() ? -1 : hex(answer)[8];
  }
  void wait(double seconds) { bus.advance(now += to_duration(Seconds(seconds))); }
  DxlServo& servo(std::size_t index) { return static_cast<DxlServo&>(bus.servo(index)); }

  DxlBus bus;
  TimePoint now;
};

TEST(dxl_answers_the_published_requests) {
  auto setups = plain_servos(2);
  setups[0].position = 166;
  setups[0].firmware = 38;
  DxlLine line(setups);
  // model 1200 (04B0) where the published answer has 1030
  CHECK_EQ(line.exchange("FF FF FD 00 01 03 00 01 19 4E").substr(0, 35),
           "FF FF FD 00 01 07 00 55 00 B0 04 26");
  CHECK_EQ(line.exchange("FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"),
           "FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0");
  CHECK_EQ(line.exchange("FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
           "FF FF FD 00 01 04 00 55 00 A1 0C");
  CHECK_EQ(line.servo(0).goal_ticks(), 512);
  CHECK_EQ(line.exchange("FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87"), "");
  CHECK_EQ(line.servo(0).goal_ticks(), 150);
  CHECK_EQ(line.servo(1).goal_ticks(), 170);
  CHECK_EQ(line.exchange("FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA").substr(0, 44),
           "FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0");
}

TEST(dxl_ignores_what_is_not_a_whole_right_packet) {
  DxlLine line;
  for (const char* bad :
       {"FF FF FD 00 01 03 00 01 19 4F", "FF FF FD 01 01 03 00 01 19 4E", "FF FF FD 00 09 03 00 01 18 9E"})
    CHECK_EQ(line.exchange(bad), "");
  CHECK_EQ(line.exchange("00 FF FF FF FD 00 01 02 FF FF FD 00 01 03 00 01 19 4E").size(), 14u * 3 - 1);
}

TEST(dxl_stuffs_its_answers_and_understands_stuffed_requests) {
  DxlLine line;
  CHECK_EQ(line.error(1, "03 6C 00 FF FF FD 00"), 0);  // profile acceleration 0x00FDFFFF
  CHECK_EQ(line.ask(1, "02 6C 00 04 00").substr(0, 41), "FF FF FD 00 01 09 00 55 00 FF FF FD FD 00");
  CHECK_EQ(line.bus.counters().malformed, 0u);
}

TEST(dxl_refuses_writes_by_the_rules_of_the_table) {
  DxlLine line;
  CHECK_EQ(line.error(1, "03 00 00 01 00"), dxl::kAccessError);  // model number
  CHECK_EQ(line.error(1, "03 74 00 00 02"), dxl::kLengthError);  // half a goal
  CHECK_EQ(line.error(1, "03 75 00 00 02"), dxl::kLengthError);  // its middle
  CHECK_EQ(line.error(1, "03 F0 00 00"), dxl::kAccessError);     // nothing there
  CHECK_EQ(line.error(1, "03 0B 00 02"), dxl::kRangeError);      // no such mode
  CHECK_EQ(line.error(1, "03 64 00 76 03"), dxl::kLimitError);   // PWM 886
  CHECK_EQ(line.error(1, "02 F0 00 20 00"), dxl::kRangeError);
  CHECK_EQ(line.error(1, "44 00"), dxl::kInstructionError);
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
  CHECK_EQ(line.error(1, "03 0B 00 03"), dxl::kAccessError);  // EEPROM with torque on
  CHECK_EQ(line.error(1, "03 40 00 00"), 0);
  CHECK_EQ(line.error(1, "03 0B 00 03"), 0);
  CHECK_EQ(line.error(1, "03 74 00 00 10 00 00"), dxl::kLimitError);  // 4096 in position mode
}

TEST(dxl_status_return_level_keeps_it_quiet) {
  DxlLine line;
  CHECK_EQ(line.error(1, "03 44 00 01"), 0);
  CHECK_EQ(line.error(1, "03 41 00 01"), -1);
  CHECK_EQ(line.error(1, "02 41 00 01 00"), 0);
  CHECK_EQ(line.error(1, "03 44 00 00"), -1);
  CHECK_EQ(line.error(1, "02 41 00 01 00"), -1);
  CHECK_EQ(line.error(1, "01"), 0);
}

TEST(dxl_watchdog_stops_the_servo_and_goals_are_refused_until_it_is_cleared) {
  auto setups = plain_servos(2);
  for (auto& setup : setups) setup.inertia = 0.002, setup.friction = 0.005;
  DxlLine line(setups);
  CHECK_EQ(line.error(1, "03 62 00 05"), 0);  // 100 ms, and torque still off
  line.wait(0.3);
  CHECK(!line.servo(0).has_tripped());
  CHECK_EQ(line.error(1, "03 70 00 32 00 00 00"), 0);  // profile velocity 50: 1.2 rad/s
  CHECK_EQ(line.error(1, "03 74 00 00 08 00 00"), 0);
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
  CHECK_EQ(line.error(1, "03 74 00 B8 0B 00 00"), 0);  // goal 3000
  for (int i = 0; i < 4; ++i) {
    line.wait(0.08);
    CHECK_EQ(line.error(2, "01"), 0);  // any instruction on the line counts
  }
  CHECK(!line.servo(0).has_tripped());
  line.wait(0.11);
  CHECK(line.servo(0).has_tripped());
  const int stopped = line.servo(0).present_ticks();
  CHECK(stopped > 2100 && stopped < 2900);
  line.wait(0.5);
  CHECK(std::abs(line.servo(0).present_ticks() - stopped) < 20);
  CHECK_EQ(int{line.servo(0).torque()}, 1);
  CHECK_EQ(line.ask(1, "02 62 00 01 00").substr(27, 2), "FF");
  CHECK_EQ(line.error(1, "03 74 00 B8 0B 00 00"), dxl::kRangeError);
  CHECK_EQ(line.error(1, "03 62 00 05"), dxl::kRangeError);
  CHECK_EQ(line.error(1, "03 62 00 00"), 0);
  line.wait(0.2);
  CHECK(std::abs(line.servo(0).present_ticks() - stopped) < 20);  // clearing moves nothing
  CHECK_EQ(line.error(1, "03 74 00 B8 0B 00 00"), 0);
  line.wait(3.0);
  CHECK(std::abs(line.servo(0).present_ticks() - 3000) < 5);
}

TEST(dxl_reboot_loses_what_is_volatile) {
  DxlLine line;
  CHECK_EQ(line.error(1, "03 14 00 10 00 00 00"), 0);  // homing offset 16
  CHECK_EQ(line.error(1, "03 64 00 64 00"), 0);
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
  CHECK_EQ(line.error(1, "08"), 0);
  CHECK_EQ(line.error(1, "01"), -1);
  line.wait(0.25);
  CHECK_EQ(line.error(1, "01"), 0);
  CHECK_EQ(int{line.servo(0).torque()}, 0);
  CHECK_EQ(line.servo(0).value(dxl::kGoalPwm) + 256 * line.servo(0).value(dxl::kGoalPwm + 1), 885);
  CHECK_EQ(line.servo(0).present_ticks(), 2064);
}

TEST(dxl_hardware_error_takes_the_torque_until_a_reboot) {
  DxlLine line;
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
  (void)line.bus.set_fault(FaultKind::overheat, 1, 90);
  line.wait(0.01);
  CHECK_EQ(line.error(1, "01"), dxl::kAlert);
  CHECK_EQ(int{line.servo(0).torque()}, 0);
  CHECK_EQ(line.ask(1, "02 46 00 01 00").substr(24, 5), "80 04");
  (void)line.bus.clear_fault(FaultKind::overheat, 1);
  line.wait(200);
  CHECK_EQ(line.error(1, "03 40 00 01"), dxl::kAlert | dxl::kResultFail);
  CHECK_EQ(line.error(1, "08"), dxl::kAlert);
  line.wait(0.25);
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
}

// the answers follow each other at the pace of the wire; a shared answer saves nine bytes a servo
TEST(dxl_sync_reads_take_the_time_their_bytes_take) {
  DxlLine line;
  const auto took = [&](const std::string& request) {
    const TimePoint before = line.now;
    const std::string answer = line.exchange(request);
    CHECK(!answer.empty());
    return std::pair((answer.size() + 1) / 3, line.now - before);
  };
  const auto [plain, plain_time] = took("FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA");
  CHECK_EQ(plain, 30u);
  CHECK(plain_time == std::chrono::microseconds(10 * (16 + 30)));
  const auto [fast, fast_time] = took("FF FF FD 00 FE 09 00 8A 84 00 04 00 01 02 4D 72");
  CHECK_EQ(fast, 24u);
  CHECK(fast_time == std::chrono::microseconds(10 * (16 + 24)));
}

TEST(dxl_a_missing_servo_ends_a_shared_answer_and_leaves_a_gap_in_the_others) {
  DxlLine line(plain_servos(3));
  const std::string whole = line.ask(0xFE, "8A 84 00 04 00 01 02 03");
  CHECK_EQ(whole.size(), 3u * 32 - 1);
  (void)line.bus.set_fault(FaultKind::silent, 2, 0);
  CHECK_EQ(line.ask(0xFE, "8A 84 00 04 00 01 02 03"), whole.substr(0, 3 * 16 - 1));
  CHECK_EQ(line.ask(0xFE, "82 84 00 04 00 01 02 03").size(), 3u * 30 - 1);
}

TEST(dxl_bulk_reads_and_writes_what_each_servo_is_asked_for) {
  DxlLine line;
  CHECK_EQ(line.ask(0xFE, "93 01 64 00 02 00 64 00 02 6C 00 04 00 07 00 00 00"), "");
  CHECK_EQ(line.ask(0xFE, "92 01 64 00 02 00 02 6C 00 04 00").size(), 3u * (13 + 15) - 1);
  CHECK_EQ(line.servo(0).value(dxl::kGoalPwm), 100);
  CHECK_EQ(line.servo(1).value(dxl::kProfileAcceleration), 7);
  CHECK_EQ(line.ask(0xFE, "9A 01 64 00 02 00 02 6C 00 04 00").size(), 3u * (8 + 6 + 8) - 1);
  // the second part is too long: nothing of it is done
  CHECK_EQ(line.ask(0xFE, "93 01 64 00 02 00 65 00 02 6C 00 05 00 07 00 00 00"), "");
  CHECK_EQ(line.servo(0).value(dxl::kGoalPwm), 100);
}

TEST(dxl_direction_and_homing_are_the_servos_own) {
  auto setups = plain_servos(2);
  setups[0].drive_mode = 1;
  setups[0].homing_offset = 3000;
  setups[0].position = 1500;
  setups[0].inertia = 0.002;
  setups[0].friction = 0.005;
  DxlLine line(setups);
  CHECK_EQ(line.servo(0).present_ticks(), 1500);
  CHECK_EQ(line.error(1, "03 74 00 D0 07 00 00"), 0);  // 2000
  CHECK_EQ(line.error(1, "03 40 00 01"), 0);
  line.wait(2);
  CHECK(std::abs(line.servo(0).present_ticks() - 2000) < 5);
}

// whatever arrives with a right crc, the servos stay within their bounds and go on answering
TEST(dxl_fuzzed_requests_never_break_the_line) {
  std::mt19937 random(77);
  DxlLine line;
  for (int i = 0; i < 3000; ++i) {
    static constexpr int kInstructions[] = {1,    2,    3,    4,    5,    8,    0x10, 0x82,
                                            0x83, 0x8A, 0x92, 0x93, 0x9A, 0x55, 0x77};
    Bytes body{static_cast<std::uint8_t>(kInstructions[random() % 15])};
    for (unsigned size = random() % 24; size > 0; --size)
      body.push_back(static_cast<std::uint8_t>(random() % 3 == 0   ? 0xFF
                                               : random() % 4 == 0 ? random() % 8
                                                                   : random()));
    (void)line.ask(random() % 2 ? 0xFE : 1, show(body));
  }
  CHECK(line.bus.counters().instructions > 500);
  CHECK(line.bus.counters().malformed > 300);
  line.wait(1);
  CHECK_EQ(line.exchange("FF FF FD 00 FE 03 00 01 31 42").size() % 3, 2u);
}

}  // namespace
}  // namespace wallx::emulator
