// Pause: what a long pass calls between its blocks, so that more urgent work may go first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace wallx {

// `rows`: of the language pass that goes on after it; 0: of a picture's pass. May compute on other contexts
// of the same model. What it throws ends a prefill or a denoising; in a decoding it must not throw. Empty:
// none.
using Pause = std::function<void(std::int64_t rows)>;

}  // namespace wallx
