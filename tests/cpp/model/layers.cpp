// LayersTest: a layer has the same numbers packed while loading or mapped from a quantized file.
// SPDX-License-Identifier: Apache-2.0
#include "model/layers.hpp"

#include <algorithm>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/reference/reference_backend.hpp"
#include "base/errors.hpp"
#include "check.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

constexpr std::int64_t kIn = 26, kQ = 18, kKv = 7, kInner = 21, kPaddedInner = 24, kColumns = 40, kVocab = 37;

using Floats = std::vector<float>;

RawTensor random_tensor(const std::string& name, Shape shape) {
  std::mt19937 random(static_cast<unsigned>(name.size() + shape.back()));
  return {name, "F32", shape, bytes_of(random_values(random, num_elements(shape), 0.5f))};
}

// every kind of layer, each under its own name
std::vector<RawTensor> plain_tensors() {
  std::vector<RawTensor> out;
  const auto linear = [&](const std::string& name, std::int64_t rows, std::int64_t in, bool has_bias) {
    out.push_back(random_tensor(name + ".weight", {rows, in}));
    if (has_bias) out.push_back(random_tensor(name + ".bias", {rows}));
  };
  linear("o", 33, kIn, true);
  linear("q", kQ, kIn, true);
  linear("k", kKv, kIn, true);
  linear("v", kKv, kIn, true);
  linear("gate", kPaddedInner, kIn, true);
  linear("up", kPaddedInner, kIn, true);
  linear("w", 20, kColumns, false);
  out.push_back(random_tensor("patch.weight", {6, kIn / 2, 2}));
  linear("table", kVocab, kIn, false);
  return out;
}

// q, k and v, and gate and up, as one matrix each
std::vector<RawTensor> stacked_tensors() {
  std::vector<RawTensor> out = plain_tensors();
  const auto stack = [&](const std::string& to, const std::vector<std::string>& parts, const char* ending) {
    RawTensor whole{to + ending, "F32", {}, {}};
    for (const std::string& part : parts) {
      const auto at = std::ranges::find(out, part + ending, &RawTensor::name);
      if (whole.shape.empty()) {
        whole.shape = at->shape;
      } else {
        whole.shape[0] += at->shape[0];
      }
      whole.bytes += at->bytes;
      out.erase(at);
    }
    out.push_back(std::move(whole));
  };
  for (const char* ending : {".weight", ".bias"}) {
    stack("qkv", {"q", "k", "v"}, ending);
    stack("gate_up", {"gate", "up"}, ending);
  }
  return out;
}

struct Taken {
  std::vector<Linear> linears;
  GatedLinear gated;
};
Taken take(Layers& layers, Format format) {
  Taken taken;
  taken.linears.push_back(layers.linear("o", 33, kIn, true, format));
  for (const Linear& part : layers.stacked("qkv", {{"q", kQ}, {"k", kKv}, {"v", kKv}}, kIn, true, format))
    taken.linears.push_back(part);
  taken.gated = layers.gated("gate_up", "gate", "up", kPaddedInner, kInner, kIn, true, format);
  // both take their inputs from the same matrix
  taken.linears.push_back(layers.columns("w", 20, kColumns, 0, kIn, format));
  taken.linears.push_back(layers.columns("w", 20, kColumns, kIn, kColumns - kIn, format));
  taken.linears.push_back(layers.flat("patch.weight", {6, kIn / 2, 2}, format));
  const void* table = layers.table("table.weight", {kVocab, kIn});
  taken.linears.push_back(layers.tied_head("table.weight", {kVocab, kIn}, table));
  return taken;
}

