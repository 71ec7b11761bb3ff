// WeightsTest: tensors are found, checked by name and shape, and widened exactly.
// SPDX-License-Identifier: Apache-2.0
#include "model/weights.hpp"

#include <algorithm>
#include <cstring>

#include "base/errors.hpp"
#include "check.hpp"
#include "model/wall_oss.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

using Storage = TinyModel::Storage;

RawTensor floats(const std::string& name, Shape shape, std::vector<float> values) {
  return {name, "F32", std::move(shape), bytes_of(values)};
}

// 0, 1, ... 65535: every pattern of 16 bits
RawTensor every_half(const std::string& dtype) {
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  return {"t", dtype, {256, 256}, bytes_of(patterns)};
}

// a checkpoint folder with these tensors and the config of `model`
void write(const TemporaryFolder& folder, const TinyModel& model, const std::vector<RawTensor>& tensors) {
  folder.write("config.json", model.config().text());
  folder.write("model.safetensors", safetensors(tensors));
}

}  // namespace

TEST(maps_fp32_in_place) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               safetensors({floats("a", {2, 2}, {1, -2, 3.5f, 0}), floats("b", {1}, {9})}));
  Weights weights(folder.path());
  const float* a = weights.take("a", {2, 2});
  CHECK(reinterpret_cast<const std::byte*>(a) == weights.entry("a").data);
  CHECK_EQ(a[2], 3.5f);
  CHECK_EQ(*weights.take("b", {1}), 9.0f);
  CHECK_EQ(weights.mapped_bytes(), 20u);
  CHECK_EQ(weights.widened_bytes(), 0u);
  weights.require_all_used();
}

TEST(copies_fp32_that_stands_at_an_odd_address) {
  const TemporaryFolder folder;
  int num_copied = 0;
  for (std::size_t shift = 0; shift < 4; ++shift) {
    const RawTensor first{std::string(shift + 1, 'x'), "U8", {1}, "z"};  // the name's length moves the data
    folder.write("model.safetensors", safetensors({first, floats("a", {3}, {1.25f, -7, 1e-40f})}, 1));
    Weights weights(folder.path());
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(weights.entry("a").data) % 4 == 0;
    const float* a = weights.take("a", {3});
    CHECK(reinterpret_cast<std::uintptr_t>(a) % 4 == 0);
    CHECK_EQ(a[0], 1.25f);
    CHECK_EQ(a[1], -7.0f);
    CHECK_EQ(a[2], 1e-40f);
    CHECK_EQ(weights.widened_bytes(), is_aligned ? 0u : 12u);
    CHECK_EQ(weights.mapped_bytes(), is_aligned ? 12u : 0u);
    num_copied += !is_aligned;
  }
  CHECK_EQ(num_copied, 3);
}

TEST(widens_every_bf16_exactly) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", safetensors({every_half("BF16")}));
  Weights weights(folder.path());
  const float* t = weights.take("t", {256, 256});
  for (std::uint32_t i = 0; i < 65536; ++i) CHECK_EQ(std::bit_cast<std::uint32_t>(t[i]), i << 16);
  CHECK_EQ(weights.widened_bytes(), 65536u * 4);
  const std::vector<float> copy = weights.read("t");
  CHECK(copy.size() == 65536 && std::memcmp(copy.data(), t, 65536 * 4) == 0);
}

TEST(widens_every_fp16_exactly) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", safetensors({every_half("F16")}));
  Weights weights(folder.path());
  const float* t = weights.take("t", {256, 256});
  for (int i = 0; i < 65536; ++i) {
    const int exponent = i >> 10 & 31, mantissa = i & 1023;
    CHECK_EQ(std::signbit(t[i]), (i & 0x8000) != 0);
    if (exponent == 31) {
      CHECK(mantissa ? std::isnan(t[i]) : std::isinf(t[i]));
    } else {
      const double magnitude =
          exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);  // subnormal
      CHECK_EQ(static_cast<double>(std::abs(t[i])), magnitude);
    }
  }
}

TEST(widens_in_pieces_without_a_seam) {
  const TemporaryFolder folder;
  const std::int64_t size = (1 << 20) + 12345;  // more than one piece, and not a whole number of pages
  std::mt19937 random(3);
  std::vector<std::uint16_t> halves;
  for (float v : random_values(random, size, 2.0f)) halves.push_back(to_bf16(v));
  // one byte before it: pages and values are out of step
  folder.write("model.safetensors",
               safetensors({{"pad", "U8", {1}, "z"}, {"t", "BF16", {size}, bytes_of(halves)}}));
  Weights weights(folder.path());
  const float* t = weights.take("t", {size});
  bool is_same = true;
  for (std::int64_t i = 0; i < size; ++i) is_same &= t[i] == from_bf16(halves[static_cast<std::size_t>(i)]);
  CHECK(is_same);
}

