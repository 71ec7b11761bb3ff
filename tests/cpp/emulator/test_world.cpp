// World: servos whose joints another engine moves, and pictures of shapes.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "base/errors.hpp"
#include "check.hpp"
#include "emulator/picture.hpp"
#include "line.hpp"

using namespace wallx;
using namespace wallx::emulator;

namespace {

constexpr double kTimestep = 0.002;

// two free wheels, as an engine would keep them
struct Wheels {
  std::array<double, 3> position{};  // a third that no servo moves
  std::array<double, 2> velocity{}, force{};
  int steps = 0;
  double inertia = 0.05;

  static void step(const void*, void* data) {
    Wheels& self = *static_cast<Wheels*>(data);
    ++self.steps;
    for (std::size_t i = 0; i < 2; ++i) {
      self.velocity[i] += self.force[i] / self.inertia * kTimestep;
      self.position[i] += self.velocity[i] * kTimestep;
    }
  }
  std::shared_ptr<WorldPlant> plant() {
    auto plant = std::make_shared<WorldPlant>();
    plant->step = &Wheels::step;
    plant->data = this;
    plant->plant_steps = 4;
    plant->state = position.data();
    plant->state_size = position.size();
    for (std::size_t i = 0; i < 2; ++i)
      plant->joints.push_back(
          {&position[i], &velocity[i], &force[i], 2048.0 + 100.0 * static_cast<double>(i)});
    return plant;
  }
};

void write_byte(Servo& servo, int address, int value) {
  const std::uint8_t byte = static_cast<std::uint8_t>(value);
  servo.write(address, {&byte, 1});
}

View view_down(int side) {
  View view{.fovy = 1.0, .width = side, .height = side};
  view.rotation = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  return view;
}

}  // namespace

TEST(servos_wake_up_where_the_world_has_their_joints) {
  Wheels wheels;
  wheels.position = {0.5, -0.25, 7};
  Line line(plain_servos(2), BusOptions{.world = wheels.plant()});
  CHECK_NEAR(line.bus.servo(0).position_ticks(), 2048 + 0.5 / kRadiansPerTick, 1e-9);
  CHECK_NEAR(line.bus.servo(1).position_ticks(), 2148 - 0.25 / kRadiansPerTick, 1e-9);
}

TEST(the_worlds_steps_are_whole_ones_of_the_plants) {
  Wheels wheels;
  Line line(plain_servos(2), BusOptions{.world = wheels.plant()});
  line.wait(0.0019);
  CHECK_EQ(wheels.steps, 0);
  line.wait(0.0001);
  CHECK_EQ(wheels.steps, 1);
  line.wait(0.998);
  CHECK_EQ(wheels.steps, 500);
  CHECK_EQ(wheels.position[2], 0.0);
}

TEST(a_servo_without_torque_applies_none_and_one_with_torque_holds) {
  Wheels wheels;
  wheels.position[0] = 0.2;
  Line line(plain_servos(2), BusOptions{.world = wheels.plant()});
  line.wait(0.1);
  CHECK_EQ(wheels.force[0], 0.0);
  Servo& servo = line.bus.servo(0);
  write_byte(servo, reg::kTorque, kTorqueOn);
  const int goal = servo.goal_ticks();
  wheels.position[0] += 0.3;  // somebody pushes it
  line.wait(0.004);
  CHECK(wheels.force[0] < -0.5);  // back
  line.wait(3.0);
  CHECK_NEAR(servo.position_ticks(), goal, 12);
  CHECK_EQ(wheels.force[1], 0.0);
}

TEST(a_blocked_joint_of_a_world_stands_still) {
  Wheels wheels;
  Line line(plain_servos(2), BusOptions{.world = wheels.plant()});
  wheels.velocity = {1.0, 1.0};
  line.bus.set_fault(FaultKind::block, 1, 1);
  line.wait(0.1);
  CHECK_EQ(wheels.position[0], 0.0);
  CHECK_EQ(wheels.velocity[0], 0.0);
  CHECK(wheels.position[1] > 0.05);
}

TEST(a_world_of_other_joints_is_refused) {
  Wheels wheels;
  CHECK_THROWS(Line(plain_servos(3), BusOptions{.world = wheels.plant()}), ConfigError,
               "the world has 2 joints for 3 servos");
}

TEST(a_picture_shows_the_nearest_shape_and_nothing_behind_the_camera) {
  std::vector<Shape> shapes(3);
  const std::array<double, 9> straight{1, 0, 0, 0, 1, 0, 0, 0, 1};
  shapes[0] = {ShapeKind::box, {0.2, 0.2, 0.01}, {0, 0, -1}, straight, {1, 0, 0, 1}, 0};
  shapes[1] = {ShapeKind::sphere, {0.05, 0, 0}, {0, 0, -0.5}, straight, {0, 1, 0, 1}, 0};
  shapes[2] = {ShapeKind::box, {0.2, 0.2, 0.2}, {0, 0, 1}, straight, {0, 0, 1, 1}, 0};
  std::vector<std::uint8_t> pixels(32 * 32 * 3);
  draw(shapes, view_down(32), pixels);
  const auto at = [&](int x, int y) { return &pixels[static_cast<std::size_t>(3 * (32 * y + x))]; };
  CHECK(at(16, 16)[1] > 2 * at(16, 16)[0]);       // the ball, before the box
  CHECK(at(10, 16)[0] > 2 * at(10, 16)[1]);       // the box beside it
  CHECK(at(0, 0)[0] > 100 && at(0, 0)[2] > 100);  // the sky; nothing of what is behind
  int blue = 0;
  for (int i = 0; i < 32 * 32; ++i) blue += pixels[static_cast<std::size_t>(3 * i)] < 40;
  CHECK(blue < 200);
  shapes[1].colour[3] = 0;  // unseen
  draw(shapes, view_down(32), pixels);
  CHECK(at(16, 16)[0] > 2 * at(16, 16)[1]);
}
