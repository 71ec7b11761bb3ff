// QuantizerTest: steps make what loading packs, aligned; scales go into weights, biases and vectors.
// SPDX-License-Identifier: Apache-2.0
#include "model/quantizer.hpp"

#include <cmath>
#include <cstring>

#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

std::size_t step_of(const Quantizer& quantizer, const std::string& name) {
  for (std::size_t step = 0; step < quantizer.num_steps(); ++step)
    if (quantizer.name(step) == name) return step;
  throw std::runtime_error("no step " + name);
}

std::size_t bytes(const PackedTensor& tensor) {
  return static_cast<std::size_t>(num_elements(tensor.shape)) * size_of(tensor.dtype);
}

std::vector<std::byte> make(const Quantizer& quantizer, const std::string& name) {
  const std::size_t step = step_of(quantizer, name);
  std::size_t size = 0;
  for (const PackedTensor& tensor : quantizer.tensors(step)) size += bytes(tensor);
  std::vector<std::byte> out(size);
  quantizer.make(step, out.data());
  return out;
}

struct Folder : TemporaryFolder {
  Folder() { TinyModel{}.write(*this); }
  Quantizer open(const std::string& precision, const std::vector<std::string>& wide = {}) const {
    return Quantizer(path(), {}, {}, {}, precision, wide);
  }
};

const std::string kQkv = "model.layers.0.self_attn.qkv_proj";

}  // namespace

TEST(packed_tensors_are_multiples_of_the_alignment) {
  const Folder folder;
  for (const char* precision : {"bf16", "int8", "mixed", "w8"}) {
    const Quantizer quantizer = folder.open(precision);
    for (std::size_t step = 0; step < quantizer.num_steps(); ++step) {
      if (!quantizer.is_layer(step)) continue;
      const std::vector<PackedTensor> tensors = quantizer.tensors(step);
      CHECK_EQ(tensors.front().name, quantizer.name(step) + ".panels");
      for (const PackedTensor& tensor : tensors) CHECK_EQ(bytes(tensor) % 64, 0u);
    }
  }
}

TEST(a_layer_that_is_named_stays_16_bit) {
  const Folder folder;
  const Quantizer quantizer = folder.open("int8", {"model.layers.0.*"});
  CHECK(quantizer.format(step_of(quantizer, kQkv)) == Format::bf16);
  CHECK(quantizer.format(step_of(quantizer, "model.layers.1.self_attn.qkv_proj")) == Format::int8);
  CHECK_EQ(quantizer.tensors(step_of(quantizer, kQkv)).size(), 2u);  // panels and bias, no scale
}

TEST(scales_of_outputs_go_into_scale_and_bias) {
  const Folder folder;
  const std::vector<std::byte> plain = make(folder.open("int8"), kQkv);
  Quantizer quantizer = folder.open("int8");
  const std::vector<PackedTensor> tensors = quantizer.tensors(step_of(quantizer, kQkv));
  REQUIRE(tensors.size() == 4);
  quantizer.scale_outputs(kQkv, std::vector<float>(64, 2.0f));  // (4 + 2 * 2) heads of 8
  const std::vector<std::byte> scaled = make(quantizer, kQkv);
  const auto* before = reinterpret_cast<const float*>(plain.data() + bytes(tensors[0]));
  const auto* after = reinterpret_cast<const float*>(scaled.data() + bytes(tensors[0]));
  CHECK(std::memcmp(plain.data(), scaled.data(), bytes(tensors[0])) == 0);
  const std::size_t bias = (bytes(tensors[1]) + bytes(tensors[2])) / 4;
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK_EQ(after[i], 2 * before[i]);
    CHECK_EQ(after[bias + i], 2 * before[bias + i]);
  }
}

TEST(scales_of_inputs_and_of_the_norm_before_cancel) {
  const Folder folder;
  const std::string norm = "model.layers.0.input_layernorm.weight";
  Quantizer quantizer = folder.open("bf16");
  quantizer.scale_inputs(kQkv, std::vector<float>(32, 4.0f));
  quantizer.scale_outputs(norm, std::vector<float>(32, 0.25f));
  const std::vector<std::byte> plain = make(folder.open("bf16"), kQkv), scaled = make(quantizer, kQkv);
  const std::size_t panels = bytes(quantizer.tensors(step_of(quantizer, kQkv)).front());
  for (std::size_t i = 0; i < panels; i += 2) {
    std::uint16_t before = 0, after = 0;
    std::memcpy(&before, plain.data() + i, 2);
    std::memcpy(&after, scaled.data() + i, 2);
    CHECK_EQ(from_bf16(after), 4 * from_bf16(before));
  }
  const std::vector<std::byte> vector = make(folder.open("bf16"), norm), divided = make(quantizer, norm);
  for (std::size_t i = 0; i < 32; ++i) {
    float before = 0, after = 0;
    std::memcpy(&before, vector.data() + 4 * i, 4);
    std::memcpy(&after, divided.data() + 4 * i, 4);
    CHECK_EQ(after, before / 4);
  }
}

TEST(scales_of_another_length_or_for_nobody_are_refused) {
  const Folder folder;
  Quantizer quantizer = folder.open("int8");
  CHECK_THROWS(quantizer.scale_inputs(kQkv, std::vector<float>(31, 1.0f)), ConfigError,
               "31 scales for 32 inputs");
  CHECK_THROWS(quantizer.scale_outputs(kQkv, {}), ConfigError, "0 scales for 64 outputs");
  CHECK_THROWS(quantizer.scale_inputs("model.absent", {}), ConfigError, "model.absent");
  CHECK_THROWS(quantizer.scale_outputs("model.absent", {}), ConfigError, "model.absent");
  CHECK_THROWS(folder.open("int4"), ConfigError, "int4");
}

}  // namespace wallx::test
