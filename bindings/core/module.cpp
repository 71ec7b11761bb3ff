// The compiled core of wallx_edge: engine, control loop and drivers.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

#include "bindings/core/register.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of wallx_edge. Import the public classes from wallx_edge instead.";
  wallx::register_errors(m);
  wallx::register_engine(m);
  wallx::register_context(m);
  wallx::register_queue(m);
  wallx::register_quantizer(m);
  wallx::register_peak(m);
  wallx::register_bus(m);
  wallx::register_motor_registers(m);
  wallx::register_robot(m);
  wallx::register_codecs(m);
  wallx::register_control(m);
}
