// Pausing: a context pauses between blocks for as long as this is there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "engine/context.hpp"

namespace wallx {

class Pausing {
 public:
  Pausing(Context& context, Pause pause, std::int64_t max_rows = 0) : context_(context) {
    context_.set_pause(std::move(pause), max_rows);
  }
  ~Pausing() { context_.set_pause({}); }
  Pausing(const Pausing&) = delete;
  Pausing& operator=(const Pausing&) = delete;

 private:
  Context& context_;
};

}  // namespace wallx
