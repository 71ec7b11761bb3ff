// MotorRegisters: named registers of the motors on one line, torque off.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/core/register.hpp"
#include "drivers/registry.hpp"
#include "hardware/motor_registers.hpp"

namespace py = pybind11;

namespace wallx {

void register_motor_registers(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<MotorRegisters>(m, "MotorRegisters", "Named registers of the motors on one line; moves nothing.")
      .def("open", &MotorRegisters::open, Release(), "Takes the port. Raises BusError.")
      .def("close", &MotorRegisters::close, Release(), "Idempotent.")
      .def("ping", &MotorRegisters::ping, py::arg("id"), Release(), "Whether the motor answers.")
      .def("read", &MotorRegisters::read, py::arg("id"), py::arg("name"), Release(),
           "The register's own number. Raises BusTimeout, BusError, ConfigError.")
      .def("value", &MotorRegisters::value, py::arg("id"), py::arg("name"), Release(),
           "The register in its unit. Raises as read().")
      .def("write", &MotorRegisters::write, py::arg("id"), py::arg("name"), py::arg("value"), Release(),
           "Writes without torque and reads back. Raises as read(), and DeviceError.");
  m.def("make_motor_registers", &make_motor_registers, py::arg("motor_family"), py::arg("bus"),
        "Not yet open. Raises ConfigError.");
}

}  // namespace wallx
