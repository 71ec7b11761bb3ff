// Errors: those of the emulator become the classes of errors.py, looked up when one is thrown.
// SPDX-License-Identifier: Apache-2.0
#include "base/errors.hpp"
#include "bindings/emulator/register.hpp"

namespace py = pybind11;

namespace wallx::emulator {
namespace {

void raise(const char* name, const char* what) {
  try {
    const py::object type = py::module_::import("wallx_edge.errors").attr(name);
    PyErr_SetString(type.ptr(), what);
  } catch (py::error_already_set& error) {
    error.restore();
  }
}

}  // namespace

void register_errors(py::module_&) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ConfigError& error) {
      raise("ConfigError", error.what());
    } catch (const DeviceError& error) {
      raise("DeviceError", error.what());
    } catch (const WallxError& error) {
      raise("WallxError", error.what());
    }
  });
}

}  // namespace wallx::emulator
