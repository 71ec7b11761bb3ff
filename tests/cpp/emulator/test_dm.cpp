// DM bus: published frames both ways, the line's pace and arbitration, motion, protection.
// SPDX-License-Identifier: Apache-2.0
#include <random>
#include <tuple>

#include "base/errors.hpp"
#include "can_line.hpp"
#include "check.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {

constexpr const char* kEnable = "FF FF FF FF FF FF FF FC";
constexpr const char* kDisable = "FF FF FF FF FF FF FF FD";
constexpr const char* kZeroCommand = "7F FF 7F F0 00 00 07 FF";
constexpr const char* kHold1 = "8A 3C 7F F1 47 33 37 FF";  // 1 rad, kp 40, kd 1

double us(Duration duration) { return to_seconds(duration) * 1e6; }
double seconds_of(const WireFrame& frame, WireRates rates = {}) {
  return to_seconds(wire_time(frame, rates));
}

}  // namespace

TEST(can_bits_of_a_frame_of_zeros) {
  // 34 zeros up to the checksum's end, a stuff bit behind each five, 13 bits that are never stuffed
  WireFrame frame;
  CHECK_EQ(count_bits(frame).slow, 34 + 6 + 13);
}

TEST(can_bits_of_a_frame_that_needs_no_stuffing) {
  WireFrame frame = wire_frame(0x2AA, "55 55 55 55 55 55 55 55");
  const int bits = count_bits(frame).slow;
  CHECK(bits >= 111 && bits <= 114);  // the checksum may need some
}

TEST(can_bits_stay_within_the_bounds_of_the_standard) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    WireFrame frame;
    frame.id = random() % 0x800;
    frame.size = static_cast<std::uint8_t>(random() % 9);
    for (auto& byte : frame.data) byte = static_cast<std::uint8_t>(i % 3 ? random() : i % 2 ? 0 : 0xFF);
    const int plain = 47 + 8 * frame.size, bits = count_bits(frame).slow;
    CHECK(bits >= plain && bits <= plain + (34 + 8 * frame.size - 1) / 4);
  }
}

TEST(can_times_of_classic_and_fd_frames) {
  WireFrame frame = wire_frame(0x001, kZeroCommand);
  CHECK(seconds_of(frame) >= 111e-6 && seconds_of(frame) <= 135e-6);
  const double classic = seconds_of(frame);
  frame.is_fd = frame.is_fast = true;
  CHECK(seconds_of(frame) < 0.5 * classic);
  CHECK(seconds_of(frame) > 30e-6);
  frame.is_fast = false;
  CHECK(seconds_of(frame) > classic);  // a longer checksum at the same rate
  CHECK_EQ(fd_size(9), 12);
  CHECK_EQ(fd_size(33), 48);
  CHECK_EQ(fd_size(64), 64);
}

TEST(dm_answers_the_published_parameter_frames) {
  CanLine line(plain_motors(1));
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 15 00 00 00 00"), "011#01 00 33 15 00 00 48 41");
  CHECK_EQ(line.exchange(0x7FF, "01 00 55 09 D0 07 00 00"), "011#01 00 55 09 D0 07 00 00");
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 09 00 00 00 00"), "011#01 00 33 09 D0 07 00 00");
  CHECK_EQ(line.exchange(0x7FF, "01 00 55 0A 01 00 00 00"), "011#01 00 55 0A 01 00 00 00");
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 07 00 00 00 00"), "011#01 00 33 07 11 00 00 00");
  CHECK_EQ(line.exchange(0x7FF, "01 00 AA 01 00 00 00 00"), "011#01 00 AA 01 00 00 00 00");
}

TEST(dm_answers_a_refresh_with_feedback) {
  std::vector<DmSetup> motors = plain_motors(1);
  motors[0].position = 1;
  CanLine line(motors);
  CHECK_EQ(line.exchange(0x7FF, "01 00 CC 00 00 00 00 00"), "011#01 8A 3C 7F F7 FF 1E 1E");
  CHECK_EQ(line.bus.counters().refreshes, 1u);
}

TEST(dm_enables_and_disables) {
  CanLine line(plain_motors(1));
  CHECK_EQ(line.exchange(0x001, kEnable).substr(0, 6), "011#11");
  CHECK(line.bus.motor(0).is_on());
  CHECK_EQ(line.exchange(0x001, kDisable).substr(0, 6), "011#01");
  CHECK(!line.bus.motor(0).is_on());
  CHECK_EQ(line.bus.counters().enables, 1u);
  CHECK_EQ(line.bus.counters().disables, 1u);
}

