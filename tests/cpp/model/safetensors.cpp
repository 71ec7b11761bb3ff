// SafetensorsTest: no claim of a header is believed before it is checked.
// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

const std::string kTwo =
    R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

// a header with one tensor of these words, over `data_bytes` of data
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                std::size_t data_bytes) {
  return safetensors(
      R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      std::string(data_bytes, 'x'));
}

void check_refused(const TemporaryFolder& folder, const std::string& bytes, const char* part) {
  const std::string path = folder.write("t.safetensors", bytes);
  CHECK_THROWS(SafetensorsFile(path), CheckpointError, part);
  CHECK_THROWS(SafetensorsFile(path), CheckpointError, path.c_str());
}

// A file that was whole: header bytes changed, swapped for others of the same language, put in, taken out or
// repeated, bits flipped anywhere, the end cut off or more put behind it, a length that is not so.
std::string damaged(std::mt19937& random) {
  static const std::string headers[] = {
      kTwo,
      R"({"__metadata__":{"format":"pt","recipe":"int8"},"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"e":{"dtype":"F64","shape":[0,7],"data_offsets":[8,8]},"s":{"dtype":"I16","shape":[],"data_offsets":[8,10]},"x":{"dtype":"I8","shape":[1,1,1],"data_offsets":[10,11]}})",
      R"({"\u00e9\n":{"data_offsets":[0,11],"shape":[11],"dtype":"BOOL"}}   )"};
  const std::string words = "0123456789-.eE+,[]{}\":\\FBUIu \t\xff";
  const std::string data = "01234567abc";
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  std::string header = headers[below(3)];
  const auto flip = [&](std::string& bytes) {
    bytes[below(bytes.size())] ^= static_cast<char>(1 << below(8));
  };
  for (auto edits = below(3); edits > 0 && !header.empty(); --edits) {
    const std::size_t at = below(header.size());
    switch (below(8)) {
      case 0:
        header[at] = static_cast<char>(random());
        break;
      case 1:
        header.insert(at, 1, words[below(words.size())]);
        break;
      case 2:
        header.erase(at, 1 + below(4));
        break;
      case 3:
        header.insert(below(header.size()), header.substr(at, below(40)));
        break;
      case 4:
        header.insert(at, 1 + below(below(50) ? 40 : 20000), words[below(words.size())]);
        break;
      case 5:
        flip(header);
        break;
      default:
        header[at] = words[below(words.size())];
    }
  }
  std::string bytes = safetensors(header, data);
  switch (below(16)) {
    case 0:
      bytes[below(8)] = static_cast<char>(random());
      break;
    case 1:
      flip(bytes);
      break;
    case 2:
      bytes.resize(below(bytes.size()));
      break;
    case 3:
      bytes.append(1 + below(64), 'z');
      break;
    default:
      break;
  }
  return bytes;
}

// resident pages of mapped files [bytes]; -1: the system does not say
long resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "RssFile:") {
      long kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return -1;
}

}  // namespace

TEST(reads_what_a_writer_wrote) {
  const TemporaryFolder folder;
  const SafetensorsFile file(folder.write(
      "t.safetensors", safetensors({{"w", "F32", {2, 3}, bytes_of(std::vector<float>{1, 2, 3, 4, 5, 6})},
                                    {"scalar", "I64", {}, bytes_of(std::vector<std::int64_t>{-7})},
                                    {"empty", "BF16", {0, 4}, ""},
                                    {"flag", "BOOL", {1}, "\x01"}})));
  REQUIRE(file.tensors().size() == 4);
  const TensorEntry& w = file.tensors()[0];
  CHECK_EQ(w.name, "w");
  CHECK(w.dtype == Dtype::f32);
  CHECK_EQ(to_string(w.shape), "[2, 3]");
  CHECK_EQ(w.num_bytes, 24u);
  float last = 0;
  std::memcpy(&last, w.data + 20, 4);
  CHECK_EQ(last, 6.0f);
  std::int64_t scalar = 0;
  std::memcpy(&scalar, file.tensors()[1].data, 8);
  CHECK_EQ(scalar, -7);
  CHECK_EQ(to_string(file.tensors()[1].shape), "[]");
  CHECK_EQ(file.tensors()[2].num_bytes, 0u);
  CHECK_EQ(num_elements(file.tensors()[2].shape), 0);
  CHECK_EQ(std::to_integer<int>(*file.tensors()[3].data), 1);
}

