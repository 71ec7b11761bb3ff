// Faults for Python: the table of faults.hpp as it is.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/emulator/register.hpp"
#include "emulator/faults.hpp"

namespace py = pybind11;

namespace wallx::emulator {

void register_faults(py::module_& m) {
  py::class_<FaultRow>(m, "Fault")
      .def_readonly("name", &FaultRow::name)
      .def_readonly("is_moment", &FaultRow::is_moment)
      .def_readonly("minimum", &FaultRow::min)
      .def_readonly("maximum", &FaultRow::max)
      .def_readonly("preset", &FaultRow::preset)
      .def_readonly("unit", &FaultRow::unit)
      .def_readonly("effect", &FaultRow::effect)
      .def_property_readonly("scope", [](const FaultRow& row) {
        return row.scope == FaultScope::line    ? "line"
               : row.scope == FaultScope::drive ? "drive"
                                                : "one drive";
      });
  m.attr("FAULTS") = [] {
    py::tuple all(kNumFaults);
    for (std::size_t i = 0; i < kNumFaults; ++i) all[i] = py::cast(kFaultRows[i]);
    return all;
  }();
}

}  // namespace wallx::emulator
