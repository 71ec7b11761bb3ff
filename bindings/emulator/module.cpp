// Emulated servos as a module of their own: nothing here is shared with the driver.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_emulator, m) { m.doc() = "Emulated servos behind a pseudo-terminal."; }