TEST(knows_the_size_of_every_dtype) {
  const TemporaryFolder folder;
  for (const auto& [name, size] : std::vector<std::pair<std::string, std::size_t>>{{"F64", 8},
                                                                                   {"F32", 4},
                                                                                   {"F16", 2},
                                                                                   {"BF16", 2},
                                                                                   {"I64", 8},
                                                                                   {"I32", 4},
                                                                                   {"I16", 2},
                                                                                   {"I8", 1},
                                                                                   {"U8", 1},
                                                                                   {"BOOL", 1}}) {
    const SafetensorsFile file(
        folder.write("t.safetensors", safetensors({{"t", name, {3}, std::string(3 * size, 0)}})));
    CHECK_EQ(size_of(file.tensors()[0].dtype), size);
    CHECK_EQ(std::string(to_string(file.tensors()[0].dtype)), name);
    check_refused(folder, safetensors({{"t", name, {3}, std::string(3 * size + 1, 0)}}), "needs");
  }
  check_refused(folder, one(R"("F8_E4M3")", "[1]", "[0,1]", 1), "tensor t: unknown dtype F8_E4M3");
  check_refused(folder, one(R"("f32")", "[1]", "[0,4]", 4), "unknown dtype f32");
}

TEST(reads_metadata_and_nothing_but_strings_in_it) {
  const TemporaryFolder folder;
  const SafetensorsFile file(
      folder.write("t.safetensors", safetensors(R"({"__metadata__":{"format":"pt","step":"12"}})", "")));
  REQUIRE(file.metadata().size() == 2);
  CHECK_EQ(file.metadata()[1].first, "step");
  CHECK_EQ(file.metadata()[1].second, "12");
  CHECK(file.tensors().empty());
  check_refused(folder, safetensors(R"({"__metadata__":{"step":12}})", ""), "__metadata__");
  check_refused(folder, safetensors(R"({"__metadata__":[]})", ""), "__metadata__");
}

TEST(reads_a_file_without_tensors) {
  const TemporaryFolder folder;
  CHECK(SafetensorsFile(folder.write("t.safetensors", safetensors("{}", ""))).tensors().empty());
  CHECK(SafetensorsFile(folder.write("t.safetensors", safetensors("{}      ", ""))).tensors().empty());
}

TEST(refuses_what_is_not_a_file) {
  const TemporaryFolder folder;
  CHECK_THROWS(SafetensorsFile(folder.file("absent.safetensors")), CheckpointError,
               "cannot open: No such file");
  CHECK_THROWS(SafetensorsFile(folder.path()), CheckpointError, "not a regular file");
}

