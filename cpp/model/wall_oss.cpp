// WallOss: loading.
// SPDX-License-Identifier: Apache-2.0
#include "model/wall_oss.hpp"

namespace wallx {

WallOss::WallOss(const std::string& directory)
    : config_(ModelConfig::load(directory)),
      weights_(directory),
      vision_(config_.vision, weights_),
      language_(config_, weights_),
      action_head_(config_, weights_) {
  // the normalizer's statistics belong to Python, which reads them by name
  for (const std::string& name : weights_.names())
    if (name.rfind("action_preprocessor.normalizer_", 0) == 0) weights_.skip(name);
  weights_.require_all_used();
}

std::shared_ptr<const WallOss> WallOss::load(const std::string& directory) {
  return std::shared_ptr<const WallOss>(new WallOss(directory));
}

}  // namespace wallx
