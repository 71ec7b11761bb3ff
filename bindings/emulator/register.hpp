// Register: one function per bound class of the emulator, called by module.cpp in this order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace wallx::emulator {

void register_errors(pybind11::module_& m);
void register_faults(pybind11::module_& m);
void register_servo_setup(pybind11::module_& m);
void register_arm_emulator(pybind11::module_& m);
void register_can_arm(pybind11::module_& m);
void register_picture(pybind11::module_& m);

}  // namespace wallx::emulator
