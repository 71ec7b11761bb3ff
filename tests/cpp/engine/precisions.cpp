// PrecisionsTest: every precision is the reference's network and near fp32, and one bad layer shows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <map>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/naive.hpp"
#include "backend/reference/reference_backend.hpp"
#include "check.hpp"
#include "tiny_engine.hpp"

namespace wallx::test {
namespace {

// A tolerance on root mean squares, as a share of the expected ones. WALLX_TOL_SCALE multiplies it: 0 shows
// residuals.
struct Tolerance {
  const char* precision;
  double backends;  // between a backend and the reference, which rounds the same weights
  double fp32;      // between the reference and itself in fp32
};
constexpr Tolerance kTolerances[] = {
    {"fp32", 1.5e-6, 0},  {"bf16", 0.03, 0.05},  {"fp16", 0.03, 0.05},
    {"int8", 0.08, 0.08}, {"mixed", 0.06, 0.08}, {"w8", 0.03, 0.08},
};

constexpr double kGain = 0.01;  // of any tensor of a sound network

std::vector<TinyModel> kinds() { return {TinyModel(), TinyModel::mixture(), TinyModel::adaptive()}; }

Model load(const TinyModel& model, const std::string& precision, std::shared_ptr<Backend> backend) {
  const TemporaryFolder folder;
  model.write(folder);
  return WallOss::load(folder.path(), {}, {}, {}, {precision, std::move(backend)});
}

// What a network makes of the robot's prompt: every traced tensor, scores, actions.
using Outcome = std::map<std::string, Floats>;

Outcome outcome_of(const Model& model) {
  constexpr std::int64_t kHorizon = 6;
  Context context(model, 64, RopeLayout::hf);
  Outcome out;
  const auto keep = [&](const std::string& prefix, const Trace& trace) {
    for (const auto& [name, array] : trace.arrays()) out[prefix + name] = array.data;
  };
  Trace prefill, first_step;
  context.prefill(robot_prompt().view(), &prefill);
  keep("prefill ", prefill);
  out["scores"] = logits_of(context);
  const Floats padding{0.5f, -0.25f, 1, -1};
  FlowOptions options;
  options.num_steps = 4;
  if (model->config().does_pad_masked_dims) options.padding_action = padding;
  Floats actions = noise_of(kHorizon);
  context.denoise(actions, mask_of(kHorizon), kHorizon, options, nullptr, &first_step);
  keep("denoise ", first_step);
  out["actions"] = actions;
  context.decode(9);
  out["scores of the next token"] = logits_of(context);
  return out;
}

double residual_of(const Floats& found, const Floats& expected) {
  if (found.size() != expected.size()) return INFINITY;
  double error = 0, size = 1e-30;
  for (std::size_t i = 0; i < found.size(); ++i) {
    error += std::pow(static_cast<double>(found[i]) - expected[i], 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(error / size);
}

// By which share the found values are too large or too small as a whole: rounding averages out, a scale does
// not.
double gain_of(const Floats& found, const Floats& expected) {
  if (found.size() != expected.size()) return INFINITY;
  double common = 1e-30, size = 1e-30;
  for (std::size_t i = 0; i < found.size(); ++i) {
    common += static_cast<double>(found[i]) * expected[i];
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::abs(common / size - 1);
}

struct Worst {
  double residual = 0;
  std::string where = "none";
};
using Measure = double (*)(const Floats& found, const Floats& expected);
Worst worst_of(const Outcome& found, const Outcome& expected, Measure measure = residual_of) {
  if (found.size() != expected.size()) return {INFINITY, "number of tensors"};
  Worst worst;
  for (const auto& [name, values] : expected) {
    const auto at = found.find(name);
    const double residual = at == found.end() ? INFINITY : measure(at->second, values);
    if (!(residual <= worst.residual)) worst = {residual, name};  // NaN stays
  }
  return worst;
}

// One layer with scales is computed with scales that are too large.
class Skewed : public CpuBackend {
 public:
  explicit Skewed(std::size_t index) : CpuBackend({1, {}, ""}), index_(index) {}
  std::size_t num_layers() const { return seen_.size(); }

  void product(Stream& stream, const Rows& x, const Linear& layer, const Epilogue& epilogue, float* y,
               std::int64_t y_stride) override {
    CpuBackend::product(stream, x, skewed(layer), epilogue, y, y_stride);
  }
  void gated_product(Stream& stream, const Rows& x, const GatedLinear& layer, const Rows& y) override {
    CpuBackend::gated_product(stream, x, {skewed(layer.gate), layer.up, layer.out}, y);
  }

 private:
  Linear skewed(Linear layer) {
    if (!layer.scale) return layer;
    const auto at = std::find(seen_.begin(), seen_.end(), layer.weight);
    const auto index = static_cast<std::size_t>(at - seen_.begin());
    if (at == seen_.end()) seen_.push_back(layer.weight);
    if (index != index_) return layer;
    scale_.assign(layer.scale, layer.scale + padded_outputs(layer.out));
    for (float& one : scale_) one *= 1.05f;
    layer.scale = scale_.data();
    return layer;
  }

  std::size_t index_;
  std::vector<const void*> seen_;  // weights of layers with scales, in the order of their first use
  Floats scale_;
};

}  // namespace

TEST(every_precision_agrees_with_the_reference_on_every_kernel_set) {
  for (const Tolerance& tolerance : kTolerances) {
    Worst worst;
    for (const TinyModel& kind : kinds()) {
      const Outcome expected =
          outcome_of(load(kind, tolerance.precision, std::make_shared<ReferenceBackend>()));
      for (const cpu::Kernels* kernels : cpu::available_kernels()) {
        const CpuOptions options{2, {}, kernels->name};
        const Worst one = worst_of(
            outcome_of(load(kind, tolerance.precision, std::make_shared<CpuBackend>(options))), expected);
        CHECK(one.residual <= scaled(tolerance.backends));
        if (!(one.residual <= worst.residual)) worst = {one.residual, one.where + " on " + kernels->name};
      }
    }
    std::printf("  %s: worst residual %.1e, %s (tolerance %.1e)\n", tolerance.precision, worst.residual,
                worst.where.c_str(), tolerance.backends);
  }
}

TEST(every_precision_stays_near_fp32) {
  for (const Tolerance& tolerance : kTolerances) {
    Worst worst;
    for (const TinyModel& kind : kinds()) {
      const Worst one =
          worst_of(outcome_of(load(kind, tolerance.precision, std::make_shared<ReferenceBackend>())),
                   outcome_of(load(kind, "fp32", std::make_shared<ReferenceBackend>())));
      CHECK(one.residual <= scaled(tolerance.fp32));
      if (!(one.residual <= worst.residual)) worst = one;
    }
    std::printf("  %s: worst residual %.1e, %s (tolerance %.1e)\n", tolerance.precision, worst.residual,
                worst.where.c_str(), tolerance.fp32);
  }
}

TEST(scales_of_one_layer_off_by_five_percent_are_found) {
  for (const Tolerance& tolerance : kTolerances) {
    for (const TinyModel& kind : kinds()) {
      const Outcome expected =
          outcome_of(load(kind, tolerance.precision, std::make_shared<ReferenceBackend>()));
      const auto gain = [&](std::size_t index, std::size_t& num_layers) {
        const auto backend = std::make_shared<Skewed>(index);
        const Worst worst = worst_of(outcome_of(load(kind, tolerance.precision, backend)), expected, gain_of);
        num_layers = backend->num_layers();
        return worst;
      };
      std::size_t num_layers = 0;
      const Worst sound = gain(1000, num_layers);
      CHECK(sound.residual <= kGain);
      Worst least{INFINITY, "none"};
      for (std::size_t i = 0; i < num_layers; ++i) {
        const Worst found = gain(i, num_layers);
        CHECK(found.residual > 2 * sound.residual);
        if (found.residual < least.residual) least = found;
      }
      if (num_layers)
        std::printf("  %s: %zu layers, least gain %.1e in %s, sound ones %.1e in %s (bound %.1e)\n",
                    tolerance.precision, num_layers, least.residual, least.where.c_str(), sound.residual,
                    sound.where.c_str(), kGain);
    }
  }
}

}  // namespace wallx::test
