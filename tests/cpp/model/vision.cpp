// VisionTest: the tower once more, in picture order and double precision, without windows as runs of rows.
// SPDX-License-Identifier: Apache-2.0
#include "model/vision.hpp"

#include <algorithm>

#include "check.hpp"
#include "model/wall_oss.hpp"
#include "naive_layers.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

// where a patch stands; patches of one token follow each other: two rows of two
struct Patch {
  std::int64_t picture, frame, row, column;  // [patches]
  bool is_beside(const Patch& other) const { return picture == other.picture && frame == other.frame; }
  bool shares_window(const Patch& other) const {  // of 4 x 4 patches = 8 px
    return is_beside(other) && row / 4 == other.row / 4 && column / 4 == other.column / 4;
  }
};

std::vector<Patch> patches_of(const std::vector<Grid>& grids) {
  std::vector<Patch> out;
  for (std::size_t p = 0; p < grids.size(); ++p)
    for (std::int64_t t = 0; t < grids[p][0]; ++t)
      for (std::int64_t y = 0; y < grids[p][1]; y += 2)
        for (std::int64_t x = 0; x < grids[p][2]; x += 2)
          for (const auto& [dy, dx] : {std::pair{0, 0}, {0, 1}, {1, 0}, {1, 1}})
            out.push_back({static_cast<std::int64_t>(p), t, y + dy, x + dx});
  return out;
}

Rows naive_vision(const WallOss& model, const std::vector<float>& pixels, const std::vector<Grid>& grids) {
  const NaiveLayers layers(model.weights());
  const std::vector<Patch> patches = patches_of(grids);
  const std::int64_t width = TinyModel::kPatchWidth;
  constexpr std::size_t kDim = 8, kHeads = 2;
  Rows hidden;
  for (std::size_t p = 0; p < patches.size(); ++p)
    hidden.push_back(layers.product("visual.patch_embed.proj",
                                    to_row(pixels.data() + static_cast<std::int64_t>(p) * width, width)));
  for (int i = 0; i < 2; ++i) {
    const std::string block = join("visual.blocks.", i, ".");
    Rows q[kHeads], k[kHeads], v[kHeads];  // of each head, every patch
    for (std::size_t p = 0; p < patches.size(); ++p) {
      const Row qkv = layers.product(block + "attn.qkv", layers.norm(block + "norm1", hidden[p]));
      // two frequencies of the row, then two of the column
      const auto y = static_cast<double>(patches[p].row), x = static_cast<double>(patches[p].column);
      const Row angles{y, y * 0.01, x, x * 0.01};
      for (std::size_t h = 0; h < kHeads; ++h) {
        q[h].push_back(rotate(head_of(qkv, h, kDim), angles));
        k[h].push_back(rotate(head_of(qkv, kHeads + h, kDim), angles));
        v[h].push_back(head_of(qkv, 2 * kHeads + h, kDim));
      }
    }
    for (std::size_t p = 0; p < patches.size(); ++p) {
      Row attended;
      for (std::size_t h = 0; h < kHeads; ++h) {
        Rows keys, values;
        for (std::size_t o = 0; o < patches.size(); ++o)
          // block 1 is the one with full attention
          if (i == 1 ? patches[p].is_beside(patches[o]) : patches[p].shares_window(patches[o])) {
            keys.push_back(k[h][o]);
            values.push_back(v[h][o]);
          }
        const Row head = attend(q[h][p], keys, values);
        attended.insert(attended.end(), head.begin(), head.end());
      }
      add(hidden[p], layers.product(block + "attn.proj", attended));
      add(hidden[p], layers.feed_forward(block + "mlp.", layers.norm(block + "norm2", hidden[p])));
    }
  }
  Rows out;
  for (std::size_t p = 0; p < patches.size(); p += 4) {
    Row merged;
    for (std::size_t n = p; n < p + 4; ++n) {
      const Row normed = layers.norm("visual.merger.ln_q", hidden[n]);
      merged.insert(merged.end(), normed.begin(), normed.end());
    }
    out.push_back(layers.product("visual.merger.mlp.2", gelu(layers.product("visual.merger.mlp.0", merged))));
  }
  return out;
}

}  // namespace

TEST(vision_equals_plain_loops_in_picture_order) {
  const TemporaryFolder folder;
  TinyModel().write(folder);
  const auto model = WallOss::load(folder.path());
  std::mt19937 random(21);
  double worst = 0;
  VisionWorkspace work;  // one for all, so that what a larger set left behind must not matter
  work.stream = model->backend()->make_stream();
  Memory seen;
  const std::vector<std::vector<Grid>> sets{
      {{1, 6, 10}, {1, 4, 4}}, {{1, 2, 2}}, {{2, 4, 6}, {1, 2, 8}}, {{1, 8, 8}}};
  for (const std::vector<Grid>& grids : sets) {
    const auto count = static_cast<std::int64_t>(patches_of(grids).size());
    const std::vector<float> pixels = random_values(random, count * TinyModel::kPatchWidth, 1.5f);
    std::vector<float> found(static_cast<std::size_t>(count / 4 * 32));
    float* out = reserve(*model->backend(), seen, std::ssize(found));
    model->vision().forward(pixels.data(), grids, work, out, nullptr);
    model->backend()->download(*work.stream, out, found.data(), found.size() * sizeof(float));
    const Rows expected = naive_vision(*model, pixels, grids);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double error = std::abs(static_cast<double>(found[i]) - expected[i / 32][i % 32]);
      worst = std::max(worst, error);
      CHECK(error <= 1e-5);
    }
  }
  std::printf("  worst difference %.1e (tolerance 1e-05)\n", worst);
}

}  // namespace wallx::test
