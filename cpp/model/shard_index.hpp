// ShardIndex: which file of a folder holds which tensor, as model.safetensors.index.json says; nothing of it
// is believed. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>

namespace wallx {

struct ShardIndex {
  std::map<std::string, std::set<std::string>> files;  // name inside the folder -> its tensors

  // Reads DIR/model.safetensors.index.json. Throws CheckpointError: not JSON, no weight_map, a name that is
  // not a plain *.safetensors file name, a tensor twice.
  static ShardIndex read(const std::string& directory);
  static bool is_in(const std::string& directory);

  // The path of a named file. Throws CheckpointError: absent, not a file, a link that leaves the folder (the
  // hub's own cache, whose files are links into the blobs beside it, excepted) or goes in a circle.
  static std::string resolve(const std::string& directory, const std::string& file);
};

}  // namespace wallx