TEST(dm_follows_the_published_mit_command) {
  CanLine line(plain_motors(1));
  line.exchange(0x001, kHold1);  // without torque it only listens
  line.wait(0.5);
  CHECK_NEAR(line.bus.motor(0).position(), 0, 1e-9);
  line.exchange(0x001, kEnable);
  line.hold(0x001, kHold1, 2);
  CHECK_NEAR(line.bus.motor(0).position(), 1, 0.01);
  CHECK_NEAR(line.bus.motor(0).stiffness(), 40, 0.13);
}

TEST(dm_follows_the_published_position_commands) {
  for (const auto& [mode, id, data] :
       {std::tuple{2, 0x101u, "00 00 80 3F 00 00 00 40"}, std::tuple{4, 0x301u, "00 00 80 3F F4 01 88 13"}}) {
    std::vector<DmSetup> motors = plain_motors(1);
    motors[0].mode = mode;
    CanLine line(motors);
    line.exchange(id, kEnable);
    CHECK(line.bus.motor(0).is_on());
    line.hold(id, data, 2);
    CHECK_NEAR(line.bus.motor(0).position(), 1, 0.01);
  }
}

TEST(dm_takes_no_command_of_another_mode) {
  std::vector<DmSetup> motors = plain_motors(1);
  motors[0].mode = 2;
  CanLine line(motors);
  CHECK(!line.exchange(0x001, kEnable).empty());  // it answers, and stays as it was
  CHECK(!line.bus.motor(0).is_on());
  line.exchange(0x101, kEnable);
  line.hold(0x001, kHold1, 0.5);
  CHECK_NEAR(line.bus.motor(0).position(), 0, 1e-9);
}

TEST(dm_bounds_force_by_the_share) {
  std::vector<DmSetup> motors = plain_motors(1);
  motors[0].mode = 4;
  CanLine line(motors);
  line.exchange(0x301, kEnable);
  line.bus.set_fault(FaultKind::block, 1, 0);
  line.hold(0x301, "00 00 80 3F F4 01 88 13", 1);  // half
  CHECK_NEAR(line.bus.motor(0).torque(), 3.5, 1e-6);
}

TEST(dm_keeps_registers_only_when_stored) {
  CanLine line(plain_motors(1));
  line.exchange(0x7FF, "01 00 55 09 D0 07 00 00");
  line.bus.set_fault(FaultKind::reboot, 1, 0);
  CHECK_EQ(line.bus.motor(0).raw_register(9), 0u);
  line.exchange(0x7FF, "01 00 55 09 D0 07 00 00");
  line.exchange(0x001, kEnable);
  line.exchange(0x7FF, "01 00 AA 01 00 00 00 00");  // not with torque
  line.bus.set_fault(FaultKind::reboot, 1, 0);
  CHECK_EQ(line.bus.motor(0).raw_register(9), 0u);
  line.exchange(0x7FF, "01 00 55 09 D0 07 00 00");
  line.exchange(0x7FF, "01 00 AA 01 00 00 00 00");
  line.bus.set_fault(FaultKind::reboot, 1, 0);
  CHECK_EQ(line.bus.motor(0).raw_register(9), 2000u);
}

TEST(dm_refuses_to_write_what_is_read_only) {
  CanLine line(plain_motors(1));
  CHECK_EQ(line.exchange(0x7FF, "01 00 55 0E 01 00 00 00"), "");
  CHECK_EQ(line.bus.motor(0).raw_register(14), 5013u);
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 28 00 00 00 00"), "");  // no such register
}

TEST(dm_makes_the_present_position_zero) {
  std::vector<DmSetup> motors = plain_motors(1);
  motors[0].position = 0.7;
  CanLine line(motors);
  line.exchange(0x001, "FF FF FF FF FF FF FF FE");
  CHECK_NEAR(line.bus.motor(0).position(), 0, 1e-12);
}

TEST(dm_lets_go_when_the_host_falls_silent) {
  CanLine line(plain_motors(1));
  line.exchange(0x7FF, "01 00 55 09 D0 07 00 00");  // 100 ms
  line.exchange(0x001, kEnable);
  line.hold(0x001, kZeroCommand, 1);
  CHECK(line.bus.motor(0).is_on());
  line.wait(0.09);
  CHECK(line.bus.motor(0).is_on());
  line.wait(0.02);
  CHECK(!line.bus.motor(0).is_on());
  CHECK_EQ(line.exchange(0x001, kEnable).substr(0, 6), "011#D1");  // latched
  line.exchange(0x001, "FF FF FF FF FF FF FF FB");
  CHECK_EQ(line.exchange(0x001, kEnable).substr(0, 6), "011#11");
}

