// ShardIndexTest: an index names files of its own folder and their tensors, each once; everything else is
// refused. SPDX-License-Identifier: Apache-2.0
#include "model/shard_index.hpp"

#include <filesystem>

#include "base/errors.hpp"
#include "check.hpp"
#include "model/wall_oss.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

namespace fs = std::filesystem;
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

std::string one_float(const std::string& name) {
  return safetensors({{name, "F32", {1}, bytes_of(std::vector<float>{7})}});
}
std::string index_of(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string text = R"({"metadata": {"total_size": 8}, "weight_map": {)";
  for (std::size_t i = 0; i < map.size(); ++i)
    text += join(i ? ", " : "", '"', map[i].first, "\": \"", map[i].second, '"');
  return text + "}}";
}
// two shards with a tensor each, and their index
void write_two(const TemporaryFolder& folder) {
  folder.write(kFirst, one_float("a"));
  folder.write(kSecond, one_float("b"));
  folder.write(kIndex, index_of({{"a", kFirst}, {"b", kSecond}}));
}

}  // namespace

TEST(a_network_in_many_shards_is_the_network_in_one_file) {
  const TinyModel model;
  const std::vector<RawTensor> all = model.tensors();
  const TemporaryFolder folder;
  folder.write("config.json", model.config().text());
  std::vector<std::pair<std::string, std::string>> map;
  for (std::size_t shard = 0; shard < 5; ++shard) {
    std::vector<RawTensor> part;
    const std::string name = join("model-0000", shard + 1, "-of-00005.safetensors");
    for (std::size_t i = shard; i < all.size(); i += 5) {
      part.push_back(all[i]);
      map.emplace_back(all[i].name, name);
    }
    folder.write(name, safetensors(part));
  }
  folder.write(kIndex, index_of(map));
  const auto loaded = WallOss::load(folder.path());
  CHECK_EQ(loaded->weights().names().size(), all.size());
  for (const RawTensor& tensor : all) CHECK(bytes_of(loaded->weights().read(tensor.name)) == tensor.bytes);
  CHECK_EQ(loaded->weights().widened_bytes(), 0u);
}

TEST(the_index_may_name_its_files_as_it_likes) {
  const TemporaryFolder folder;
  folder.write("weights.safetensors", one_float("a"));
  folder.write(kIndex, index_of({{"a", "weights.safetensors"}}));
  CHECK(Weights(folder.path()).contains("a"));
}

TEST(a_missing_shard_is_named) {
  const TemporaryFolder folder;
  write_two(folder);
  CHECK_EQ(Weights(folder.path()).names().size(), 2u);
  fs::remove(folder.file(kSecond));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, kSecond);
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "named by the index, but No such file");
}