TEST(names_tensor_expected_and_found) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               safetensors({floats("a", {2, 3}, {1, 2, 3, 4, 5, 6}), {"n", "I64", {1}, std::string(8, 0)}}));
  Weights weights(folder.path());
  CHECK_THROWS(weights.take("b", {2, 3}), CheckpointError, "tensor b: missing, expected shape [2, 3]");
  CHECK_THROWS(weights.take("a", {3, 2}), CheckpointError, "tensor a: expected shape [3, 2], found [2, 3]");
  CHECK_THROWS(weights.take("a", {6}), CheckpointError, "tensor a: expected shape [6], found [2, 3]");
  CHECK_THROWS(weights.take("a", {2, 3, 1}), CheckpointError, "found [2, 3]");
  CHECK_THROWS(weights.take("n", {1}), CheckpointError, "tensor n: expected F32, BF16 or F16, found I64");
  CHECK_THROWS(weights.read("n"), CheckpointError, "found I64");
  CHECK_THROWS(weights.read("b"), CheckpointError, "tensor b: missing");
  CHECK_THROWS(weights.entry("b"), CheckpointError, "tensor b: missing");
  CHECK_THROWS(weights.take("b", {1}), CheckpointError, folder.path().c_str());
  CHECK(!weights.contains("b"));
  CHECK(weights.contains("a"));
}

TEST(names_the_tensors_that_nothing_asked_for) {
  const TemporaryFolder folder;
  std::vector<RawTensor> tensors;
  for (const char* name : {"g", "f", "e", "d", "c", "b", "a"}) tensors.push_back(floats(name, {1, 1}, {0}));
  folder.write("model.safetensors", safetensors(tensors));
  Weights weights(folder.path());
  (void)weights.take("b", {1, 1});
  CHECK_THROWS(
      (weights.require_all_used(), 0), CheckpointError,
      "6 surplus tensors that this architecture does not have: a [1, 1], c [1, 1], d [1, 1], e [1, 1], "
      "f [1, 1], ...");
  for (const char* name : {"a", "c", "d", "e", "f"}) weights.skip(name);
  CHECK_THROWS((weights.require_all_used(), 0), CheckpointError, "g [1, 1]");
  (void)weights.take("g", {1, 1});
  weights.require_all_used();
}

TEST(reads_shards_and_refuses_a_tensor_that_two_files_hold) {
  const TemporaryFolder folder;
  folder.write("model-00001-of-00002.safetensors", safetensors({floats("a", {1}, {1})}));
  folder.write("model-00002-of-00002.safetensors", safetensors({floats("b", {1}, {2})}));
  folder.write("optimizer.safetensors", "not looked at");
  folder.write("optimizer.safetensors.index.json", "not looked at");
  Weights weights(folder.path());
  CHECK_EQ(*weights.take("a", {1}), 1.0f);
  CHECK_EQ(*weights.take("b", {1}), 2.0f);
  CHECK_EQ(weights.names().size(), 2u);
  folder.write("model-00003-of-00003.safetensors", safetensors({floats("a", {1}, {3})}));
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "tensor a stands in more than one file");
}

TEST(refuses_folders_without_weights) {
  const TemporaryFolder folder;
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "no model.safetensors");
  CHECK_THROWS(Weights(folder.file("absent")), CheckpointError, "cannot read the folder");
  folder.write("model.safetensors", "short");
  CHECK_THROWS(Weights(folder.path()), CheckpointError, "model.safetensors: truncated");
}

TEST(loads_a_whole_network_in_any_storage) {
  for (const Storage storage : {Storage::f32, Storage::bf16, Storage::f32_of_bf16}) {
    const TemporaryFolder folder;
    const TinyModel model;
    model.write(folder, storage);
    const auto loaded = WallOss::load(folder.path());
    CHECK_EQ(loaded->config().hidden_size, model.hidden);
    CHECK_EQ(loaded->language().vocab_size(), model.vocab);
    const bool is_half = storage == Storage::bf16;
    CHECK_EQ(loaded->weights().widened_bytes() > 0, is_half);
    CHECK_EQ(loaded->weights().mapped_bytes() > 0, !is_half);
  }
}

