// ServoSetup for Python: a record of keyword arguments with the C++ defaults.
// SPDX-License-Identifier: Apache-2.0
#include "bindings/emulator/register.hpp"
#include "emulator/servo.hpp"

namespace py = pybind11;

namespace wallx::emulator {
namespace {

template <class Class>
void add_fields(Class& c) {
  c.def_readwrite("name", &ServoSetup::name)
      .def_readwrite("id", &ServoSetup::id)
      .def_readwrite("model", &ServoSetup::model)
      .def_readwrite("firmware", &ServoSetup::firmware)
      .def_readwrite("drive_mode", &ServoSetup::drive_mode)
      .def_readwrite("operating_mode", &ServoSetup::operating_mode)
      .def_readwrite("homing_offset", &ServoSetup::homing_offset)
      .def_readwrite("range_min", &ServoSetup::range_min)
      .def_readwrite("range_max", &ServoSetup::range_max)
      .def_readwrite("position", &ServoSetup::position)
      .def_readwrite("stop_min", &ServoSetup::stop_min)
      .def_readwrite("stop_max", &ServoSetup::stop_max)
      .def_readwrite("p_gain", &ServoSetup::p_gain)
      .def_readwrite("max_torque", &ServoSetup::max_torque)
      .def_readwrite("protection_current", &ServoSetup::protection_current)
      .def_readwrite("overload_threshold", &ServoSetup::overload_threshold)
      .def_readwrite("inertia", &ServoSetup::inertia)
      .def_readwrite("damping", &ServoSetup::damping)
      .def_readwrite("friction", &ServoSetup::friction)
      .def_readwrite("gravity", &ServoSetup::gravity)
      .def_readwrite("pitch_sign", &ServoSetup::pitch_sign)
      .def_readwrite("pitch", &ServoSetup::pitch);
}

}  // namespace

void register_servo_setup(py::module_& m) {
  py::class_<ServoSetup> c(m, "ServoSetup");
  add_fields(c);
  c.def(py::init([](const py::kwargs& fields) {
    py::object setup = py::cast(ServoSetup{});
    for (const auto& [name, value] : fields) {
      if (!py::hasattr(setup, name))
        throw py::type_error("ServoSetup has no field " + std::string(py::str(name)));
      py::setattr(setup, name, value);
    }
    return setup.cast<ServoSetup>();
  }));
}

}  // namespace wallx::emulator
