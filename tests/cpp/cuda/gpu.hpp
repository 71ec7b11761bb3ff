// Gpu: the backend under test: the GPU of this machine, or the kernels' own source on its processor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "backend/backend.hpp"

namespace wallx::test {

Backend& gpu();  // made once

}  // namespace wallx::test
