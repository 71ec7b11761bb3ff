// Emulated: the backend under test is the kernels' own source on the processor.
// SPDX-License-Identifier: Apache-2.0
#include "emulator.hpp"
#include "gpu.hpp"

namespace wallx::test {

Backend& gpu() {
  static EmulatedBackend backend(4);
  return backend;
}

}  // namespace wallx::test
