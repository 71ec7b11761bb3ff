// Damiao protocol: every published vector, the saturated corner, what is refused, and damaged frames.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/damiao/damiao_protocol.hpp"

#include <chrono>
#include <limits>
#include <random>

#include "check.hpp"
#include "drivers/fuzz_count.hpp"
#include "drivers/hex.hpp"

namespace wallx::test {
namespace {

using namespace wallx::damiao;

constexpr Ranges k4310{12.5, 30, 10};
constexpr Ranges k8009{12.5, 45, 54};

std::string text(const CanFrame& frame) { return hex({frame.data.data(), frame.size}); }

CanFrame mit(const MitCommand& command, const Ranges& ranges = k4310) {
  CanFrame frame;
  REQUIRE(encode_mit(1, command, ranges, frame).ok());
  return frame;
}

CanFrame answer(const std::string& data, std::uint32_t id = 0x11) {
  CanFrame frame;
  frame.id = id;
  const Bytes all = bytes(data);
  std::copy(all.begin(), all.end(), frame.data.begin());
  frame.size = static_cast<std::uint8_t>(all.size());
  return frame;
}

bool is_special(const CanFrame& frame) {
  for (int i = 0; i < 7; ++i)
    if (frame.data[i] != 0xFF) return false;
  return frame.data[7] >= 0xFB && frame.data[7] <= 0xFE;
}

TEST(damiao_mit_frames_are_the_published_ones) {
  CHECK_EQ(text(mit({})), "7F FF 7F F0 00 00 07 FF");
  CHECK_EQ(text(mit({.position = 1, .kp = 40, .kd = 1})), "8A 3C 7F F1 47 33 37 FF");
  CHECK_EQ(text(mit({-1.5, 2, 100, 2.5, -3})), "70 A3 88 83 33 7F F5 99");
  CHECK_EQ(text(mit({12.5, 30, 500, 5, 10})), "FF FF FF FF FF FF FF FF");
  CHECK_EQ(text(mit({99, 99, 500, 5, 99})), "FF FF FF FF FF FF FF FF");
  CHECK_EQ(text(mit({.position = 0.5, .kp = 240, .kd = 5, .torque = 5}, k8009)), "85 1E 7F F7 AD FF F8 BD");
  CHECK_EQ(mit({}).id, 1u);
  CHECK(!mit({}).is_extended);
}

TEST(damiao_position_frames_are_the_published_ones) {
  CanFrame frame;
  CHECK(encode_pos_vel(1, 1, 2, frame).ok());
  CHECK_EQ(text(frame), "00 00 80 3F 00 00 00 40");
  CHECK_EQ(frame.id, 0x101u);
  CHECK(encode_pos_force(1, 1, 5, 0.5, frame).ok());
  CHECK_EQ(text(frame), "00 00 80 3F F4 01 88 13");
  CHECK_EQ(frame.id, 0x301u);
  CHECK(encode_vel(1, 2, frame).ok());
  CHECK_EQ(text(frame), "00 00 00 40");
  CHECK_EQ(frame.id, 0x201u);
}

TEST(damiao_special_frames_are_the_published_ones) {
  CHECK_EQ(text(encode_special(1, Mode::mit, Special::enable)), "FF FF FF FF FF FF FF FC");
  CHECK_EQ(text(encode_special(1, Mode::mit, Special::disable)), "FF FF FF FF FF FF FF FD");
  CHECK_EQ(text(encode_special(1, Mode::mit, Special::set_zero)), "FF FF FF FF FF FF FF FE");
  CHECK_EQ(text(encode_special(1, Mode::mit, Special::clear_error)), "FF FF FF FF FF FF FF FB");
  CHECK_EQ(encode_special(1, Mode::mit, Special::enable).id, 0x001u);
  CHECK_EQ(encode_special(1, Mode::pos_vel, Special::enable).id, 0x101u);
  CHECK_EQ(encode_special(1, Mode::pos_force, Special::enable).id, 0x301u);
}

TEST(damiao_parameter_frames_are_the_published_ones) {
  CHECK_EQ(text(encode_read(1, find_register("pmax"))), "01 00 33 15 00 00 00 00");
  CHECK_EQ(encode_read(1, find_register("pmax")).id, 0x7FFu);
  CanFrame frame;
  CHECK(encode_write(1, find_register("timeout"), 0.1, frame).ok());
  CHECK_EQ(text(frame), "01 00 55 09 D0 07 00 00");
  CHECK(encode_write(1, find_register("ctrl_mode"), 1, frame).ok());
  CHECK_EQ(text(frame), "01 00 55 0A 01 00 00 00");
  CHECK_EQ(text(encode_store(1)), "01 00 AA 01 00 00 00 00");
  CHECK_EQ(text(encode_refresh(1)), "01 00 CC 00 00 00 00 00");

  Parameter parameter;
  CHECK(decode_parameter(answer("01 00 33 15 00 00 48 41"), 1, parameter));
  CHECK_EQ(parameter.row.name, "pmax");
  CHECK_EQ(parameter.value, 12.5);
  CHECK(!parameter.is_written);
  CHECK(decode_parameter(answer("01 00 55 09 D0 07 00 00"), 1, parameter));
  CHECK_NEAR(parameter.value, 0.1, 1e-12);
  CHECK(parameter.is_written);
  CHECK(decode_parameter(answer("01 00 33 07 11 00 00 00"), 1, parameter));
  CHECK_EQ(parameter.value, 17.0);
}

TEST(damiao_registers_have_the_published_types) {
  for (const auto& row : kRegisters) {
    const int rid = row.rid;
    const bool is_whole = (rid >= 7 && rid <= 10) || (rid >= 13 && rid <= 16) || rid == 35 || rid == 36;
    CHECK_EQ(is_whole, row.type == Type::u32);
    CHECK(find_register(row.rid) == &row);  // no number twice
  }
  CHECK_EQ(int{find_register("tmax").rid}, 23);
  CHECK(find_register(std::uint8_t{40}) == nullptr);
}

TEST(damiao_feedback_is_the_published_one) {
  Feedback feedback;
  REQUIRE(decode_feedback(answer("11 8A 3C 7F F7 FF 23 1E"), 1, k4310, feedback));
  CHECK_EQ(int{feedback.status}, int{kEnabled});
  CHECK_NEAR(feedback.position, 1, 25.0 / 65535);
  CHECK_NEAR(feedback.velocity, 0, 60.0 / 4095);
  CHECK_NEAR(feedback.torque, 0, 20.0 / 4095);
  CHECK_EQ(feedback.mos_temperature, 35);
  CHECK_EQ(feedback.rotor_temperature, 30);
}

TEST(damiao_feedback_covers_the_whole_range) {
  Feedback feedback;
  REQUIRE(decode_feedback(answer("D2 00 00 00 00 00 00 00", 0x12), 2, k4310, feedback));
  CHECK_EQ(int{feedback.status}, int{kLostCommunication});
  CHECK_NEAR(feedback.position, -12.5, 1e-12);
  CHECK_NEAR(feedback.velocity, -30, 1e-12);
  CHECK_NEAR(feedback.torque, -10, 1e-12);
  REQUIRE(decode_feedback(answer("12 FF FF FF FF FF FF FF", 0x12), 2, k4310, feedback));
  CHECK_NEAR(feedback.position, 12.5, 1e-12);
  CHECK_NEAR(feedback.velocity, 30, 1e-12);
  CHECK_NEAR(feedback.torque, 10, 1e-12);
}

TEST(damiao_mit_never_emits_a_special_frame) {
  // everything within 40 steps of saturation in position and torque, two in the others, and beyond it
  int num_frames = 0, num_saturated = 0;
  for (int p = -3; p <= 3; ++p)
    for (int v = -2; v <= 2; ++v)
      for (int kp = 0; kp <= 2; ++kp)
        for (int kd = 0; kd <= 2; ++kd)
          for (int t = -40; t <= 40; ++t)
            for (const double part : {0.0, 0.25, 0.5, 0.75}) {
              const CanFrame frame =
                  mit({12.5 + p * 25.0 / 65535, 30 + v * 60.0 / 4095, 500 - kp * 500.0 / 4095,
                       5 - kd * 5.0 / 4095, 10 + (t + part) * 20.0 / 4095});
              CHECK(!is_special(frame));
              ++num_frames;
              num_saturated += frame.data[0] == 0xFF && frame.data[5] == 0xFF && frame.data[7] == 0xFA;
            }
  CHECK_EQ(num_frames, 7 * 5 * 3 * 3 * 81 * 4);
  CHECK(num_saturated > 0);  // the corner was visited
}

TEST(damiao_mit_yields_torque_toward_zero_only_in_the_corner) {
  const auto last_byte = [](int t) {
    return int{mit({12.5, 30, 500, 5, -10 + (t + 0.5) * 20.0 / 4095}).data[7]};
  };
  CHECK_EQ(last_byte(0xFFF), 0xFF);
  for (const int t : {0xFFE, 0xFFD, 0xFFC, 0xFFB, 0xFFA}) CHECK_EQ(last_byte(t), 0xFA);
  CHECK_EQ(last_byte(0xFF9), 0xF9);
  const CanFrame beside = mit({12.4, 30, 500, 5, -10 + (0xFFC + 0.5) * 20.0 / 4095});
  CHECK_EQ(int{beside.data[7]}, 0xFC);  // only there
}

TEST(damiao_refuses_stiffness_without_damping) {
  CanFrame frame;
  frame.id = 0x77;
  CHECK(encode_mit(1, {.kp = 10, .kd = 0}, k4310, frame).code == ErrorCode::out_of_range);
  CHECK(encode_mit(1, {.kp = 0.01, .kd = 0}, k4310, frame).code == ErrorCode::out_of_range);
  CHECK(encode_mit(1, {.kp = 10, .kd = 0.001}, k4310, frame).code ==
        ErrorCode::out_of_range);  // encodes to 0
  CHECK(encode_mit(1, {.kp = 10, .kd = 0.0013}, k4310, frame).ok());
  CHECK(encode_mit(1, {.kp = 0, .kd = 0}, k4310, frame).ok());
}

TEST(damiao_refuses_what_is_no_number_or_out_of_bounds) {
  CanFrame frame;
  frame.id = 0x77;
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    CHECK(encode_mit(1, {.position = bad}, k4310, frame).code == ErrorCode::not_finite);
    CHECK(encode_mit(1, {.velocity = bad}, k4310, frame).code == ErrorCode::not_finite);
    CHECK(encode_mit(1, {.kp = bad}, k4310, frame).code == ErrorCode::not_finite);
    CHECK(encode_mit(1, {.kd = bad}, k4310, frame).code == ErrorCode::not_finite);
    CHECK(encode_mit(1, {.torque = bad}, k4310, frame).code == ErrorCode::not_finite);
    CHECK(encode_pos_vel(1, bad, 1, frame).code == ErrorCode::not_finite);
    CHECK(encode_pos_vel(1, 0, bad, frame).code == ErrorCode::not_finite);
    CHECK(encode_vel(1, bad, frame).code == ErrorCode::not_finite);
    CHECK(encode_pos_force(1, bad, 1, 1, frame).code == ErrorCode::not_finite);
    CHECK(encode_pos_force(1, 0, bad, 1, frame).code == ErrorCode::not_finite);
    CHECK(encode_pos_force(1, 0, 1, bad, frame).code == ErrorCode::not_finite);
    CHECK(encode_write(1, find_register("pmax"), bad, frame).code == ErrorCode::not_finite);
  }
  const double huge = std::numeric_limits<double>::max();
  for (const Result& result :
       {encode_mit(1, {.kp = 500.1, .kd = 1}, k4310, frame), encode_mit(1, {.kp = -0.1}, k4310, frame),
        encode_mit(1, {.kd = 5.01}, k4310, frame), encode_mit(1, {.kd = -0.1}, k4310, frame),
        encode_mit(1, {}, {}, frame), encode_pos_vel(1, huge, 1, frame), encode_pos_vel(1, 0, -1, frame),
        encode_vel(1, huge, frame), encode_pos_force(1, 0, 100.1, 1, frame),
        encode_pos_force(1, 0, -1, 1, frame), encode_pos_force(1, 0, 1, 1.01, frame),
        encode_pos_force(1, 0, 1, -0.01, frame), encode_write(1, find_register("pmax"), huge, frame),
        encode_write(1, find_register("timeout"), -0.1, frame),
        encode_write(1, find_register("timeout"), 1e9, frame),
        encode_write(1, find_register("software_version"), 1, frame)})
    CHECK(result.code == ErrorCode::out_of_range);
  CHECK_EQ(frame.id, 0x77u);  // what was refused left nothing
}

TEST(damiao_never_takes_what_was_sent_for_an_answer) {
  Feedback feedback;
  Parameter parameter;
  // a question heard again
  for (CanFrame frame : {encode_read(1, find_register("pmax")), encode_refresh(1), encode_store(1)}) {
    CHECK(!decode_parameter(frame, 1, parameter));
    CHECK(!decode_feedback(frame, 1, k4310, feedback));
  }
  // an answer about a register, looked at as feedback
  CHECK(!decode_feedback(answer("01 00 33 15 00 00 48 41"), 1, k4310, feedback));
  CHECK(!decode_feedback(answer("01 00 55 09 D0 07 00 00"), 1, k4310, feedback));
  // the other way round
  CHECK(!decode_parameter(answer("11 8A 3C 7F F7 FF 23 1E"), 1, parameter));
  // somebody else's, too short, of another kind
  CHECK(!decode_feedback(answer("12 8A 3C 7F F7 FF 23 1E"), 1, k4310, feedback));
  CHECK(!decode_feedback(answer("11 8A 3C 7F F7 FF 23"), 1, k4310, feedback));
  CHECK(!decode_parameter(answer("02 00 33 15 00 00 48 41"), 1, parameter));
  CHECK(!decode_parameter(answer("01 00 33 29 00 00 48 41"), 1, parameter));
  CanFrame extended = answer("11 8A 3C 7F F7 FF 23 1E");
  extended.is_extended = true;
  CHECK(!decode_feedback(extended, 1, k4310, feedback));
}

TEST(damiao_values_survive_encoding_and_decoding) {
  std::mt19937_64 random(20);
  std::uniform_real_distribution<double> unit(-1, 1);
  for (int i = 0; i < 1000; ++i) {
    // an MIT frame and a feedback share the order of position and velocity, not their places
    const double p = unit(random) * 12.5, v = unit(random) * 45, t = unit(random) * 54;
    const CanFrame frame = mit({p, v, 100, 1, t}, k8009);
    CanFrame back;
    back.id = 0x11;
    back.size = 8;
    back.data[0] = 0x11;
    back.data[1] = frame.data[0];
    back.data[2] = frame.data[1];
    back.data[3] = frame.data[2];
    back.data[4] = static_cast<std::uint8_t>((frame.data[3] & 0xF0) | (frame.data[6] & 0x0F));
    back.data[5] = frame.data[7];
    Feedback feedback;
    REQUIRE(decode_feedback(back, 1, k8009, feedback));
    CHECK(feedback.position <= p + 1e-9 && p - feedback.position <= 25.0 / 65535 + 1e-9);
    CHECK(feedback.velocity <= v + 1e-9 && v - feedback.velocity <= 90.0 / 4095 + 1e-9);
    CHECK(feedback.torque <= t + 1e-9 && t - feedback.torque <= 108.0 / 4095 + 1e-9);
  }
}

// half of the frames are pure noise, half are good answers with a change
TEST(damiao_decoders_survive_any_frame) {
  std::mt19937_64 random(10'000);
  int num_feedback = 0, num_parameters = 0;
  for (int i = 0; i < fuzz_count(); ++i) {
    CanFrame frame;
    if (i % 2) {
      frame = answer(i % 4 == 1 ? "11 8A 3C 7F F7 FF 23 1E" : "01 00 33 15 00 00 48 41");
      frame.data[random() % 8] ^= static_cast<std::uint8_t>(1u << random() % 8);
    } else {
      frame.id = random() % 0x800;
      frame.size = static_cast<std::uint8_t>(random() % 65);
      frame.is_extended = random() % 8 == 0;
      frame.is_fd = random() % 2;
      for (auto& byte : frame.data) byte = static_cast<std::uint8_t>(random());
      if (random() % 2) frame.size = 8;
    }
    Feedback feedback;
    Parameter parameter;
    const bool is_feedback = decode_feedback(frame, 1, k4310, feedback);
    const bool is_parameter = decode_parameter(frame, 1, parameter);
    CHECK(!(is_feedback && is_parameter));
    num_feedback += is_feedback;
    num_parameters += is_parameter;
    if (is_feedback) {
      CHECK(frame.size == 8 && !frame.is_extended && frame.id != 0x7FF && (frame.data[0] & 0xF) == 1);
      CHECK(std::abs(feedback.position) <= 12.5 && std::abs(feedback.velocity) <= 30 &&
            std::abs(feedback.torque) <= 10);
    }
  }
  CHECK(num_feedback > fuzz_count() / 10);
  CHECK(num_parameters > fuzz_count() / 10);
}

TEST(damiao_codec_takes_under_a_microsecond_a_motor) {
  // printed, not asserted: a time would fail on a busy computer
  constexpr int kRounds = 200'000;
  CanFrame frame;
  Feedback feedback;
  double sum = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRounds; ++i) {
    if (!encode_mit(1, {i * 1e-5, 0, 100, 1, 0}, k4310, frame).ok()) CHECK(false);
    frame.id = 0x11;
    frame.data[0] = 0x11;
    if (decode_feedback(frame, 1, k4310, feedback)) sum += feedback.position;
  }
  const double ns =
      std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
  std::printf("  encode and decode: %.1f ns a motor\n", ns / kRounds);
  CHECK(std::isfinite(sum));
}

}  // namespace
}  // namespace wallx::test
