// The weights for Python, and the index arithmetic that `verify` checks by itself.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/fp32.hpp"
#include "backend/cuda/cuda_backend.hpp"
#include "base/errors.hpp"
#include "bindings/core/arrays.hpp"
#include "bindings/core/engine.hpp"
#include "bindings/core/register.hpp"
#include "model/action_head.hpp"
#include "model/input_maxima.hpp"
#include "model/positions.hpp"
#include "model/safetensors.hpp"
#include "model/variant.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

py::array to_numpy(const TensorEntry& entry) {
  const char* format = nullptr;
  switch (entry.dtype) {
    case Dtype::f64:
      format = "float64";
      break;
    case Dtype::f32:
      format = "float32";
      break;
    case Dtype::f16:
      format = "float16";
      break;
    case Dtype::bf16:
      throw CheckpointError("tensor " + entry.name + ": numpy has no BF16; read it through an Engine");
    case Dtype::i64:
      format = "int64";
      break;
    case Dtype::i32:
      format = "int32";
      break;
    case Dtype::i16:
      format = "int16";
      break;
    case Dtype::i8:
      format = "int8";
      break;
    case Dtype::u8:
      format = "uint8";
      break;
    case Dtype::boolean:
      format = "bool";
      break;
  }
  py::array out(py::dtype(format), entry.shape);
  std::copy_n(entry.data, entry.num_bytes, static_cast<std::byte*>(out.mutable_data()));
  return out;
}

void register_config(py::module_& m) {
  py::class_<Variant>(m, "Variant", "One published form of the network.")
      .def_readonly("name", &Variant::name)
      .def_readonly("checkpoints", &Variant::checkpoints)
      .def_readonly("has_expert_attention", &Variant::has_expert_attention)
      .def_readonly("has_adaptive_norms", &Variant::has_adaptive_norms)
      .def_readonly("is_state_text", &Variant::is_state_text)
      .def_readonly("is_time_scaled", &Variant::is_time_scaled)
      .def_readonly("does_pad_masked_dims", &Variant::does_pad_masked_dims)
      .def_readonly("open_choices", &Variant::open_choices);
  m.def("variants", [] { return std::vector<Variant>(variants().begin(), variants().end()); });
  py::class_<VisionConfig>(m, "VisionConfig", "Dimensions of the vision tower.")
      .def_readonly("depth", &VisionConfig::depth)
      .def_readonly("hidden_size", &VisionConfig::hidden_size)
      .def_readonly("num_heads", &VisionConfig::num_heads)
      .def_readonly("intermediate_size", &VisionConfig::intermediate_size)
      .def_readonly("in_channels", &VisionConfig::in_channels)
      .def_readonly("patch_size", &VisionConfig::patch_size)
      .def_readonly("temporal_patch_size", &VisionConfig::temporal_patch_size)
      .def_readonly("spatial_merge_size", &VisionConfig::spatial_merge_size)
      .def_readonly("window_size", &VisionConfig::window_size)
      .def_readonly("full_attention_blocks", &VisionConfig::full_attention_blocks);
  py::class_<ModelConfig>(m, "ModelConfig", "Dimensions and slots of a checkpoint, from its config.json.")
      .def_static("load", &ModelConfig::load, py::arg("directory"), py::arg("dof") = Slots{},
                  py::arg("agent_pos") = Slots{}, py::arg("is_state_text") = std::nullopt)
      .def_readonly("architecture", &ModelConfig::architecture)
      .def_readonly("hidden_size", &ModelConfig::hidden_size)
      .def_readonly("num_layers", &ModelConfig::num_layers)
      .def_readonly("num_heads", &ModelConfig::num_heads)
      .def_readonly("num_kv_heads", &ModelConfig::num_kv_heads)
      .def_readonly("head_dim", &ModelConfig::head_dim)
      .def_readonly("expert_widths", &ModelConfig::expert_widths)
      .def_readonly("expert_sizes", &ModelConfig::expert_sizes)
      .def_readonly("action_width", &ModelConfig::action_width)
      .def_readonly("state_width", &ModelConfig::state_width)
      .def_readonly("condition_width", &ModelConfig::condition_width)
      .def_readonly("has_expert_attention", &ModelConfig::has_expert_attention)
      .def_readonly("has_adaptive_norms", &ModelConfig::has_adaptive_norms)
      .def_readonly("is_state_text", &ModelConfig::is_state_text)
      .def_readonly("is_action_causal", &ModelConfig::is_action_causal)
      .def_readonly("does_project_mask", &ModelConfig::does_project_mask)
      .def_readonly("does_predict_actions", &ModelConfig::does_predict_actions)
      .def_readonly("does_pad_masked_dims", &ModelConfig::does_pad_masked_dims)
      .def_readonly("time_scale", &ModelConfig::time_scale)
      .def_readonly("time_shift", &ModelConfig::time_shift)
      .def_readonly("horizon", &ModelConfig::horizon)
      .def_readonly("mrope_section", &ModelConfig::mrope_section)
      .def_readonly("is_head_tied", &ModelConfig::is_head_tied)
      .def_readonly("image_token_id", &ModelConfig::image_token_id)
      .def_readonly("vision_start_token_id", &ModelConfig::vision_start_token_id)
      .def_readonly("vision", &ModelConfig::vision)
      .def_readonly("dof", &ModelConfig::dof)
      .def_readonly("agent_pos", &ModelConfig::agent_pos)
      .def_readonly("unknown_keys", &ModelConfig::unknown_keys)
      .def_property_readonly("action_dim", &ModelConfig::action_dim)
      .def_property_readonly("state_dim", &ModelConfig::state_dim);
}

