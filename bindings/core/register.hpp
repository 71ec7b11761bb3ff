// Register: one function per bound class or family, called by module.cpp in this order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace wallx {

void register_errors(pybind11::module_& m);
void register_engine(pybind11::module_& m);
void register_context(pybind11::module_& m);    // after register_engine
void register_queue(pybind11::module_& m);      // after register_context
void register_quantizer(pybind11::module_& m);  // after register_engine
void register_peak(pybind11::module_& m);
void register_bus(pybind11::module_& m);
void register_motor_registers(pybind11::module_& m);  // after register_bus
void register_codecs(pybind11::module_& m);
void register_robot(pybind11::module_& m);    // after register_bus
void register_control(pybind11::module_& m);  // after register_robot

}  // namespace wallx
