// Picture: what a camera sees of a world of primitive shapes, by casting rays; no graphics driver, the same
// bits each time. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace wallx::emulator {

enum class ShapeKind : std::uint8_t {
  plane = 0,
  sphere = 2,
  capsule = 3,
  ellipsoid = 4,
  cylinder = 5,
  box = 6
};

// One primitive, numbered and sized as MuJoCo's geoms are: half lengths; along its own z for capsule and
// cylinder.
struct Shape {
  ShapeKind kind = ShapeKind::box;
  std::array<double, 3> size{};      // [m]
  std::array<double, 3> position{};  // of its centre [m]
  std::array<double, 9> rotation{};  // its axes as columns, row-major
  std::array<float, 4> colour{};     // RGBA 0..1; alpha 0 is not seen, between is as good as 1
  int pattern = 0;                   // 0: plain, 1: fine squares, 2: wood
};

// Looks along its own -z, y up.
struct View {
  std::array<double, 3> position{};  // [m]
  std::array<double, 9> rotation{};  // its axes as columns, row-major
  double fovy = 0.8;                 // vertical field of view [rad]
  int width = 0, height = 0;         // [pixels]
  int samples = 1;                   // per pixel and side
};

// Two soft lamps that stand still, and a dark spot under what is near a flat surface; no shadows.
// Deterministic. `out`: RGB   (height, width, 3). Sizes were checked by the caller.
void draw(std::span<const Shape> shapes, const View& view, std::span<std::uint8_t> out);

}  // namespace wallx::emulator
