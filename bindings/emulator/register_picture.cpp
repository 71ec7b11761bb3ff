// draw_picture for Python: shapes as MuJoCo's arrays, one camera, one picture.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "bindings/emulator/register.hpp"
#include "emulator/picture.hpp"

namespace py = pybind11;

namespace wallx::emulator {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <class T>
void require_shape(const Array<T>& array, const char* name, py::ssize_t rows, py::ssize_t columns) {
  if (array.ndim() == 2 && array.shape(0) == rows && array.shape(1) == columns) return;
  throw ConfigError(std::string(name) + " must have the shape (" + std::to_string(rows) + ", " +
                    std::to_string(columns) + ")");
}

py::array_t<std::uint8_t> draw_picture(const Array<int>& kinds, const Array<double>& sizes,
                                       const Array<double>& positions, const Array<double>& rotations,
                                       const Array<float>& colours, const Array<int>& patterns,
                                       const Array<double>& eye, const Array<double>& axes, double fovy,
                                       int width, int height, int samples) {
  const py::ssize_t count = kinds.size();
  require_shape(sizes, "sizes", count, 3);
  require_shape(positions, "positions", count, 3);
  require_shape(rotations, "rotations", count, 9);
  require_shape(colours, "colours", count, 4);
  if (patterns.size() != count || eye.size() != 3 || axes.size() != 9)
    throw ConfigError("a picture needs one pattern a shape, and a camera with 3 and 9 numbers");
  const auto is_side = [](int side) { return side >= 1 && side <= 4096; };
  if (!is_side(width) || !is_side(height) || samples < 1 || samples > 4)
    throw ConfigError("a picture of " + std::to_string(width) + " x " + std::to_string(height) + " with " +
                      std::to_string(samples) + " samples; sides are 1 to 4096, samples 1 to 4");
  if (!(fovy > 0.01 && fovy < 3))
    throw ConfigError("fovy is " + std::to_string(fovy) + ", expected 0.01 to 3 rad");
  std::vector<Shape> shapes(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const int kind = kinds.data()[i];
    if (kind != 0 && (kind < 2 || kind > 6))
      throw ConfigError("shape " + std::to_string(i) + " is of kind " + std::to_string(kind) +
                        "; only planes, spheres, capsules, ellipsoids, cylinders and boxes are drawn");
    Shape& shape = shapes[i];
    shape.kind = static_cast<ShapeKind>(kind);
    std::copy_n(sizes.data() + 3 * i, 3, shape.size.begin());
    std::copy_n(positions.data() + 3 * i, 3, shape.position.begin());
    std::copy_n(rotations.data() + 9 * i, 9, shape.rotation.begin());
    std::copy_n(colours.data() + 4 * i, 4, shape.colour.begin());
    shape.pattern = patterns.data()[i];
  }
  View view{.fovy = fovy, .width = width, .height = height, .samples = samples};
  std::copy_n(eye.data(), 3, view.position.begin());
  std::copy_n(axes.data(), 9, view.rotation.begin());
  py::array_t<std::uint8_t> out({height, width, 3});
  const std::span<std::uint8_t> pixels(out.mutable_data(), static_cast<std::size_t>(out.size()));
  {
    const py::gil_scoped_release release;
    draw(shapes, view, pixels);
  }
  return out;
}

}  // namespace

void register_picture(py::module_& m) {
  m.def("draw_picture", &draw_picture, py::kw_only(), py::arg("kinds"), py::arg("sizes"),
        py::arg("positions"), py::arg("rotations"), py::arg("colours"), py::arg("patterns"), py::arg("eye"),
        py::arg("axes"), py::arg("fovy"), py::arg("width"), py::arg("height"), py::arg("samples") = 1);
}

}  // namespace wallx::emulator