TEST(dm_protects_itself) {
  for (const auto& [kind, value, code] :
       {std::tuple{FaultKind::supply, 10.0, "011#91"}, std::tuple{FaultKind::supply, 40.0, "011#81"},
        std::tuple{FaultKind::overheat, 105.0, "011#C1"}, std::tuple{FaultKind::drive_error, 14.0, "011#E1"},
        std::tuple{FaultKind::drive_error, 32.0, "011#E1"}}) {
    CanLine line(plain_motors(1));
    line.exchange(0x001, kEnable);
    CHECK(line.bus.set_fault(kind, 1, value));
    line.wait(0.01);
    CHECK_EQ(line.exchange(0x001, kZeroCommand).substr(0, 6), code);
    CHECK_EQ(line.bus.motor(0).is_on(), kind == FaultKind::drive_error);  // that one only pretends
  }
}

TEST(dm_falls_without_torque_and_sags_with_little) {
  std::vector<DmSetup> motors = plain_motors(1);
  motors[0].gravity = 2;
  motors[0].pitch_sign = 1;
  CanLine line(motors);
  line.exchange(0x001, kEnable);
  line.hold(0x001, "7F FF 7F F1 47 33 37 FF", 2);  // 0 rad, kp 40, kd 1
  CHECK_NEAR(line.bus.motor(0).position(), -2.0 / 40, 0.005);
  line.exchange(0x001, kDisable);
  line.wait(1);
  CHECK(line.bus.motor(0).position() < -1);
}

TEST(dm_line_carries_eight_commands_and_answers_in_time) {
  CanLine line(plain_motors(8));
  const TimePoint start = line.bus.now();
  for (std::uint32_t id = 1; id <= 8; ++id) line.bus.receive(wire_frame(id, kZeroCommand), start);
  std::vector<TimedFrame> answers(16);
  std::size_t count = 0;
  while (const auto next = line.bus.next_event()) {
    line.bus.advance(*next);
    count += line.bus.due(*next, std::span(answers).subspan(count));
  }
  REQUIRE(count == 8);
  // commands have the lower ids: they all go first, then the answers in the order of theirs
  for (std::uint32_t i = 0; i < 8; ++i) CHECK_EQ(answers[i].frame.id, 0x11 + i);
  CHECK(answers[0].at - start > std::chrono::microseconds(9 * 111));
  const double all = us(answers[7].at - start);
  CHECK(all >= 16 * 111 && all <= 16 * 135);
  std::printf("  eight commands and answers, classic 1 Mbit/s: %.0f us\n", all);
  CHECK_NEAR(double(line.bus.counters().busy_ns) / 1e3, all, 0.1);  // never idle in between
}

TEST(dm_line_is_faster_with_fd) {
  CanLine line(plain_motors(8));
  const TimePoint start = line.bus.now();
  for (std::uint32_t id = 1; id <= 8; ++id) {
    WireFrame frame = wire_frame(id, kZeroCommand);
    frame.is_fd = frame.is_fast = true;
    line.bus.receive(frame, start);
  }
  std::vector<TimedFrame> answers(16);
  std::size_t count = 0;
  while (const auto next = line.bus.next_event()) {
    line.bus.advance(*next);
    count += line.bus.due(*next, std::span(answers).subspan(count));
  }
  REQUIRE(count == 8);
  for (std::size_t i = 0; i < 8; ++i) CHECK(answers[i].frame.is_fd && answers[i].frame.is_fast);
  const double all = us(answers[7].at - start);
  std::printf("  eight commands and answers, FD 1/5 Mbit/s: %.0f us\n", all);
  CHECK(all < 1000);
}

TEST(dm_classic_line_destroys_fd_frames) {
  CanLine line(plain_motors(1), DmBusOptions{.rates = {.data_bit_rate = 0}});
  WireFrame frame = wire_frame(1, kEnable);
  frame.is_fd = true;
  CHECK_EQ(line.exchange_all(frame).size(), 0u);
  CHECK_EQ(line.bus.counters().wrong_format, 1u);
  CHECK(!line.bus.motor(0).is_on());
}

