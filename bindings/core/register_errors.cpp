// The error tree: C++ exceptions become the Python classes that errors.py shows.
// SPDX-License-Identifier: Apache-2.0
#include "base/errors.hpp"

#include <array>
#include <utility>

#include "bindings/core/register.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

struct Classes {
  PyObject* wallx = nullptr;
  PyObject* config = nullptr;
  PyObject* checkpoint = nullptr;
  PyObject* device = nullptr;
  PyObject* bus = nullptr;
  PyObject* bus_timeout = nullptr;
  PyObject* calibration = nullptr;
  PyObject* safety_stop = nullptr;
};
Classes classes;  // owned by the module for the life of the process

PyObject* add(py::module_& m, const char* name, const char* doc, std::initializer_list<PyObject*> bases) {
  py::tuple tuple(bases.size());
  std::size_t i = 0;
  for (PyObject* base : bases) tuple[i++] = py::reinterpret_borrow<py::object>(base);
  const std::string full = std::string("wallx_edge.errors.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(full.c_str(), doc, tuple.ptr(), nullptr);
  if (!type) throw py::error_already_set();
  m.add_object(name, type);
  return type;
}

}  // namespace

void register_errors(py::module_& m) {
  classes.wallx = add(m, "WallxError", "Base of every error of wallx_edge.", {PyExc_Exception});
  classes.config = add(m, "ConfigError", "A setting, argument or configuration file is wrong.",
                       {classes.wallx, PyExc_ValueError});
  classes.checkpoint = add(m, "CheckpointError",
                           "A checkpoint is missing, damaged, or not what was expected.", {classes.wallx});
  classes.device = add(m, "DeviceError", "A camera, motor or computer device failed.", {classes.wallx});
  classes.bus = add(m, "BusError", "The line to the motors failed or is taken.", {classes.wallx});
  classes.bus_timeout =
      add(m, "BusTimeout", "A motor did not answer in time.", {classes.bus, PyExc_TimeoutError});
  classes.calibration =
      add(m, "CalibrationError", "A calibration is missing or does not fit the robot.", {classes.wallx});
  classes.safety_stop =
      add(m, "SafetyStop", "The control loop stopped the robot; carries the last states and commands.",
          {classes.wallx});

  // set by who raises it from a control loop
  if (PyObject_SetAttrString(classes.safety_stop, "records", Py_None) != 0) throw py::error_already_set();

  py::register_exception_translator([](std::exception_ptr pointer) {
    // the most derived class first
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const BusTimeout& e) {
      py::set_error(classes.bus_timeout, e.what());
    } catch (const BusError& e) {
      py::set_error(classes.bus, e.what());
    } catch (const ConfigError& e) {
      py::set_error(classes.config, e.what());
    } catch (const CheckpointError& e) {
      py::set_error(classes.checkpoint, e.what());
    } catch (const DeviceError& e) {
      py::set_error(classes.device, e.what());
    } catch (const CalibrationError& e) {
      py::set_error(classes.calibration, e.what());
    } catch (const SafetyStop& e) {
      py::set_error(classes.safety_stop, e.what());
    } catch (const WallxError& e) {
      py::set_error(classes.wallx, e.what());
    }
  });
}

}  // namespace wallx