TEST(refuses_a_file_cut_at_any_byte) {
  const TemporaryFolder folder;
  const std::string whole = safetensors(kTwo, "01234567abc");
  (void)SafetensorsFile(folder.write("t.safetensors", whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const char* part = size < 8                 ? "a safetensors file has at least 8"
                       : size < 8 + kTwo.size() ? "truncated or not a safetensors file: its header claims"
                                                : "truncated file: it ends at byte";
    check_refused(folder, whole.substr(0, size), part);
  }
  check_refused(folder, whole + "z", "1 bytes after the last tensor belong to none");
}

TEST(refuses_a_header_longer_than_the_file) {
  const TemporaryFolder folder;
  std::string bytes = safetensors(kTwo, "01234567abc");
  for (std::uint64_t claim :
       {std::uint64_t{bytes.size() - 7}, std::uint64_t{100'000'001}, std::uint64_t{1} << 32,
        std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{7}, ~std::uint64_t{8}}) {
    for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(claim >> (8 * i));
    check_refused(folder, bytes, ("its header claims " + std::to_string(claim)).c_str());
  }
}

TEST(refuses_headers_that_are_not_what_the_format_says) {
  const TemporaryFolder folder;
  check_refused(folder, safetensors("", ""), "header: not valid JSON");
  check_refused(folder, safetensors("{", ""), "header: not valid JSON");
  check_refused(folder, safetensors("[]", ""), "not a JSON object");
  check_refused(folder, safetensors("\x80\x02}q", ""), "header: not valid JSON");  // a pickle
  check_refused(folder, safetensors(R"({"t":1})", ""), "tensor t: the header lacks");
  check_refused(folder, safetensors(R"({"t":{}})", ""), "tensor t: the header lacks");
  check_refused(folder, safetensors(R"({"t":{"dtype":"F32","shape":[1]}})", "1234"),
                "lacks dtype, shape or data_offsets");
  check_refused(folder, safetensors(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", "1234"), "lacks dtype");
  check_refused(folder, safetensors(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", "1234"), "lacks dtype");
  const std::string t = R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  check_refused(folder, safetensors("{" + t + "," + t + "}", "1"), "key 't' stands twice");
  check_refused(folder, one("4", "[1]", "[0,4]", 4), "tensor t: expected a string, found a number");
  check_refused(folder, one(R"("F32")", "1", "[0,4]", 4), "tensor t: expected an array");
  check_refused(folder, one(R"("F32")", R"(["1"])", "[0,4]", 4),
                "tensor t: expected a number, found a string");
  check_refused(folder, one(R"("F32")", "[1]", R"({"0":4})", 4), "tensor t: expected an array");
}

TEST(refuses_impossible_shapes) {
  const TemporaryFolder folder;
  check_refused(folder, one(R"("U8")", "[-1]", "[0,1]", 1), "negative dimension -1");
  check_refused(folder, one(R"("U8")", "[-1,-1]", "[0,1]", 1), "negative dimension -1");
  check_refused(folder, one(R"("U8")", "[0.5]", "[0,1]", 1), "expected a whole number");
  check_refused(folder, one(R"("U8")", "[1e16]", "[0,1]", 1), "expected a whole number");
  // 2^32 x 2^32 wraps to 0 in 64 bits
  check_refused(folder, one(R"("U8")", "[4294967296,4294967296]", "[0,0]", 0), "is too large");
  check_refused(folder, one(R"("F64")", "[2147483648,1073741824]", "[0,0]", 0), "is too large");
  check_refused(folder, one(R"("F32")", "[4503599627370496,2048,4503599627370496]", "[0,4]", 4),
                "is too large");
  check_refused(folder, one(R"("F32")", "[3]", "[0,8]", 8),
                "shape [3] of F32 needs 12 bytes, data_offsets give 8");
  check_refused(folder, one(R"("F32")", "[0]", "[0,4]", 4), "needs 0 bytes");
}

TEST(refuses_impossible_offsets) {
  const TemporaryFolder folder;
  check_refused(folder, one(R"("U8")", "[4]", "[-4,0]", 4), "not a range");
  check_refused(folder, one(R"("U8")", "[4]", "[-2,2]", 4), "not a range");
  check_refused(folder, one(R"("U8")", "[4]", "[4,0]", 4), "not a range");
  check_refused(folder, one(R"("U8")", "[4]", "[0]", 4), "data_offsets must have two entries");
  check_refused(folder, one(R"("U8")", "[4]", "[0,4,8]", 4), "data_offsets must have two entries");
  check_refused(folder, one(R"("U8")", "[4]", "[0.5,4.5]", 4), "expected a whole number");
  check_refused(folder, one(R"("U8")", "[4]", "[1,5]", 4), "truncated file: it ends at byte 5");
  check_refused(folder, one(R"("U8")", "[4]", "[9007199254740987,9007199254740991]", 4), "truncated file");
}

TEST(refuses_overlaps_and_holes) {
  const TemporaryFolder folder;
  const auto two = [](const std::string& a, const std::string& b) {
    return safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                       "01234567");
  };
  (void)SafetensorsFile(folder.write("t.safetensors", two("[0,4]", "[4,8]")));
  (void)SafetensorsFile(folder.write("t.safetensors", two("[4,8]", "[0,4]")));  // any order in the header
  check_refused(folder, two("[0,4]", "[3,7]"), "tensor b overlaps the tensor before it");
  check_refused(folder, two("[0,4]", "[0,4]"), "overlaps");
  check_refused(folder, two("[1,5]", "[0,4]"), "tensor a overlaps the tensor before it");
  check_refused(folder, two("[0,4]", "[4,8]") + "9", "1 bytes after the last tensor");
  check_refused(folder, one(R"("U8")", "[4]", "[1,5]", 5), "tensor t leaves a hole");
  check_refused(folder, one(R"("U8")", "[4]", "[0,4]", 5), "1 bytes after the last tensor belong to none");
  const std::string empty_inside = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                   R"("e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})";
  check_refused(folder, safetensors(empty_inside, "0123"), "tensor e overlaps");
}

// whatever a damaged file says: either a CheckpointError, or tensors that tile the data exactly
TEST(damaged_files_never_reach_outside_themselves) {
  const TemporaryFolder folder;
  const char* asked = std::getenv("WALLX_FUZZ_HEADERS");
  const char* seed = std::getenv("WALLX_SEED");
  const int rounds = asked ? std::atoi(asked) : 6000;
  std::mt19937 random(seed ? static_cast<unsigned>(std::atoi(seed)) : 77);
  int accepted = 0, refused = 0;
  unsigned checksum = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string bytes = damaged(random);
    const std::string path = folder.write("t.safetensors", bytes);
    try {
      const SafetensorsFile file(path);
      ++accepted;
      std::size_t total = 0;
      for (const TensorEntry& entry : file.tensors()) {
        CHECK_EQ(static_cast<std::size_t>(num_elements(entry.shape)) * size_of(entry.dtype), entry.num_bytes);
        for (std::size_t i = 0; i < entry.num_bytes; ++i)
          checksum += std::to_integer<unsigned>(entry.data[i]);
        total += entry.num_bytes;
      }
      CHECK(total <= bytes.size() - 8);
    } catch (const CheckpointError& error) {
      ++refused;
      CHECK(std::strstr(error.what(), path.c_str()) != nullptr);
    }
  }
  CHECK_EQ(accepted + refused, rounds);
  // both ends are reached, in whatever small share of the soak
  if (rounds < 1000) return;
  CHECK(checksum > 0);
  CHECK(accepted > rounds / 200);
  CHECK(refused > rounds / 6);
}

TEST(dropped_pages_leave_memory_and_come_back_the_same) {
  const TemporaryFolder folder;
  const std::size_t size = 32 << 20;
  std::vector<std::uint32_t> values(size / 4);
  std::iota(values.begin(), values.end(), 0u);
  const SafetensorsFile file(folder.write(
      "t.safetensors", safetensors({{"t", "I32", {static_cast<std::int64_t>(size / 4)}, bytes_of(values)}})));
  const TensorEntry& entry = file.tensors()[0];
  const auto is_same = [&] { return std::memcmp(entry.data, values.data(), size) == 0; };

  const long before = resident_file_bytes();
  CHECK(is_same());
  const long mapped = resident_file_bytes();
  SafetensorsFile::drop_pages(entry.data, size);
  const long after = resident_file_bytes();
  if (before < 0) {
    std::printf("  skipped: /proc/self/status does not say RssFile\n");
  } else {
    CHECK(mapped - before > 30 << 20);
    CHECK(after - before < 1 << 20);
  }
  CHECK(is_same());
  // less than a page: nothing to give back, and nothing outside is touched
  SafetensorsFile::drop_pages(entry.data + 100, 50);
  CHECK(is_same());
}

}  // namespace wallx::test