TEST(every_missing_tensor_is_named) {
  const TinyModel model;
  const std::vector<RawTensor> all = model.tensors();
  const TemporaryFolder folder;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<RawTensor> rest = all;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
    write(folder, model, rest);
    CHECK_THROWS(WallOss::load(folder.path()), CheckpointError,
                 join(": tensor ", all[i].name, ": missing").c_str());
    CHECK_THROWS(WallOss::load(folder.path()), CheckpointError, folder.path().c_str());
  }
}

TEST(every_tensor_of_a_wrong_shape_is_named) {
  const TinyModel model;
  const std::vector<RawTensor> all = model.tensors();
  const TemporaryFolder folder;
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<RawTensor> changed = all;
    changed[i].shape.back() += 1;
    changed[i].bytes.assign(static_cast<std::size_t>(num_elements(changed[i].shape)) * 4, '\0');
    write(folder, model, changed);
    const std::string found = join("found ", to_string(changed[i].shape));
    CHECK_THROWS(WallOss::load(folder.path()), CheckpointError,
                 join("tensor ", all[i].name, ": expected").c_str());
    CHECK_THROWS(WallOss::load(folder.path()), CheckpointError, found.c_str());
    CHECK_THROWS(WallOss::load(folder.path()), CheckpointError, folder.path().c_str());
  }
}

TEST(refuses_an_embedding_that_is_not_a_table) {
  const TinyModel model;
  const TemporaryFolder folder;
  for (const Shape& shape : {Shape{40 * 32}, Shape{}, Shape{0, 32}, Shape{40, 32, 1}}) {
    std::vector<RawTensor> tensors = model.tensors();
    for (RawTensor& tensor : tensors)
      if (tensor.name == "model.embed_tokens.weight") {
        tensor.shape = shape;
        tensor.bytes.assign(static_cast<std::size_t>(num_elements(shape)) * 4, '\0');
      }
    write(folder, model, tensors);
    CHECK_THROWS(
        WallOss::load(folder.path()), CheckpointError,
        join("tensor model.embed_tokens.weight: expected shape [tokens, 32], found ", to_string(shape))
            .c_str());
  }
}

TEST(refuses_a_surplus_tensor) {
  const TinyModel model;
  const TemporaryFolder folder;
  std::vector<RawTensor> tensors = model.tensors();
  tensors.push_back(floats("model.layers.2.input_layernorm.weight", {32}, std::vector<float>(32)));
  write(folder, model, tensors);
  CHECK_THROWS(
      WallOss::load(folder.path()), CheckpointError,
      "1 surplus tensors that this architecture does not have: model.layers.2.input_layernorm.weight [32]");
}

TEST(leaves_the_normalizer_to_python) {
  const TinyModel model;
  const TemporaryFolder folder;
  std::vector<RawTensor> tensors = model.tensors();
  tensors.push_back({"action_preprocessor.normalizer_action.min.x2", "F64", {4}, std::string(32, 0)});
  tensors.push_back(floats("action_preprocessor.normalizer_propri.delta.x2", {2}, {3, 4}));
  write(folder, model, tensors);
  const auto loaded = WallOss::load(folder.path());
  CHECK_EQ(loaded->weights().read("action_preprocessor.normalizer_propri.delta.x2")[1], 4.0f);
}

TEST(tied_heads_need_no_tensor_and_untied_ones_do) {
  const TemporaryFolder folder;
  TinyModel model;
  std::vector<RawTensor> tensors = model.tensors();
  tensors.push_back(floats("lm_head.weight", {1}, {0}));  // whatever it is: the reference ignores it too
  write(folder, model, tensors);
  CHECK_EQ(WallOss::load(folder.path())->language().vocab_size(), model.vocab);

  model.is_head_tied = false;
  write(folder, model, TinyModel().tensors());
  CHECK_THROWS(WallOss::load(folder.path()), CheckpointError,
               "tensor lm_head.weight: missing, expected shape [40, 32]");
  write(folder, model, tensors);
  CHECK_THROWS(WallOss::load(folder.path()), CheckpointError,
               "tensor lm_head.weight: expected shape [40, 32], found [1]");
  write(folder, model, model.tensors());
  CHECK_EQ(WallOss::load(folder.path())->language().vocab_size(), model.vocab);
}

}  // namespace wallx::test