void register_weights(py::module_& m) {
  py::class_<Engine, std::shared_ptr<Engine>>(
      m, "Engine", "The weights of one checkpoint, shared by any number of contexts.")
      .def_static(
          "load",
          [](const std::string& directory, const Slots& dof, const Slots& agent_pos,
             std::optional<bool> is_state_text, const std::string& precision, int threads,
             const std::vector<int>& cores, const std::string& kernels, bool does_observe) {
            const CpuOptions cpu{threads, cores, kernels};
            LoadOptions options{precision, nullptr};
            if (does_observe) {
              options.backend = std::make_shared<InputMaxima>(cpu);
            } else {
              options.backend = std::make_shared<CpuBackend>(cpu);
            }
            return std::make_shared<Engine>(
                Engine{WallOss::load(directory, dof, agent_pos, is_state_text, options)});
          },
          py::arg("directory"), py::arg("dof") = Slots{}, py::arg("agent_pos") = Slots{},
          py::arg("is_state_text") = std::nullopt, py::arg("precision") = "", py::arg("threads") = 0,
          py::arg("cores") = std::vector<int>{}, py::arg("kernels") = "",
          py::arg("does_observe") = false, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("precision", [](const Engine& e) { return e.model->precision().name; })
      .def_property_readonly("backend", [](const Engine& e) { return e.model->backend()->name(); })
      .def_property_readonly("input_maxima",
                             [](const Engine& e) {
                               const auto* observed = dynamic_cast<const InputMaxima*>(e.model->backend().get());
                               if (!observed) throw ConfigError("the engine was not loaded to observe inputs");
                               py::dict out;
                               for (const auto& [weight, largest] : observed->found())
                                 if (const auto name = e.model->weights().taken().find(weight);
                                     name != e.model->weights().taken().end())
                                   out[py::str(name->second)] =
                                       to_array(largest, {static_cast<py::ssize_t>(largest.size())});
                               return out;
                             })
      .def_property_readonly("num_threads",
                             [](const Engine& e) {
                               const auto* cpu = dynamic_cast<const CpuBackend*>(e.model->backend().get());
                               return cpu ? cpu->num_threads() : 0;
                             })
      .def_property_readonly("is_bf16_native",
                             [](const Engine& e) {
                               const auto* cpu = dynamic_cast<const CpuBackend*>(e.model->backend().get());
                               return !cpu || cpu->kernels().is_bf16_native;
                             })
      .def_property_readonly("packed_bytes", [](const Engine& e) { return e.model->packed_bytes(); })
      .def_property_readonly("config", [](const Engine& e) { return e.model->config(); })
      .def_property_readonly("vocab_size", [](const Engine& e) { return e.model->language().vocab_size(); })
      .def_property_readonly("tensor_names", [](const Engine& e) { return e.model->weights().names(); })
      .def_property_readonly("mapped_bytes",
                             [](const Engine& e) { return e.model->mapped_bytes(); })
      .def_property_readonly("widened_bytes",
                             [](const Engine& e) { return e.model->weights().widened_bytes(); })
      .def(
          "tensor",
          [](const Engine& e, const std::string& name) {
            const Shape& shape = e.model->weights().entry(name).shape;
            return to_array(e.model->weights().read(name), {shape.begin(), shape.end()});
          },
          py::arg("name"))
      .def_property_readonly("metadata", [](const Engine& e) { return e.model->weights().metadata(); });
}

void register_positions(py::module_& m) {
  m.def(
      "mrope_positions",
      [](const py::object& ids_like, const py::object& mask_like, const py::object& grids,
         const ModelConfig& config) {
        const Integers ids = to_integers("ids", ids_like);
        const Integers mask = to_integers("mask", mask_like);
        if (ids.ndim() != 2 || mask.ndim() != 2 || ids.shape(0) != mask.shape(0) ||
            ids.shape(1) != mask.shape(1))
          throw ConfigError("ids and mask must both have shape (batch, tokens)");
        const py::ssize_t batch = ids.shape(0), tokens = ids.shape(1);
        const std::vector<Grid> parsed = to_grids(grids);
        py::array_t<std::int64_t> positions({py::ssize_t{3}, batch, tokens});
        py::array_t<std::int64_t> deltas({batch, py::ssize_t{1}});
        std::size_t next_grid = 0;
        for (py::ssize_t b = 0; b < batch; ++b) {
          const auto length = static_cast<std::size_t>(tokens);
          const MropePositions row =
              mrope_positions({ids.data(b, 0), length}, {mask.data(b, 0), length}, parsed, next_grid, config);
          std::copy(row.time.begin(), row.time.end(), positions.mutable_data(0, b, 0));
          std::copy(row.height.begin(), row.height.end(), positions.mutable_data(1, b, 0));
          std::copy(row.width.begin(), row.width.end(), positions.mutable_data(2, b, 0));
          deltas.mutable_at(b, 0) = row.next - tokens;
        }
        return py::make_tuple(positions, deltas);
      },
      py::arg("ids"), py::arg("mask"), py::arg("grids"), py::arg("config"));
  m.def(
      "window_order",
      [](const py::object& grids, const ModelConfig& config) {
        const WindowOrder order = window_order(to_grids(grids), config.vision);
        return py::make_tuple(to_array(order.index, {static_cast<py::ssize_t>(order.index.size())}),
                              to_array(order.offsets, {static_cast<py::ssize_t>(order.offsets.size())}));
      },
      py::arg("grids"), py::arg("config"));
  m.def(
      "rotary_tables",
      [](const py::object& positions_like, const ModelConfig& config, const std::string& layout) {
        const Integers positions = to_integers("positions", positions_like);
        if (positions.ndim() != 2 || positions.shape(0) != 3)
          throw ConfigError("positions must have shape (3, tokens)");
        const py::ssize_t tokens = positions.shape(1);
        MropePositions parsed;
        parsed.time.assign(positions.data(0, 0), positions.data(0, 0) + tokens);
        parsed.height.assign(positions.data(1, 0), positions.data(1, 0) + tokens);
        parsed.width.assign(positions.data(2, 0), positions.data(2, 0) + tokens);
        std::vector<float> cos, sin;
        rotary_tables(parsed, config, to_layout(layout), cos, sin);
        const std::vector<py::ssize_t> shape{tokens, static_cast<py::ssize_t>(config.head_dim)};
        return py::make_tuple(to_array(cos, shape), to_array(sin, shape));
      },
      py::arg("positions"), py::arg("config"), py::arg("rope_layout") = "hf");
  m.def(
      "apply_rotary",
      [](const py::object& x_like, const py::object& cos_like, const py::object& sin_like) {
        const Floats x = to_floats("x", x_like);
        const Floats cos = to_floats("cos", cos_like);
        const Floats sin = to_floats("sin", sin_like);
        if (x.ndim() != 3 || cos.ndim() != 2 || sin.ndim() != 2 || cos.shape(0) != x.shape(0) ||
            cos.shape(1) != x.shape(2) || sin.shape(0) != cos.shape(0) || sin.shape(1) != cos.shape(1))
          throw ConfigError("x must have shape (tokens, heads, head_dim), cos and sin (tokens, head_dim)");
        py::array_t<float> out({x.shape(0), x.shape(1), x.shape(2)});
        std::copy_n(x.data(), x.size(), out.mutable_data());
        cpu::apply_rotary(out.mutable_data(), x.shape(0), x.shape(1) * x.shape(2), x.shape(1), x.shape(2),
                     {cos.data(), sin.data()});
        return out;
      },
      py::arg("x"), py::arg("cos"), py::arg("sin"));
  m.def(
      "time_embedding",
      [](float time, std::int64_t width) {
        if (width < 4 || width % 2)
          throw ConfigError("width is " + std::to_string(width) + ", expected an even number from 4");
        py::array_t<float> out(width);
        time_embedding(time, width, out.mutable_data());
        return out;
      },
      py::arg("time"), py::arg("width"));
  m.def("precisions", &Precision::names);
  m.def("kernels", [] {
    std::vector<std::string> names;
    for (const cpu::Kernels* kernels : cpu::available_kernels()) names.push_back(kernels->name);
    return names;
  });
  m.def("cuda_status", &cuda_status);
  m.def(
      "read_safetensors",
      [](const std::string& path) {
        const SafetensorsFile file(path);
        py::dict out;
        for (const TensorEntry& entry : file.tensors()) out[py::str(entry.name)] = to_numpy(entry);
        return out;
      },
      py::arg("path"));
}

}  // namespace

void register_engine(py::module_& m) {
  register_config(m);
  register_weights(m);
  register_positions(m);
}

}  // namespace wallx
