// The robot and what describes it: Embodiment, JointCalibration, Robot. Neither limits nor motors can be
// written here. SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <memory>

#include "bindings/core/register.hpp"
#include "drivers/registry.hpp"
#include "hardware/robot.hpp"

namespace py = pybind11;

namespace wallx {

void register_robot(py::module_& m) {
  py::class_<JointLimits>(m, "JointLimits", "What one joint may do, in SI.")
      .def(py::init([](double min_position, double max_position, double max_velocity, double max_acceleration,
                       double max_jerk) {
             return JointLimits{min_position, max_position, max_velocity, max_acceleration, max_jerk};
           }),
           py::kw_only(), py::arg("min_position"), py::arg("max_position"), py::arg("max_velocity"),
           py::arg("max_acceleration"), py::arg("max_jerk"))
      .def_readonly("min_position", &JointLimits::min_position, "[rad]")
      .def_readonly("max_position", &JointLimits::max_position, "[rad]")
      .def_readonly("max_velocity", &JointLimits::max_velocity, "[rad/s]")
      .def_readonly("max_acceleration", &JointLimits::max_acceleration, "[rad/s^2]")
      .def_readonly("max_jerk", &JointLimits::max_jerk, "[rad/s^3]");

  py::enum_<JointMode>(m, "JointMode")
      .value("position", JointMode::position)
      .value("velocity", JointMode::velocity);
  py::enum_<DriveAction>(m, "DriveAction")
      .value("holds", DriveAction::holds)
      .value("brakes", DriveAction::brakes)
      .value("lets_go", DriveAction::lets_go);

  py::class_<JointSpec>(m, "JointSpec", "One joint of an embodiment.")
      .def(py::init([](std::string name, int id, std::vector<int> model_numbers, const JointLimits& limits,
                       double rest_position, bool gravity_loaded, JointMode mode, double max_following_error,
                       double static_sag, bool grips, double drive_timeout, DriveAction drive_action,
                       std::map<std::string, double> drive) {
             return JointSpec{
                 std::move(name), id,           std::move(model_numbers), limits,     rest_position,
                 gravity_loaded,  mode,         max_following_error,      static_sag, grips,
                 drive_timeout,   drive_action, std::move(drive)};
           }),
           py::kw_only(), py::arg("name"), py::arg("id"), py::arg("model_numbers"), py::arg("limits"),
           py::arg("rest_position"), py::arg("gravity_loaded"), py::arg("mode") = JointMode::position,
           py::arg("max_following_error") = JointSpec{}.max_following_error,
           py::arg("static_sag") = JointSpec{}.static_sag, py::arg("grips") = false,
           py::arg("drive_timeout") = 0.0, py::arg("drive_action") = DriveAction::holds,
           py::arg("drive") = std::map<std::string, double>{})
      .def_readonly("name", &JointSpec::name)
      .def_readonly("id", &JointSpec::id, "Nominal bus id; the calibration's counts.")
      .def_readonly("model_numbers", &JointSpec::model_numbers, "The drives that fit (a copy).")
      .def_readonly("limits", &JointSpec::limits)
      .def_readonly("rest_position", &JointSpec::rest_position, "[rad]")
      .def_readonly("gravity_loaded", &JointSpec::gravity_loaded, "Falls when the torque is cut.")
      .def_readonly("mode", &JointSpec::mode, "What its drive is told: a position, or a velocity.")
      .def_readonly("max_following_error", &JointSpec::max_following_error,
                    "Between command and measurement, beyond it an obstacle is assumed [rad].")
      .def_readonly("static_sag", &JointSpec::static_sag, "What its load alone makes of that at rest [rad].")
      .def_readonly("grips", &JointSpec::grips, "Meeting an obstacle is its work.")
      .def_readonly("drive_timeout", &JointSpec::drive_timeout,
                    "Silence after which the drive acts by itself; 0: it never does [s].")
      .def_readonly("drive_action", &JointSpec::drive_action, "What the drive does then.")
      .def_readonly("drive", &JointSpec::drive, "Settings that only the motor family knows (a copy).")
      .def("__repr__", [](const JointSpec& joint) {
        return "JointSpec(name='" + joint.name + "', id=" + std::to_string(joint.id) + ")";
      });

  py::class_<Embodiment>(m, "Embodiment", "The constant description of a robot model.")
      .def(py::init([](std::string name, std::string motor_family, std::vector<JointSpec> joints,
                       bool accepts_drop) {
             return Embodiment{std::move(name), std::move(motor_family), std::move(joints), accepts_drop};
           }),
           py::kw_only(), py::arg("name"), py::arg("motor_family"), py::arg("joints"),
           py::arg("accepts_drop") = false)
      .def_readonly("name", &Embodiment::name)
      .def_readonly("motor_family", &Embodiment::motor_family)
      .def_readonly("joints", &Embodiment::joints, "In the order of every joint array (a copy).")
      .def_readonly("accepts_drop", &Embodiment::accepts_drop,
                    "A drive's timeout may let a gravity-loaded joint fall.")
      .def("__repr__", [](const Embodiment& embodiment) {
        return "Embodiment(name='" + embodiment.name + "', " + std::to_string(embodiment.joints.size()) +
               " joints)";
      });

  py::class_<JointCalibration>(m, "JointCalibration", "Ticks <-> SI of one joint of one unit.")
      .def(py::init([](int id, int drive_mode, int homing_offset, int range_min, int range_max) {
             return JointCalibration{id, drive_mode, homing_offset, range_min, range_max};
           }),
           py::kw_only(), py::arg("id"), py::arg("drive_mode"), py::arg("homing_offset"),
           py::arg("range_min"), py::arg("range_max"))
      .def_readonly("id", &JointCalibration::id, "Bus id of the servo.")
      .def_readonly("drive_mode", &JointCalibration::drive_mode, "1: the joint turns against its encoder.")
      .def_readonly("homing_offset", &JointCalibration::homing_offset, "[ticks]")
      .def_readonly("range_min", &JointCalibration::range_min, "[ticks]")
      .def_readonly("range_max", &JointCalibration::range_max, "[ticks]");

  py::class_<Robot, std::shared_ptr<Robot>>(
      m, "Robot", "A robot on its bus. Python connects it; only the control loop reads and moves it.")
      .def_property_readonly("embodiment", &Robot::embodiment, py::return_value_policy::copy,
                             "With position limits narrowed to this unit's calibrated range (a copy).")
      .def_property_readonly("bus_descriptor", &Robot::bus_descriptor, "Of the open bus; -1: it has none.")
      .def_property_readonly("bus_trouble", &Robot::bus_trouble,
                             "What went wrong on its bus beyond a code; empty: nothing.")
      .def_property_readonly("serial", &Robot::serial, "Unique in the process.")
      .def("connect", &Robot::connect, py::call_guard<py::gil_scoped_release>(),
           "Opens the bus, finds every motor, compares its registers with the calibration. Moves and writes "
           "nothing.\n\n"
           "Blocks up to a second. Raises BusError, BusTimeout, DeviceError, CalibrationError.")
      .def("disconnect", &Robot::disconnect, py::call_guard<py::gil_scoped_release>(),
           "Closes the bus and sends nothing: the motors keep doing what they did. Not while a control loop "
           "runs.");

  m.def("make_robot", &make_robot, py::arg("embodiment"), py::arg("calibration"), py::arg("bus"),
        py::call_guard<py::gil_scoped_release>(),
        "A robot that is not yet connected; `calibration` in joint order.\n\n"
        "Raises ConfigError or CalibrationError.");
}

}  // namespace wallx
