// Emulated servos as a module of their own: nothing here is shared with the driver.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

#include "bindings/emulator/register.hpp"

PYBIND11_MODULE(_emulator, m) {
  m.doc() =
      "Emulated servos behind a pseudo-terminal. Import the public classes from wallx_edge.sim instead.";
  wallx::emulator::register_errors(m);
  wallx::emulator::register_faults(m);
  wallx::emulator::register_servo_setup(m);
  wallx::emulator::register_arm_emulator(m);
  wallx::emulator::register_can_arm(m);
  wallx::emulator::register_picture(m);
}