// what the layers make of a few rows
Floats products(const Taken& taken, Backend& backend) {
  constexpr std::int64_t kRows = 3;
  const std::unique_ptr<Stream> stream = backend.make_stream();
  Floats out;
  std::mt19937 random(3);
  const auto rows_of = [&](const Linear& layer, Memory& given, Memory& memory) {
    const Floats x = random_values(random, kRows * layer.in, 1.0f);
    backend.upload(*stream, x.data(), reserve(backend, given, std::ssize(x)), x.size() * sizeof(float));
    const Rows rows = reserve_rows(backend, memory, layer.format, kRows, layer.in);
    backend.norm(*stream, given.as(), {}, rows);
    return rows;
  };
  const auto keep = [&](const float* y, std::int64_t count) {
    Floats values(static_cast<std::size_t>(count));
    backend.download(*stream, y, values.data(), values.size() * sizeof(float));
    out.insert(out.end(), values.begin(), values.end());
  };
  for (const Linear& layer : taken.linears) {
    Memory given, memory, y;
    const Rows x = rows_of(layer, given, memory);
    backend.product(*stream, x, layer, {}, reserve(backend, y, kRows * layer.out));
    keep(y.as(), kRows * layer.out);
  }
  Memory given, memory, y;
  const Rows x = rows_of(taken.gated.gate, given, memory);
  const Rows gated = reserve_rows(backend, y, Format::f32, kRows, taken.gated.out);
  backend.gated_product(*stream, x, taken.gated, gated);
  keep(static_cast<const float*>(gated.data), kRows * taken.gated.out);
  return out;
}

// one precision with this format everywhere
Precision precision_of(Format format) {
  return {"test",      format, format, format, format, format == Format::f32 ? Format::f32 : Format::bf16,
          Format::bf16};
}

struct Opened {
  Opened(const std::vector<RawTensor>& tensors, Format format, std::shared_ptr<Backend> on,
         std::size_t pad_to = 8)
      : backend(std::move(on)),
        weights(written(folder, tensors, pad_to)),
        layers(weights, *backend, precision_of(format)),
        taken(take(layers, format)) {}
  static std::string written(const TemporaryFolder& to, const std::vector<RawTensor>& tensors,
                             std::size_t pad_to) {
    to.write("model.safetensors", safetensors(tensors, pad_to));
    return to.path();
  }

  TemporaryFolder folder;
  std::shared_ptr<Backend> backend;
  Weights weights;
  Layers layers;
  Taken taken;
};

// what a quantized file has of these tensors
std::vector<RawTensor> quantized(const std::vector<RawTensor>& tensors, Format format) {
  const TemporaryFolder folder;
  folder.write("model.safetensors", safetensors(tensors));
  Weights weights(folder.path());
  CpuBackend backend({1, {}, ""});
  PackPlan plan;
  Layers layers(weights, backend, precision_of(format), &plan);
  const Taken taken = take(layers, format);
  for (const Linear& layer : taken.linears) CHECK(!layer);
  CHECK_EQ(layers.packed_bytes(), 0u);
  std::vector<RawTensor> out;
  for (const PackJob& job : plan.packs) {
    const std::int64_t panels = num_panels(job.source), group = format == Format::bf16 ? 2 : 4;
    const Shape columns{panels * kPanel};
    std::string bytes(static_cast<std::size_t>(job.panels_bytes()), '\0');
    Floats scale(static_cast<std::size_t>(columns[0])), bias(scale);
    std::vector<std::int32_t> offset(scale.size());
    run_job(job, {reinterpret_cast<std::byte*>(bytes.data()), scale.data(), offset.data(),
                  job.has_bias ? bias.data() : nullptr});
    const std::int64_t groups = job.panels_bytes() / panels / 64;
    out.push_back({job.name + ".panels",
                   format == Format::bf16 ? "BF16" : "I8",
                   {panels, groups, kPanel, group},
                   bytes});
    if (format != Format::bf16) {
      out.push_back({job.name + ".scale", "F32", columns, bytes_of(scale)});
      out.push_back({job.name + ".offset", "I32", columns, bytes_of(offset)});
    }
    if (job.has_bias) out.push_back({job.name + ".bias", "F32", columns, bytes_of(bias)});
  }
  for (const auto& [name, kept] : plan.copies) {
    RawTensor copy = *std::ranges::find(tensors, name, &RawTensor::name);
    if (kept == Format::bf16) {
      Floats values(static_cast<std::size_t>(num_elements(copy.shape)));
      std::memcpy(values.data(), copy.bytes.data(), copy.bytes.size());
      std::vector<std::uint16_t> halves;
      for (const float value : values) halves.push_back(to_bf16(value));
      copy.dtype = "BF16";
      copy.bytes = bytes_of(halves);
    }
    out.push_back(copy);
  }
  return out;
}

