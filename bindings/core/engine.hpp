// Engine: what Python calls the weights of one checkpoint.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "model/wall_oss.hpp"

namespace wallx {

struct Engine {
  std::shared_ptr<const WallOss> model;
};

}  // namespace wallx
