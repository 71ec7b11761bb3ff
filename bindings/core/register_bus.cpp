// The line a robot's motors are on: BusConfig.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include "bindings/core/register.hpp"
#include "hardware/bus_config.hpp"

namespace py = pybind11;

namespace wallx {

void register_bus(py::module_& m) {
  py::class_<BusConfig>(m, "BusConfig", "Which line a robot's motors are on.")
      .def(py::init([](std::string kind, std::string port, int baud_rate, int bit_rate, int data_bit_rate,
                       std::string interface) {
             return BusConfig{std::move(kind), std::move(port), baud_rate,
                              bit_rate,        data_bit_rate,   std::move(interface)};
           }),
           py::kw_only(), py::arg("kind") = "serial", py::arg("port") = "", py::arg("baud_rate") = 1'000'000,
           py::arg("bit_rate") = 1'000'000, py::arg("data_bit_rate") = 0, py::arg("interface") = "")
      .def_readonly("kind", &BusConfig::kind)
      .def_readonly("port", &BusConfig::port, "Device, network interface, group address or file.")
      .def_readonly("baud_rate", &BusConfig::baud_rate, "Of a serial device [bit/s].")
      .def_readonly("bit_rate", &BusConfig::bit_rate, "Of CAN arbitration [bit/s].")
      .def_readonly("data_bit_rate", &BusConfig::data_bit_rate, "Of CAN FD data; 0: classic CAN [bit/s].")
      .def_readonly("interface", &BusConfig::interface, "udp_multicast: local address to use.")
      .def("__repr__", [](const BusConfig& config) {
        return "BusConfig(kind='" + config.kind + "', port='" + config.port + "')";
      });
}

}  // namespace wallx
