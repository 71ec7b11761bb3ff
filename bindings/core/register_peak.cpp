// The processor's peaks for Python.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/peak.hpp"
#include "bindings/core/register.hpp"

namespace py = pybind11;

namespace wallx {

void register_peak(py::module_& m) {
  m.def(
      "measure_peak",
      [](const std::string& kind, int threads, double seconds) {
        Peak peak;
        {
          py::gil_scoped_release release;
          peak = measure_peak(to_peak_kind(kind), threads, seconds);
        }
        py::dict out;
        out["rate"] = peak.rate;
        out["instruction"] = peak.instruction;
        out["width"] = peak.width;
        return out;
      },
      py::arg("kind"), py::arg("threads"), py::arg("seconds"));
}

}  // namespace wallx