TEST(dm_faults_on_the_line) {
  const auto answers = [](FaultKind kind, double value, int id = 1) {
    CanLine line(plain_motors(2));
    REQUIRE(line.bus.set_fault(kind, id, value));
    WireFrame frame = wire_frame(0x7FF, "01 00 CC 00 00 00 00 00");
    frame.is_fd = frame.is_fast = true;
    return line.exchange_all(frame);
  };
  const std::string good = "011#01 7F FF 7F F7 FF 1E 1E";
  CHECK(answers(FaultKind::drop, 1).empty());
  CHECK(answers(FaultKind::silent, 0).empty());
  CHECK(answers(FaultKind::brown_out, 1).empty());
  REQUIRE(answers(FaultKind::corrupt, 1).size() == 1);
  CHECK(text(answers(FaultKind::corrupt, 1)[0].frame) != good);
  CHECK_EQ(int{answers(FaultKind::truncate, 1)[0].frame.size}, 4);
  CHECK_EQ(int{answers(FaultKind::wrong_length, 1)[0].frame.size}, 7);
  CHECK_EQ(answers(FaultKind::repeat, 1).size(), 2u);
  CHECK_EQ(answers(FaultKind::noise, 1).size(), 2u);
  CHECK_EQ(answers(FaultKind::noise, 1)[0].frame.id, 0x11u);  // the lower id wins, whoever came first
  CHECK(answers(FaultKind::late, 1).empty());
  CHECK_EQ(answers(FaultKind::wrong_id, 0x33)[0].frame.id, 0x33u);
  CHECK_EQ(answers(FaultKind::duplicate_id, 1, 2).size(), 2u);
  CHECK(!answers(FaultKind::non_fd, 0)[0].frame.is_fd);
  CHECK(answers(FaultKind::delay, 0.02)[0].at - TimePoint{std::chrono::seconds(1)} >
        std::chrono::milliseconds(20));
  REQUIRE(answers(FaultKind::bus_off, 0, kEveryDrive).size() == 1);
  CHECK(answers(FaultKind::bus_off, 0, kEveryDrive)[0].frame.is_error);
  CHECK_EQ(text(answers(FaultKind::encoder_wrap, 1)[0].frame).substr(0, 9), "011#01 C0");  // + one turn
  CHECK_EQ(text(answers(FaultKind::sensor_jump, 0.5)[0].frame).substr(0, 9), "011#01 85");
}

TEST(dm_late_answers_take_the_next_ones_place) {
  CanLine line(plain_motors(1));
  line.bus.set_fault(FaultKind::late, 1, 1);
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 15 00 00 00 00"), "");
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 07 00 00 00 00"), "011#01 00 33 15 00 00 48 41");
}

TEST(dm_babbles) {
  CanLine line(plain_motors(1));
  line.bus.set_fault(FaultKind::babble, 1, 100);
  std::array<TimedFrame, 64> taken;
  std::size_t count = 0;
  for (int i = 0; i < 100; ++i) {
    line.wait(0.001);
    count += line.bus.due(line.bus.now(), taken);
  }
  CHECK(count >= 9 && count <= 11);
}

TEST(dm_forgets_torque_and_is_back_after_a_brown_out) {
  CanLine line(plain_motors(2));
  line.exchange(0x001, kEnable);
  line.bus.set_fault(FaultKind::brown_out, 1, 0.1);
  CHECK_EQ(line.exchange(0x001, kZeroCommand), "");
  line.wait(0.11);
  CHECK_EQ(line.exchange(0x001, kZeroCommand).substr(0, 6), "011#01");
}

TEST(dm_drive_faults_do_what_they_say) {
  CanLine line(plain_motors(1));
  line.exchange(0x001, kEnable);
  line.hold(0x001, kHold1, 2);
  line.bus.set_fault(FaultKind::freeze, 1, 0);
  const std::string frozen = line.exchange(0x001, kZeroCommand);
  line.hold(0x001, "7F FF 7F F1 47 33 37 FF", 0.5);
  CHECK_EQ(line.exchange(0x001, kZeroCommand), frozen);
  CHECK(line.bus.motor(0).position() < 0.5);
  line.bus.clear_fault(FaultKind::freeze, 1);

  line.hold(0x001, kHold1, 1);
  line.bus.set_fault(FaultKind::stuck, 1, 0);
  line.hold(0x001, "7F FF 7F F1 47 33 37 FF", 1);
  CHECK_NEAR(line.bus.motor(0).position(), 1, 0.02);
  line.bus.clear_fault(FaultKind::stuck, 1);

  line.bus.set_fault(FaultKind::wrong_mode, 1, 2);
  CHECK_EQ(line.exchange(0x7FF, "01 00 33 0A 00 00 00 00"), "011#01 00 33 0A 02 00 00 00");
  line.bus.clear_fault(FaultKind::wrong_mode, 1);

  line.bus.set_fault(FaultKind::ignore_writes, 1, 0);
  CHECK_EQ(line.exchange(0x7FF, "01 00 55 09 D0 07 00 00"), "011#01 00 55 09 00 00 00 00");
  line.bus.set_fault(FaultKind::torque_lost, 1, 0);
  CHECK_EQ(line.exchange(0x001, kZeroCommand).substr(0, 6), "011#01");
}