std::vector<std::shared_ptr<Backend>> backends() {
  return {std::make_shared<CpuBackend>(CpuOptions{2, {}, ""}), std::make_shared<ReferenceBackend>()};
}

constexpr Format kPacked[] = {Format::bf16, Format::int8, Format::w8};

}  // namespace

TEST(mapped_layers_have_the_bits_of_packed_ones) {
  for (const Format format : kPacked)
    for (const std::shared_ptr<Backend>& backend : backends()) {
      const Opened packed(plain_tensors(), format, backend);
      const Floats expected = products(packed.taken, *backend);
      CHECK(packed.layers.packed_bytes() > 0);
      const std::vector<RawTensor> file = quantized(plain_tensors(), format);
      for (const bool is_aligned : {true, false}) {
        std::vector<RawTensor> shifted = file;
        if (!is_aligned) shifted.insert(shifted.begin(), RawTensor{"pad", "F32", {1}, std::string(4, 0)});
        const Opened mapped(shifted, format, backend, 64);
        CHECK(products(mapped.taken, *backend) == expected);
        CHECK_EQ(mapped.layers.packed_bytes() == 0, is_aligned);  // what is not aligned is copied
        const bool is_in_place =
            mapped.taken.linears[0].weight == static_cast<const void*>(mapped.weights.entry("o.panels").data);
        CHECK_EQ(is_in_place, is_aligned && backend->shares_host_memory());
      }
    }
}

TEST(stacked_files_hold_the_same_layers) {
  for (const Format format : {Format::f32, Format::bf16, Format::int8, Format::w8})
    for (const std::shared_ptr<Backend>& backend : backends()) {
      const Opened plain(plain_tensors(), format, backend), stacked(stacked_tensors(), format, backend);
      CHECK(products(plain.taken, *backend) == products(stacked.taken, *backend));
    }
}

TEST(backends_agree_on_what_was_loaded) {
  for (const Format format : {Format::f32, Format::bf16, Format::int8, Format::w8}) {
    const auto both = backends();
    const Opened first(plain_tensors(), format, both[0]), second(plain_tensors(), format, both[1]);
    const Floats found = products(first.taken, *both[0]), expected = products(second.taken, *both[1]);
    REQUIRE(found.size() == expected.size());
    // a row of int8 may fall on the other side of a tie: one step of 1/127
    const float tolerance = format == Format::int8 ? 0.02f : 1e-5f;
    for (std::size_t i = 0; i < found.size(); ++i) CHECK_NEAR(found[i], expected[i], tolerance);
  }
}

TEST(a_quantized_tensor_of_another_kind_is_named) {
  const std::vector<RawTensor> file = quantized(plain_tensors(), Format::int8);
  const auto backend = backends().front();
  for (std::size_t i = 0; i < file.size(); ++i) {
    if (file[i].name == "table.weight") continue;  // its rows are told by the caller
    std::vector<RawTensor> changed = file;
    changed[i].dtype = file[i].dtype == "F32" ? "I32" : "F32";
    changed[i].bytes.assign(static_cast<std::size_t>(num_elements(file[i].shape)) * 4, '\0');
    CHECK_THROWS(Opened(changed, Format::int8, backend), CheckpointError,
                 join("tensor ", file[i].name, ": expected ").c_str());
    changed = file;
    changed[i].shape.back() *= 2;
    changed[i].bytes += changed[i].bytes;
    CHECK_THROWS(Opened(changed, Format::int8, backend), CheckpointError,
                 join("tensor ", file[i].name, ": expected ").c_str());
    if (file[i].name.ends_with(".panels"))
      continue;  // without it the layer is not packed: then its weights lack
    changed = file;
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    CHECK_THROWS(Opened(changed, Format::int8, backend), CheckpointError,
                 join("tensor ", file[i].name).c_str());
  }
}

}  // namespace wallx::test
