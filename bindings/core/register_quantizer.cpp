// Quantizer for Python: what a checkpoint becomes, step by step.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "base/errors.hpp"
#include "bindings/core/arrays.hpp"
#include "bindings/core/register.hpp"
#include "model/quantizer.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

const char* name_of(Format format) {
  switch (format) {
    case Format::f32:
      return "f32";
    case Format::bf16:
      return "bf16";
    case Format::int8:
      return "int8";
    case Format::w8:
      return "w8";
  }
  return "?";
}

std::size_t bytes_of(const std::vector<PackedTensor>& tensors) {
  std::size_t bytes = 0;
  for (const PackedTensor& tensor : tensors)
    bytes += static_cast<std::size_t>(num_elements(tensor.shape)) * size_of(tensor.dtype);
  return bytes;
}

std::size_t checked(const Quantizer& quantizer, std::size_t step) {
  if (step >= quantizer.num_steps())
    throw ConfigError("step is " + std::to_string(step) + ", there are " +
                      std::to_string(quantizer.num_steps()));
  return step;
}

std::vector<float> to_vector(const char* name, const py::object& object) {
  const Floats array = to_floats(name, object);
  return {array.data(), array.data() + array.size()};
}

}  // namespace

void register_quantizer(py::module_& m) {
  py::class_<Quantizer>(m, "Quantizer", "What a checkpoint becomes when its layers are packed, step by step.")
      .def(py::init<const std::string&, const Slots&, const Slots&, std::optional<bool>, const std::string&,
                    const std::vector<std::string>&>(),
           py::arg("directory"), py::arg("dof"), py::arg("agent_pos"), py::arg("is_state_text"),
           py::arg("precision"), py::arg("wide") = std::vector<std::string>{},
           py::call_guard<py::gil_scoped_release>())
      .def("__len__", &Quantizer::num_steps)
      .def_property_readonly("config", [](const Quantizer& q) { return q.config(); })
      .def(
          "name", [](const Quantizer& q, std::size_t step) { return q.name(checked(q, step)); },
          py::arg("step"))
      .def(
          "format", [](const Quantizer& q, std::size_t step) { return name_of(q.format(checked(q, step))); },
          py::arg("step"))
      .def(
          "is_layer", [](const Quantizer& q, std::size_t step) { return q.is_layer(checked(q, step)); },
          py::arg("step"))
      .def(
          "tensors",
          [](const Quantizer& q, std::size_t step) {
            py::list out;
            for (const PackedTensor& tensor : q.tensors(checked(q, step)))
              out.append(py::make_tuple(tensor.name, to_string(tensor.dtype), tensor.shape));
            return out;
          },
          py::arg("step"))
      .def(
          "make",
          [](const Quantizer& q, std::size_t step) {
            py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(bytes_of(q.tensors(checked(q, step)))));
            auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
            {
              const py::gil_scoped_release release;
              q.make(step, to);
            }
            return out;
          },
          py::arg("step"))
      .def(
          "scale_inputs",
          [](Quantizer& q, const std::string& layer, const py::object& scale) {
            q.scale_inputs(layer, to_vector("scale", scale));
          },
          py::arg("layer"), py::arg("scale"))
      .def(
          "scale_outputs",
          [](Quantizer& q, const std::string& layer, const py::object& scale) {
            q.scale_outputs(layer, to_vector("scale", scale));
          },
          py::arg("layer"), py::arg("scale"));
}

}  // namespace wallx
