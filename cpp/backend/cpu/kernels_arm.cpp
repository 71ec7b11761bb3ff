// KernelsArm: not compiled for this processor.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.hpp"

namespace wallx::cpu {
const Kernels* const kArmI8mmKernels = nullptr;
const Kernels* const kArmDotprodKernels = nullptr;
}  // namespace wallx::cpu
