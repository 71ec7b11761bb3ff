// LayoutsTest: fused, padded and larger files hold the same network; what is missing in any of them is named.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/errors.hpp"
#include "check.hpp"
#include "model/wall_oss.hpp"
#include "tiny_layouts.hpp"

namespace wallx::test {
namespace {

using Loaded = std::shared_ptr<const WallOss>;

Loaded load(const TinyModel& model, const std::vector<RawTensor>& tensors, const Slots& dof = {},
            const Slots& agent_pos = {}) {
  const TemporaryFolder folder;
  folder.write("config.json", model.config().text());
  folder.write("model.safetensors", safetensors(tensors));
  return WallOss::load(folder.path(), dof, agent_pos);
}

// final norms of both experts and what the vision tower sees, to the bit
std::vector<float> fingerprint(const WallOss& model) {
  const Language& language = model.language();
  std::vector<float> out;
  Backend& backend = *model.backend();
  const std::shared_ptr<Stream> stream = backend.make_stream();
  const auto upload = [&](const std::vector<float>& from, float* to) {
    backend.upload(*stream, from.data(), to, from.size() * sizeof(float));
  };
  const auto download = [&](const float* from, std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    backend.download(*stream, from, values.data(), values.size() * sizeof(float));
    out.insert(out.end(), values.begin(), values.end());
  };
  LanguageWorkspace work;
  work.stream = stream;
  KvCache cache = language.empty_cache();
  Memory condition, seen;
  upload(std::vector(16, 0.25f), reserve(backend, condition, 16));
  for (const Expert expert : {Expert::text, Expert::action}) {
    constexpr std::int64_t kRows = 5;
    const std::int64_t width = language.width(expert);
    language.reserve(work, kRows);
    std::mt19937 random(6);
    const std::vector<float> hidden = random_values(random, kRows * width, 1.0f);
    upload(hidden, work.hidden.as());
    const auto angles = static_cast<std::size_t>(kRows * model.config().head_dim);
    language.set_rotary(work, std::vector(angles, 0.6f), std::vector(angles, 0.8f));
    cache.append(kRows);
    language.forward({kRows, expert, true, condition.as()}, work, cache, nullptr);
    download(work.normed.as(), kRows * width);
  }
  std::mt19937 random(7);
  const Grid grid{1, 4, 6};
  const std::vector<float> pixels = random_values(random, 24 * TinyModel::kPatchWidth, 1.0f);
  VisionWorkspace vision;
  vision.stream = stream;
  const std::int64_t count = 6 * model.config().hidden_size;
  model.vision().forward(pixels.data(), {&grid, 1}, vision, reserve(backend, seen, count), nullptr);
  download(seen.as(), count);
  return out;
}

}  // namespace

TEST(fused_files_hold_the_same_network_without_a_copy) {
  for (const TinyModel& model : {TinyModel(), TinyModel::mixture(), TinyModel::adaptive()}) {
    const std::vector<RawTensor> plain = model.tensors(), stacked = fused(plain);
    CHECK(stacked.size() < plain.size());
    const Loaded loaded = load(model, stacked);
    CHECK(fingerprint(*loaded) == fingerprint(*load(model, plain)));
    CHECK_EQ(loaded->weights().widened_bytes(), 0u);
  }
}

TEST(padded_vision_files_hold_the_same_network) {
  const TinyModel model = TinyModel::mixture();
  const std::vector<float> expected = fingerprint(*load(model, model.tensors()));
  const auto near = [&](const std::vector<RawTensor>& tensors) {
    const std::vector<float> found = fingerprint(*load(model, tensors));
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], 2e-6f);
  };
  near(padded(model.tensors()));
  near(fused(padded(model.tensors())));
  // only the rows are padded
  CHECK(fingerprint(*load(model, fused(padded(model.tensors(), false)))) == expected);
}

TEST(every_missing_or_misshapen_tensor_of_a_mixture_is_named) {
  for (const TinyModel& model : {TinyModel::mixture(), TinyModel::adaptive()})
    for (const bool is_fused : {false, true}) {
      const std::vector<RawTensor> all = is_fused ? fused(model.tensors()) : model.tensors();
      for (std::size_t i = 0; i < all.size(); ++i) {
        std::vector<RawTensor> rest = all;
        rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
        // of a fused matrix the parts are asked for
        const bool is_stacked = is_fused && all[i].name.ends_with(".weight") &&
                                (all[i].name.find("qkv_proj_") != std::string::npos ||
                                 all[i].name.find("gate_up_proj") != std::string::npos);
        CHECK_THROWS(load(model, rest), CheckpointError,
                     is_stacked ? ": missing" : join(": tensor ", all[i].name, ": missing").c_str());
        std::vector<RawTensor> changed = all;
        changed[i].shape.back() += 1;
        changed[i].bytes.assign(static_cast<std::size_t>(num_elements(changed[i].shape)) * 4, '\0');
        CHECK_THROWS(load(model, changed), CheckpointError,
                     join("tensor ", all[i].name, ": expected shape").c_str());
      }
    }
}

TEST(a_tensor_in_both_layouts_is_surplus) {
  const TinyModel model = TinyModel::mixture();
  std::vector<RawTensor> tensors = fused(model.tensors());
  for (const RawTensor& tensor : model.tensors())
    if (tensor.name == "model.layers.0.moe.experts.1.up_proj.weight") tensors.push_back(tensor);
  CHECK_THROWS(load(model, tensors), CheckpointError, "1 surplus tensors");
}

TEST(slots_given_by_the_caller_set_the_action_head) {
  TinyModel model = TinyModel::mixture();
  model.is_state_text = true;
  const std::vector<RawTensor> tensors = model.tensors();
  const TemporaryFolder folder;
  folder.write("config.json", model.config().erase("dof_config").erase("agent_pos_config").text());
  folder.write("model.safetensors", safetensors(tensors));
  CHECK_THROWS(WallOss::load(folder.path()), CheckpointError, "dof_config: missing; mot-0.5 checkpoints may");
  CHECK_THROWS(WallOss::load(folder.path(), {{"arm", 3}}), CheckpointError,
               "w1.weight: expected shape [12, 6]");
  CHECK_EQ(WallOss::load(folder.path(), {{"arm", 4}})->config().action_dim(), 4);
  // a state token needs its slots too
  model.is_state_text = false;
  folder.write("config.json", model.config().erase("agent_pos_config").text());
  folder.write("model.safetensors", safetensors(model.tensors()));
  CHECK_THROWS(WallOss::load(folder.path()), CheckpointError, "agent_pos_config: missing");
  CHECK_EQ(WallOss::load(folder.path(), {}, {{"arm", 5}})->config().state_dim(), 5);
}

TEST(statistics_and_unused_projections_are_left_alone) {
  TinyModel model = TinyModel::mixture();
  std::vector<RawTensor> tensors = model.tensors();  // with a projection of the state
  model.is_state_text = true;
  tensors.push_back({"normalizers.normalizer_action.min.x2", "F64", {1}, std::string(8, 0)});
  tensors.push_back({"action_preprocessor.normalizer_propri.delta.x2", "F32", {1}, std::string(4, 0)});
  CHECK_EQ(load(model, tensors)->config().architecture, "mot-0.5");
}

}  // namespace wallx::test