TEST(every_tensor_stands_once_and_where_the_index_says) {
  const TemporaryFolder folder;
  write_two(folder);
  folder.write(kIndex, index_of({{"a", kFirst}, {"b", kSecond}, {"c", kSecond}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "tensor c: missing");
  folder.write(kIndex, index_of({{"a", kSecond}, {"b", kFirst}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError,
               "tensor a: model.safetensors.index.json does not say");
  folder.write(kIndex, index_of({{"a", kFirst}, {"a", kSecond}, {"b", kSecond}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "key 'a' stands twice");
  folder.write(kIndex, index_of({{"a", kFirst}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "not named by model.safetensors.index.json");
  // a tensor of another shard again
  write_two(folder);
  folder.write(kSecond,
               safetensors({{"b", "F32", {1}, std::string(4, 0)}, {"a", "F32", {1}, std::string(4, 0)}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError,
               "tensor a: model.safetensors.index.json does not say");
}

TEST(names_that_leave_the_folder_are_refused) {
  const TemporaryFolder outside, folder;
  outside.write("x.safetensors", one_float("a"));
  fs::create_directory(folder.file("sub"));
  folder.write("sub/x.safetensors", one_float("a"));
  const std::string names[] = {outside.file("x.safetensors"),
                               "../x.safetensors",
                               "sub/x.safetensors",
                               "./x.safetensors",
                               "..\\\\x.safetensors",
                               "C:x.safetensors",
                               ".safetensors",
                               "..safetensors",
                               "",
                               ".",
                               "..",
                               "/",
                               kIndex,
                               "x.bin",
                               "x.safetensors/",
                               "x.safetensors/../../y.safetensors",
                               std::string(300, 'x') + ".safetensors",
                               "x\\u0000.safetensors",
                               "x\\n.safetensors"};
  for (const std::string& name : names) {
    folder.write(kIndex, index_of({{"a", name}}));
    CHECK_THROWS(Weights(folder.path()), CheckpointError,
                 "expected names of .safetensors files in this folder");
  }
}

TEST(links_that_leave_the_folder_or_go_in_a_circle_are_refused) {
  const TemporaryFolder outside, folder;
  outside.write("x.safetensors", one_float("a"));
  folder.write(kIndex, index_of({{"a", kFirst}}));
  fs::create_symlink(outside.file("x.safetensors"), folder.file(kFirst));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "a link that leaves the folder");
  fs::remove(folder.file(kFirst));
  fs::create_symlink(kFirst, folder.file(kFirst));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "named by the index, but Too many levels");
  fs::remove(folder.file(kFirst));
  fs::create_symlink(kSecond, folder.file(kFirst));
  fs::create_symlink(kFirst, folder.file(kSecond));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, kSecond);
  folder.write(kIndex, index_of({{"a", kFirst}, {"b", kSecond}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "Too many levels");
  fs::remove(folder.file(kFirst));
  fs::remove(folder.file(kSecond));
  fs::create_directory(folder.file(kFirst));
  folder.write(kIndex, index_of({{"a", kFirst}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "not a regular file");
  fs::remove(folder.file(kFirst));
  // one file under two names: its tensors would stand twice
  folder.write(kSecond, one_float("a"));
  fs::create_symlink(kSecond, folder.file(kFirst));
  folder.write(kIndex, index_of({{"a", kFirst}, {"b", kSecond}}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "tensor a");
  // a link to a file of the folder is as good as the file
  fs::rename(folder.file(kSecond), folder.file("other.safetensors"));
  fs::remove(folder.file(kFirst));
  fs::create_symlink("other.safetensors", folder.file(kFirst));
  folder.write(kIndex, index_of({{"a", kFirst}}));
  CHECK(Weights(folder.path()).contains("a"));
}

// snapshots/REVISION/FILE -> ../../blobs/HASH
TEST(the_hub_s_own_cache_is_read_in_place) {
  const TemporaryFolder hub;
  fs::create_directories(hub.file("snapshots/abc"));
  fs::create_directory(hub.file("blobs"));
  hub.write("blobs/1234", one_float("a"));
  fs::create_symlink(fs::path("../../blobs/1234"), hub.file("snapshots/abc/" + std::string(kFirst)));
  hub.write("snapshots/abc/" + std::string(kIndex), index_of({{"a", kFirst}}));
  CHECK(Weights(hub.file("snapshots/abc")).contains("a"));
  hub.write("1234", one_float("a"));
  fs::remove(hub.file("snapshots/abc/" + std::string(kFirst)));
  fs::create_symlink(fs::path("../../1234"), hub.file("snapshots/abc/" + std::string(kFirst)));
  CHECK_THROWS(Weights(hub.file("snapshots/abc")), CheckpointError, "a link that leaves the folder");
}

TEST(what_is_not_an_index_is_refused) {
  const TemporaryFolder folder;
  const std::pair<std::string, const char*> cases[] = {
      {"", "not valid JSON"},
      {"[]", "weight_map: missing"},
      {"{}", "weight_map: missing"},
      {R"({"weight_map": []})", "expected an object"},
      {R"({"weight_map": {}})", "weight_map: is empty"},
      {R"({"weight_map": {"a": 3}})", "expected a string"},
      {R"({"weight_map": {"a": ["x.safetensors"]}})", "expected a string"},
  };
  for (const auto& [text, part] : cases) {
    folder.write(kIndex, text);
    CHECK_THROWS(Weights(folder.path()), CheckpointError, part);
    CHECK_THROWS(Weights(folder.path()), CheckpointError, folder.file(kIndex).c_str());
  }
  fs::remove(folder.file(kIndex));
  fs::create_directory(folder.file(kIndex));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "not a regular file");
  fs::remove(folder.file(kIndex));
  fs::create_symlink(kIndex, folder.file(kIndex));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, kIndex);
}

// whatever the index says: its two tensors from this folder, or a CheckpointError
TEST(mutated_indexes_load_or_throw_and_nothing_else) {
  const TemporaryFolder folder;
  write_two(folder);
  const std::string good = index_of({{"a", kFirst}, {"b", kSecond}});
  const std::string pieces[] = {"../",   "/",    "\\u0000", "\"",   "\\",           "{",         "}",
                                ":",     ",",    "[",       "null", "1e9",          kFirst,      kSecond,
                                "\"a\"", "\xff", "..",      "\n",   ".safetensors", "weight_map"};
  std::mt19937 random(41);
  int loaded = 0, refused = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string text = good;
    for (auto edits = random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % (text.size() + 1);
      // cut, then join: what is put in, and how much of the rest stays
      const std::size_t dropped = random() % 3 ? random() % 2 : random() % 8;
      const std::string tail = text.substr(std::min(text.size(), at + dropped));
      text =
          join(text.substr(0, at), random() % 4 ? pieces[random() % std::size(pieces)] : std::string(), tail);
    }
    folder.write(kIndex, text);
    try {
      CHECK_EQ(Weights(folder.path()).names().size(), 2u);
      ++loaded;
    } catch (const CheckpointError& error) {
      ++refused;
      CHECK(std::strstr(error.what(), folder.path().c_str()) != nullptr);
    }
  }
  CHECK(loaded > 1000);
  CHECK(refused > 2000);
}

}  // namespace wallx::test
