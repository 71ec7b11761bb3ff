// ShardIndex: reading and resolving.
// SPDX-License-Identifier: Apache-2.0
#include "model/shard_index.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/errors.hpp"
#include "base/json.hpp"

namespace wallx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "/model.safetensors.index.json";
constexpr std::string_view kEnding = ".safetensors";
constexpr std::uintmax_t kMaxBytes = 100'000'000;  // as the header of the files it names

// a name of a file in this very folder, that no system reads as anything else
bool is_plain(const std::string& name) {
  return name.size() > kEnding.size() && name.size() < 256 && name.ends_with(kEnding) && name[0] != '.' &&
         std::ranges::none_of(
             name, [](unsigned char c) { return c < 0x20 || c == '/' || c == '\\' || c == ':'; });
}

std::string read_bounded(const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) throw CheckpointError(path + ": not a regular file");
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw CheckpointError(path + ": cannot read: " + error.message());
  if (size > kMaxBytes)
    throw CheckpointError(path + ": " + std::to_string(size) + " bytes, an index has at most " +
                          std::to_string(kMaxBytes));
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw CheckpointError(path + ": cannot read");
  return text.str();
}

}  // namespace

bool ShardIndex::is_in(const std::string& directory) {
  std::error_code ignored;
  return fs::symlink_status(directory + kFile, ignored).type() != fs::file_type::not_found;
}

ShardIndex ShardIndex::read(const std::string& directory) {
  const std::string path = directory + kFile;
  ShardIndex index;
  try {
    const Json json = Json::parse(read_bounded(path));
    const Json* map = json.find("weight_map");
    if (!map) throw CheckpointError(path + ": weight_map: missing");
    for (const auto& [tensor, file] : map->members()) {
      if (!is_plain(file.string()))
        throw CheckpointError(path +
                              ": weight_map: expected names of .safetensors files in this folder, found '" +
                              file.string() + "' for tensor " + tensor);
      index.files[file.string()].insert(tensor);
    }
  } catch (const JsonError& e) {
    throw CheckpointError(path + ": " + e.what());
  }
  if (index.files.empty()) throw CheckpointError(path + ": weight_map: is empty");
  return index;
}

std::string ShardIndex::resolve(const std::string& directory, const std::string& file) {
  const fs::path path = fs::path(directory) / file;
  std::error_code error;
  const fs::path target = fs::canonical(path, error);  // also tells links in a circle
  if (error) throw CheckpointError(path.string() + ": named by the index, but " + error.message());
  const fs::path folder = fs::canonical(directory, error);
  if (error) throw CheckpointError(directory + ": cannot read the folder: " + error.message());
  const bool is_hub_cache = folder.parent_path().filename() == "snapshots" &&
                            target.parent_path() == folder.parent_path().parent_path() / "blobs";
  if (target.parent_path() != folder && !is_hub_cache)
    throw CheckpointError(path.string() + ": a link that leaves the folder, to " + target.string() +
                          "; put the file itself there");
  if (!fs::is_regular_file(target, error)) throw CheckpointError(path.string() + ": not a regular file");
  return path.string();
}

}  // namespace wallx
