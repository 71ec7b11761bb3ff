// FuzzCount: how many frames a codec's fuzzer makes; the soak asks for more. SPDX-License-Identifier:
// Apache-2.0
#pragma once

#include <cstdlib>

namespace wallx::test {

inline int fuzz_count() {
  const char* asked = std::getenv("WALLX_FUZZ_FRAMES");
  return asked ? std::atoi(asked) : 10'000;
}

}  // namespace wallx::test
