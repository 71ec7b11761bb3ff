// FeetechRobot::connect finds every servo, compares its registers, and refuses what does not fit without
// writing. SPDX-License-Identifier: Apache-2.0
#include "drivers/arm.hpp"
#include "drivers/registry.hpp"

namespace wallx::test {
namespace {

// the message of connect() and what it threw, "" when it did not throw
template <class Error>
std::string refusal(Arm& arm) {
  try {
    arm.robot.connect();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(connect_pings_and_reads_and_writes_nothing) {
  Arm arm;
  const auto before = arm.servos->registers;
  arm.robot.connect();
  const std::vector<std::string> expected{"FF FF 01 02 01 FB",       "FF FF 02 02 01 FA",
                                          "FF FF 07 02 01 F5",       "FF FF 01 04 02 03 1F D6",
                                          "FF FF 02 04 02 03 1F D5", "FF FF 07 04 02 03 1F D0"};
  CHECK(arm.servos->log == expected);
  CHECK(arm.servos->registers == before);
  CHECK(arm.servos->is_open());
}

TEST(connect_twice_is_one_connection) {
  Arm arm;
  arm.robot.connect();
  arm.robot.connect();
  CHECK_EQ(arm.servos->num_opened, 1);
}

TEST(disconnect_sends_nothing_and_may_be_repeated) {
  Arm arm;
  arm.robot.disconnect();
  arm.start();
  arm.robot.disconnect();
  arm.robot.disconnect();
  CHECK_EQ(arm.servos->num_closed, 1);
  CHECK(arm.servos->log.empty());
  CHECK_EQ(int{arm.servos->registers[1][40]}, 1);
  arm.robot.connect();
  CHECK(arm.servos->is_open());
}

TEST(connect_names_every_silent_joint_id_and_port) {
  Arm arm;
  arm.servos->registers.erase(1);
  arm.servos->registers.erase(7);
  const std::string message = refusal<BusTimeout>(arm);
  for (const char* part : {"'base' (id 1)", "'hand' (id 7)", "/dev/ttyTEST", "3 tries"})
    CHECK(has(message, part));
  CHECK(!has(message, "elbow"));
  CHECK(!arm.servos->is_open());
  CHECK_EQ(std::count(arm.servos->log.begin(), arm.servos->log.end(), "FF FF 07 02 01 F5"), 3);
}

TEST(connect_tries_three_times_before_it_gives_up) {
  for (const int num_bad : {2, 3}) {
    for (const int instruction : {0x01, 0x02}) {
      Arm arm;
      int bad_left = num_bad;
      arm.servos->fault = [&](const Bytes& request, std::vector<Bytes>& answers) {
        if (request[2] == 2 && request[4] == instruction && bad_left-- > 0) answers[0].back() ^= 0x40;
      };
      if (num_bad == 2) {
        arm.robot.connect();
        CHECK(arm.servos->is_open());
      } else {
        CHECK(has(refusal<BusTimeout>(arm), "'elbow' (id 2)"));
      }
    }
  }
}

TEST(connect_takes_no_answer_of_another_servo) {
  Arm arm;
  arm.servos->fault = [](const Bytes& request, std::vector<Bytes>& answers) {
    if (request[2] == 2 && request[4] == 0x01) answers = {bytes("FF FF 01 02 00 FC")};
  };
  CHECK(has(refusal<BusTimeout>(arm), "'elbow' (id 2)"));
}

TEST(connect_says_when_the_port_goes_away) {
  Arm arm;
  arm.servos->fault = [&](const Bytes& request, std::vector<Bytes>&) {
    if (request[4] == 0x02) arm.servos->is_unplugged = true;
  };
  const std::string message = refusal<BusError>(arm);
  CHECK(has(message, "/dev/ttyTEST went away"));
  CHECK(!arm.servos->is_open());
}

TEST(connect_refuses_what_does_not_fit) {
  struct Case {
    const char* what;
    std::size_t address;
    int found;
    bool is_word;
    bool is_calibration;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases{
      {"model", 3, 2825, true, false, {"model_number (3) is 2825", "expected 777"}},
      {"mode", 33, 1, false, false, {"operating_mode (33) is 1", "expected 0 (position)"}},
      {"silent level", 8, 0, false, false, {"response_level (8) is 0", "expected 1"}},
      {"speed zero stops", 18, 4, false, false, {"phase (18) is 4", "factory value 12"}},
      {"coarse speed", 18, 8, false, false, {"phase (18) is 8"}},
      {"multi-turn", 18, 28, false, false, {"phase (18) is 28"}},
      {"no torque", 16, 0, true, false, {"max_torque (16) is 0", "expected 1..1000"}},
      {"absurd torque", 16, 1001, true, false, {"max_torque (16) is 1001"}},
      {"offset", 31, 0x0856, true, true, {"homing_offset (31) is -86", "expected -85"}},
      {"offset sign", 31, 85, true, true, {"homing_offset (31) is 85", "expected -85"}},
      {"min angle", 9, 744, true, true, {"min_angle (9) is 744", "expected 743"}},
      {"max angle", 11, 3440, true, true, {"max_angle (11) is 3440", "expected 3441"}},
  };
  for (const Case& one : cases) {
    Arm arm;
    if (one.is_word)
      arm.servos->set16(2, one.address, one.found);
    else
      arm.servos->registers[2][one.address] = static_cast<std::uint8_t>(one.found);
    const std::string message =
        one.is_calibration ? refusal<CalibrationError>(arm) : refusal<DeviceError>(arm);
    if (message.empty()) fail(__FILE__, __LINE__, std::string("accepted: ") + one.what);
    CHECK(has(message, "'elbow' (id 2) on /dev/ttyTEST"));
    for (const std::string& part : one.parts)
      if (!has(message, part)) fail(__FILE__, __LINE__, "message lacks '" + part + "': " + message);
    CHECK(!arm.servos->is_open());
  }
}

TEST(connect_accepts_every_model_the_embodiment_lists) {
  Embodiment embodiment = make_embodiment();
  embodiment.joints[1].model_numbers = {777, 2825};
  Arm arm(embodiment);
  arm.servos->set16(2, 3, 2825);
  arm.robot.connect();
  arm.robot.disconnect();
  arm.servos->set16(2, 3, 1284);
  CHECK(has(refusal<DeviceError>(arm), "expected 777 or 2825"));
}

TEST(every_robot_has_its_own_serial) {
  Arm one, two;
  CHECK(one.robot.serial() != two.robot.serial());
}

TEST(position_limits_are_narrowed_to_the_calibrated_range) {
  auto calibration = make_calibration();
  calibration[0].range_min = 1500;
  calibration[0].range_max = 2500;
  Arm arm(make_embodiment(), calibration);
  const double half = 500 * 2 * M_PI / 4096;
  CHECK_NEAR(arm.robot.embodiment().joints[0].limits.min_position, -half, 1e-12);
  CHECK_NEAR(arm.robot.embodiment().joints[0].limits.max_position, half, 1e-12);
  CHECK_EQ(arm.robot.embodiment().joints[1].limits.max_position, 1.5);
}

TEST(constructor_refuses_what_cannot_be_one_arm) {
  const auto with = [](auto change) {
    Embodiment embodiment = make_embodiment();
    auto calibration = make_calibration();
    change(embodiment, calibration);
    FeetechRobot(embodiment, calibration, std::make_unique<ScriptedServos>());
  };
  using E = Embodiment&;
  using C = std::vector<JointCalibration>&;
  CHECK_THROWS(with([](E, C c) { c.pop_back(); }), CalibrationError, "has 2 joints, the embodiment has 3");
  CHECK_THROWS(with([](E, C c) { c[2].id = 1; }), CalibrationError,
               "'hand': id 1 is also that of joint 'base'");
  CHECK_THROWS(with([](E, C c) { c[1].id = 254; }), CalibrationError, "'elbow': id is 254, must be 0..253");
  CHECK_THROWS(with([](E, C c) { c[1].id = -1; }), CalibrationError, "id is -1");
  CHECK_THROWS(with([](E, C c) { c[1].drive_mode = 2; }), CalibrationError, "drive_mode is 2");
  CHECK_THROWS(with([](E, C c) { c[1].range_max = 4096; }), CalibrationError, "743..4096");
  CHECK_THROWS(with([](E, C c) { c[1].range_min = -1; }), CalibrationError, "-1..3441");
  CHECK_THROWS(with([](E, C c) { c[1].range_min = 3441; }), CalibrationError, "3441..3441");
  CHECK_THROWS(
      with([](E e, C) { e.joints[1].limits.min_position = 2.5, e.joints[1].limits.max_position = 3; }),
      CalibrationError, "nothing in common");
  CHECK_THROWS(with([](E e, C) { e.joints[1].model_numbers.clear(); }), ConfigError,
               "model_numbers is empty");
  CHECK_THROWS(with([](E e, C c) { e.joints.clear(), c.clear(); }), ConfigError, "has 0 joints");
  CHECK_THROWS(with([](E e, C c) { e.joints.resize(32), c.resize(32); }), ConfigError, "32 joints");
}

TEST(registry_refuses_an_unknown_motor_family) {
  Embodiment embodiment = make_embodiment();
  const BusConfig bus{.port = "/dev/ttyTEST"};
  CHECK(make_robot(embodiment, make_calibration(), bus) != nullptr);
  embodiment.motor_family = "steam";
  CHECK_THROWS(make_robot(embodiment, make_calibration(), bus), ConfigError, "'steam'");
}

}  // namespace
}  // namespace wallx::test
