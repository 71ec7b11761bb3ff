// WorldPlant: a physics engine's joints under the servos, reached through addresses that somebody else keeps
// alive. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace wallx::emulator {

// Nothing of the engine is linked: its `step` is a function of two pointers, and what goes in and comes out
// lies at addresses inside its state. One thread at a time uses it.
struct WorldPlant {
  // One servo's joint; its zero is the middle of the servo's calibrated range, its sign the reported
  // position's.
  struct Joint {
    double* position = nullptr;  // [rad]
    double* velocity = nullptr;  // [rad/s]
    double* force = nullptr;     // applied before each step [N m]
    double middle_ticks = 2048;  // reported position at zero
  };
  void (*step)(const void* model, void* data) = nullptr;
  const void* model = nullptr;
  void* data = nullptr;
  int plant_steps = 1;      // of the line's plant, per step of the world
  double* state = nullptr;  // positions of everything, for pictures   (state_size)
  std::size_t state_size = 0;
  std::vector<Joint> joints;  // one per servo, in the servos' order
};

}  // namespace wallx::emulator