TEST(dm_bus_is_bit_equal_for_a_seed_however_time_is_cut) {
  const auto play = [](int slices) {
    CanLine line(plain_motors(3), {.rates = {}, .seed = 7});
    for (const FaultKind kind : {FaultKind::drop, FaultKind::corrupt, FaultKind::repeat})
      line.bus.set_fault(kind, kEveryDrive, 0.2);
    line.bus.set_fault(FaultKind::babble, 2, 300);
    std::string all;
    std::array<TimedFrame, 64> taken;
    for (int tick = 0; tick < 100; ++tick) {
      for (std::uint32_t id = 1; id <= 3; ++id)
        line.bus.receive(wire_frame(id, tick ? kHold1 : kEnable), line.bus.now());
      const TimePoint end = line.bus.now() + std::chrono::milliseconds(5);
      for (int i = 1; i <= slices; ++i) {
        line.bus.advance(end - std::chrono::milliseconds(5) * (slices - i) / slices);
        const std::size_t count = line.bus.due(line.bus.now(), taken);
        for (std::size_t k = 0; k < count; ++k) {
          all += text(taken[k].frame) + " " + std::to_string(taken[k].at.time_since_epoch().count()) + "\n";
        }
      }
    }
    return all;
  };
  const std::string once = play(1);
  CHECK(once.size() > 5000);
  CHECK(once == play(1));
  CHECK(once == play(7));
  CHECK(once == play(1000));
}

TEST(dm_bus_survives_ten_thousand_frames) {
  CanLine line(plain_motors(8));
  std::mt19937_64 random(3);
  std::array<TimedFrame, 64> taken;
  for (int i = 0; i < 10'000; ++i) {
    WireFrame frame = wire_frame(1 + random() % 8, i % 2 ? kHold1 : kEnable);
    if (i % 4 == 1) frame.data[random() % 8] ^= static_cast<std::uint8_t>(1u << random() % 8);
    if (i % 4 == 3) {
      frame.id = random() % 2 ? 0x7FF : static_cast<std::uint32_t>(random() % 0x800);
      frame.size = static_cast<std::uint8_t>(random() % 65);
      frame.is_fd = frame.size > 8;
      for (auto& byte : frame.data) byte = static_cast<std::uint8_t>(random());
      if (frame.id == 0x7FF) frame.data[0] = static_cast<std::uint8_t>(1 + random() % 8), frame.data[1] = 0;
    }
    line.bus.receive(frame, line.bus.now());
    line.wait(0.0003);
    line.bus.due(line.bus.now(), taken);
  }
  for (std::size_t i = 0; i < 8; ++i) CHECK(std::isfinite(line.bus.motor(i).position()));
  CHECK(line.bus.counters().frames_received > 9000);
}

TEST(dm_setups_that_cannot_be_are_refused) {
  CHECK_THROWS(DmBus({}, {}), ConfigError, "1 to 32 motors");
  std::vector<DmSetup> motors = plain_motors(2);
  motors[1].id = 1;
  CHECK_THROWS(DmBus(motors, {}), ConfigError, "id 1");
  CHECK_THROWS(DmBus(plain_motors(1), {.rates = {.bit_rate = 1}}), ConfigError, "10000..1000000");
  CHECK_THROWS(DmBus(plain_motors(1), {.rates = {.data_bit_rate = 9'000'000}}), ConfigError, "8000000");
  const auto refused = [](auto&& change) {
    DmSetup setup = plain_motors(1)[0];
    change(setup);
    return DmMotor(setup);
  };
  CHECK_THROWS(refused([](DmSetup& s) { s.id = 0; }), ConfigError, "1..255");
  CHECK_THROWS(refused([](DmSetup& s) { s.mode = 5; }), ConfigError, "mode 5");
  CHECK_THROWS(refused([](DmSetup& s) { s.inertia = 0; }), ConfigError, "inertia");
  CHECK_THROWS(refused([](DmSetup& s) { s.position = 9; }), ConfigError, "end stops");
}
