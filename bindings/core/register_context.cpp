// Contexts for Python: prefill, denoising, text.
// SPDX-License-Identifier: Apache-2.0
#include "engine/context.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/errors.hpp"
#include "bindings/core/arrays.hpp"
#include "bindings/core/engine.hpp"
#include "bindings/core/flow.hpp"
#include "bindings/core/register.hpp"
#include "engine/text_decoder.hpp"

namespace wallx {
namespace {

py::dict to_dict(const Trace& trace) {
  py::dict out;
  for (const auto& [name, array] : trace.arrays()) {
    const auto width = static_cast<py::ssize_t>(array.width);
    out[py::str(name)] = to_array(array.data, {static_cast<py::ssize_t>(array.data.size()) / width, width});
  }
  return out;
}

py::object prefill(Context& self, const py::object& ids, const py::object& pixels, const py::object& grids,
                   std::int64_t state_token_id, const py::object& state, const py::object& state_mask,
                   bool is_traced, bool reuse) {
  const OwnPrompt prompt = to_prompt(ids, pixels, grids, state_token_id, state, state_mask);
  Trace trace;
  std::int64_t shared = 0;
  {
    py::gil_scoped_release release;
    shared = self.prefill(prompt.view(), is_traced ? &trace : nullptr, reuse);
  }
  if (is_traced) return to_dict(trace);
  return py::int_(shared);
}

py::object denoise(Context& self, const py::object& noise, const py::object& dof_mask, std::int64_t num_steps,
                   std::string attention, std::string time_grid, const py::object& padding_action,
                   std::optional<float> time_scale, std::optional<float> time_shift,
                   const py::object& previous, const py::object& guidance, std::int64_t num_frozen,
                   float max_guidance, bool is_traced) {
  OwnFlow flow = to_flow(noise, dof_mask,
                         {num_steps, std::move(attention), std::move(time_grid), padding_action, time_scale,
                          time_shift, previous, guidance, num_frozen, max_guidance});
  FlowSteps steps;
  Trace trace;
  {
    py::gil_scoped_release release;
    self.denoise(flow.noise, flow.mask, flow.horizon, flow.view(), is_traced ? &steps : nullptr,
                 is_traced ? &trace : nullptr);
  }
  const auto rows = static_cast<py::ssize_t>(flow.horizon);
  const std::vector<py::ssize_t> shape{rows, static_cast<py::ssize_t>(flow.noise.size()) / rows};
  const py::array_t<float> out = to_array(flow.noise, shape);
  if (!is_traced) return out;
  py::dict traced = to_dict(trace);
  const auto count = static_cast<py::ssize_t>(steps.times.size()) - 1;
  traced["times"] = to_array(steps.times, {count + 1});
  traced["t"] = to_array(std::vector<float>(steps.times.begin(), steps.times.end() - 1), {count});
  traced["x"] = to_array(steps.x, {count + 1, shape[0], shape[1]});
  traced["v"] = to_array(steps.v, {count, shape[0], shape[1]});
  traced["v_raw"] = to_array(steps.v_raw, {count, shape[0], shape[1]});
  if (!steps.condition.empty())
    traced["condition"] =
        to_array(steps.condition, {count, static_cast<py::ssize_t>(steps.condition.size()) / count});
  return py::make_tuple(out, traced);
}

const char* to_name(TextEnd end) {
  switch (end) {
    case TextEnd::none:
      return "none";
    case TextEnd::stop:
      return "stop";
    case TextEnd::budget:
      break;
  }
  return "budget";
}

}  // namespace

void register_context(py::module_& m) {
  py::class_<Timings>(m, "Timings", "How long the parts of a context's last calls took [s].")
      .def_readonly("vision", &Timings::vision)
      .def_readonly("prefill", &Timings::prefill)
      .def_readonly("steps", &Timings::steps)
      .def_readonly("decode", &Timings::decode)
      .def_readonly("logits", &Timings::logits);
  py::class_<Context, std::shared_ptr<Context>>(m, "Context", "The engine's state of one conversation.")
      .def(py::init([](const Engine& engine, std::int64_t max_tokens, const std::string& rope_layout) {
             return std::make_shared<Context>(engine.model, max_tokens, to_layout(rope_layout));
           }),
           py::arg("engine"), py::arg("max_tokens") = 2048, py::arg("rope_layout") = "hf")
      .def_property_readonly("length", &Context::length)
      .def_property_readonly("max_tokens", &Context::max_tokens)
      .def_property_readonly("timings", [](const Context& self) { return self.timings(); })
      .def_property_readonly("cache_bytes", &Context::cache_bytes)
      .def_property_readonly("num_pictures", &Context::num_pictures)
      .def("fork", &Context::fork)
      .def("prefill", &prefill, py::arg("ids"), py::arg("pixels") = Floats(0), py::arg("grids") = Integers(0),
           py::arg("state_token_id") = -1, py::arg("state") = Floats(0), py::arg("state_mask") = Floats(0),
           py::kw_only(), py::arg("trace") = false, py::arg("reuse") = true)
      .def("denoise", &denoise, py::arg("noise"), py::arg("dof_mask"), py::arg("num_steps") = 10,
           py::arg("attention") = "checkpoint", py::arg("time_grid") = "intervals", py::kw_only(),
           py::arg("padding_action") = py::none(), py::arg("time_scale") = py::none(),
           py::arg("time_shift") = py::none(), py::arg("previous") = py::none(),
           py::arg("guidance") = py::none(), py::arg("num_frozen") = 0, py::arg("max_guidance") = 10.0f,
           py::arg("trace") = false)
      .def("logits",
           [](Context& self) {
             py::array_t<float> out(self.model().language().vocab_size());
             const std::span<float> to{out.mutable_data(), static_cast<std::size_t>(out.size())};
             py::gil_scoped_release release;
             self.logits(to);
             return out;
           })
      .def("decode", &Context::decode, py::arg("id"), py::call_guard<py::gil_scoped_release>());

  py::class_<TextDecoder>(m, "TextDecoder", "Chooses one token after another.")
      .def(py::init([](Context& context, std::int64_t max_new_tokens, std::vector<std::int64_t> stop_ids,
                       float temperature, float top_p, std::uint64_t seed,
                       std::optional<std::pair<std::int64_t, std::int64_t>> allowed_ids) {
             return std::make_unique<TextDecoder>(
                 context,
                 to_text_options(max_new_tokens, std::move(stop_ids), temperature, top_p, seed, allowed_ids));
           }),
           py::arg("context"), py::kw_only(), py::arg("max_new_tokens") = 100,
           py::arg("stop_ids") = std::vector<std::int64_t>{}, py::arg("temperature") = 0.0f,
           py::arg("top_p") = 1.0f, py::arg("seed") = 0, py::arg("allowed_ids") = py::none(),
           py::keep_alive<1, 2>())
      .def("next", &TextDecoder::next, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("end", [](const TextDecoder& self) { return to_name(self.end()); });
}

}  // namespace wallx
