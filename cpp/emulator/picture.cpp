// Picture: intersections, bounds on the screen, and light.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/picture.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace wallx::emulator {
namespace {

struct Vec {
  float x = 0, y = 0, z = 0;
  Vec operator+(Vec o) const { return {x + o.x, y + o.y, z + o.z}; }
  Vec operator-(Vec o) const { return {x - o.x, y - o.y, z - o.z}; }
  Vec operator*(float k) const { return {x * k, y * k, z * k}; }
};

float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
Vec unit(Vec a) { return a * (1 / std::sqrt(dot(a, a))); }
Vec vec(const std::array<double, 3>& a) {
  return {static_cast<float>(a[0]), static_cast<float>(a[1]), static_cast<float>(a[2])};
}

constexpr float kNone = std::numeric_limits<float>::infinity();
constexpr float kNear = 0.005f;    // nothing is seen closer to the lens [m]
constexpr float kWide = 1.25f;     // of a spot, against the shape's radius
constexpr float kLargest = 0.12f;  // radius of a shape that has one [m]
constexpr float kSpot = 0.05f;     // how far below a thing its dark spot reaches [m]
constexpr float kSquare = 0.05f;   // [m]

struct Hit {
  float distance = kNone;
  Vec normal;  // in the shape's own frame
};

// on the screen [samples], the last ones exclusive
struct Bounds {
  int left = 0, right = 0, top = 0, bottom = 0;
  bool is_empty() const { return left >= right || top >= bottom; }
};

// a shape with its camera-space ray constants
struct Body {
  ShapeKind kind;
  Vec size;
  Vec centre;  // [m]
  Vec axis_x, axis_y, axis_z;
  Vec eye;  // the camera in the shape's frame
  Vec colour;
  int pattern;
  Bounds seen;

  Vec to_own(Vec v) const { return {dot(v, axis_x), dot(v, axis_y), dot(v, axis_z)}; }
  Vec to_world(Vec v) const { return axis_x * v.x + axis_y * v.y + axis_z * v.z; }
};

void nearer(Hit& hit, float distance, Vec normal) {
  if (distance > kNear && distance < hit.distance) hit = {distance, normal};
}

void meet_plane(const Body& body, Vec o, Vec d, Hit& hit) {
  if (d.z >= 0 || o.z <= 0) return;  // seen from above only
  const float t = -o.z / d.z;
  const float x = o.x + t * d.x, y = o.y + t * d.y;
  if ((body.size.x > 0 && std::abs(x) > body.size.x) || (body.size.y > 0 && std::abs(y) > body.size.y))
    return;
  nearer(hit, t, {0, 0, 1});
}

void meet_sphere(Vec o, Vec d, float radius, Vec centre, Hit& hit) {
  const Vec to = o - centre;
  const float b = dot(to, d), c = dot(to, to) - radius * radius;
  const float discriminant = b * b - c;
  if (discriminant < 0) return;
  const float t = -b - std::sqrt(discriminant);
  nearer(hit, t, (to + d * t) * (1 / radius));
}

void meet_ellipsoid(const Body& body, Vec o, Vec d, Hit& hit) {
  const Vec k{1 / body.size.x, 1 / body.size.y, 1 / body.size.z};
  const Vec p{o.x * k.x, o.y * k.y, o.z * k.z}, q{d.x * k.x, d.y * k.y, d.z * k.z};
  const float a = dot(q, q), b = dot(p, q), c = dot(p, p) - 1;
  const float discriminant = b * b - a * c;
  if (discriminant < 0) return;
  const float t = (-b - std::sqrt(discriminant)) / a;
  const Vec at = p + q * t;
  nearer(hit, t, unit({at.x * k.x, at.y * k.y, at.z * k.z}));
}

// the side of a cylinder of half length `half`
void meet_side(Vec o, Vec d, float radius, float half, Hit& hit) {
  const float a = d.x * d.x + d.y * d.y;
  if (a < 1e-12f) return;
  const float b = o.x * d.x + o.y * d.y, c = o.x * o.x + o.y * o.y - radius * radius;
  const float discriminant = b * b - a * c;
  if (discriminant < 0) return;
  const float t = (-b - std::sqrt(discriminant)) / a;
  if (std::abs(o.z + t * d.z) > half) return;
  nearer(hit, t, {(o.x + t * d.x) / radius, (o.y + t * d.y) / radius, 0});
}

void meet_cylinder(const Body& body, Vec o, Vec d, Hit& hit) {
  const float radius = body.size.x, half = body.size.y;
  meet_side(o, d, radius, half, hit);
  if (std::abs(d.z) < 1e-9f) return;
  const float cap = d.z < 0 ? half : -half, t = (cap - o.z) / d.z;
  const float x = o.x + t * d.x, y = o.y + t * d.y;
  if (x * x + y * y <= radius * radius) nearer(hit, t, {0, 0, d.z < 0 ? 1.0f : -1.0f});
}

void meet_box(const Body& body, Vec o, Vec d, Hit& hit) {
  const float size[3] = {body.size.x, body.size.y, body.size.z}, from[3] = {o.x, o.y, o.z},
              along[3] = {d.x, d.y, d.z};
  float enter = -kNone, leave = kNone;
  int face = 0;
  for (int i = 0; i < 3; ++i) {
    if (std::abs(along[i]) < 1e-12f) {
      if (std::abs(from[i]) > size[i]) return;
      continue;
    }
    const float k = 1 / along[i], side = std::abs(k) * size[i];
    const float in = -from[i] * k - side, out = -from[i] * k + side;
    if (in > enter) enter = in, face = i;
    leave = std::min(leave, out);
  }
  if (enter > leave) return;
  float normal[3] = {0, 0, 0};
  normal[face] = along[face] > 0 ? -1.0f : 1.0f;
  nearer(hit, enter, {normal[0], normal[1], normal[2]});
}

Hit meet(const Body& body, Vec direction) {
  const Vec o = body.eye, d = body.to_own(direction);
  Hit hit;
  switch (body.kind) {
    case ShapeKind::plane:
      meet_plane(body, o, d, hit);
      break;
    case ShapeKind::sphere:
      meet_sphere(o, d, body.size.x, {}, hit);
      break;
    case ShapeKind::capsule:
      meet_side(o, d, body.size.x, body.size.y, hit);
      meet_sphere(o, d, body.size.x, {0, 0, body.size.y}, hit);
      meet_sphere(o, d, body.size.x, {0, 0, -body.size.y}, hit);
      break;
    case ShapeKind::ellipsoid:
      meet_ellipsoid(body, o, d, hit);
      break;
    case ShapeKind::cylinder:
      meet_cylinder(body, o, d, hit);
      break;
    case ShapeKind::box:
      meet_box(body, o, d, hit);
      break;
  }
  return hit;
}

// half lengths of the box around a shape, along its own axes; infinite for an endless plane
Vec extent(const Shape& shape) {
  const Vec s = vec(shape.size);
  switch (shape.kind) {
    case ShapeKind::plane:
      return s.x > 0 && s.y > 0 ? Vec{s.x, s.y, 0} : Vec{kNone, kNone, 0};
    case ShapeKind::sphere:
      return {s.x, s.x, s.x};
    case ShapeKind::capsule:
      return {s.x, s.x, s.x + s.y};
    case ShapeKind::cylinder:
      return {s.x, s.x, s.y};
    case ShapeKind::ellipsoid:
    case ShapeKind::box:
      return s;
  }
  return {kNone, kNone, kNone};
}

Vec patterned(const Body& body, Vec at) {
  if (body.pattern == 1) {
    const int squares =
        static_cast<int>(std::floor(at.x / kSquare)) + static_cast<int>(std::floor(at.y / kSquare));
    return body.colour * (squares & 1 ? 0.90f : 1.0f);
  }
  if (body.pattern == 2) {  // rings of a trunk, cut lengthwise
    const float ring = at.y * 130 + 1.7f * std::sin(at.x * 9 + 3 * std::sin(at.y * 21)) + at.z * 40;
    const float plank = std::floor(at.y / 0.09f);
    return body.colour * (0.94f + 0.035f * std::sin(ring) + 0.03f * std::sin(plank * 2.4f));
  }
  return body.colour;
}

class Canvas {
 public:
  Canvas(std::span<const Shape> shapes, const View& view)
      : view_(view),
        width_(view.width * view.samples),
        height_(view.height * view.samples),
        eye_(vec(view.position)) {
    const auto column = [](const std::array<double, 9>& m, std::size_t i) {
      return vec({m[i], m[3 + i], m[6 + i]});
    };
    right_ = column(view.rotation, 0), up_ = column(view.rotation, 1), back_ = column(view.rotation, 2);
    scale_ = static_cast<float>(2 * std::tan(view.fovy / 2) / height_);
    for (const Shape& shape : shapes) {
      if (shape.colour[3] <= 0) continue;
      Body body{.kind = shape.kind,
                .size = vec(shape.size),
                .centre = vec(shape.position),
                .axis_x = column(shape.rotation, 0),
                .axis_y = column(shape.rotation, 1),
                .axis_z = column(shape.rotation, 2),
                .eye = {},
                .colour = {shape.colour[0], shape.colour[1], shape.colour[2]},
                .pattern = shape.pattern,
                .seen = {}};
      body.eye = body.to_own(eye_ - body.centre);
      const Vec half = extent(shape);
      body.seen = bounds(body.centre, body.axis_x * half.x, body.axis_y * half.y, body.axis_z * half.z);
      if (!body.seen.is_empty()) bodies_.push_back(body);
      const float radius = std::sqrt(dot(half, half));
      if (!(radius <= kLargest)) continue;
      // a disc as wide as the spot, from the shape's middle down to where it fades out
      const float wide = kWide * radius, deep = 0.5f * (kSpot + radius);
      const Bounds reach = bounds(body.centre - Vec{0, 0, deep}, {wide, 0, 0}, {0, wide, 0}, {0, 0, deep});
      if (!reach.is_empty()) spots_.push_back({body.centre, radius, reach});
    }
  }

  void draw(std::span<std::uint8_t> out) const {
    const int samples = view_.samples;
    const float share = 1 / static_cast<float>(samples * samples);
    std::vector<Vec> sums(static_cast<std::size_t>(view_.width)), rays(static_cast<std::size_t>(width_));
    std::vector<Hit> hits(rays.size());
    std::vector<const Body*> seen(rays.size());
    std::vector<float> light(rays.size());
    for (int y = 0; y < view_.height; ++y) {
      std::fill(sums.begin(), sums.end(), Vec{});
      for (int sub = 0; sub < samples; ++sub) {
        const int line = y * samples + sub;
        look_along(line, rays, hits, seen);
        darken_along(line, rays, hits, seen, light);
        for (std::size_t x = 0; x < rays.size(); ++x) {
          Vec& sum = sums[x / static_cast<std::size_t>(samples)];
          sum = sum + colour(rays[x], hits[x], seen[x], light[x]);
        }
      }
      for (std::size_t x = 0; x < sums.size(); ++x) {
        const Vec mean = sums[x] * share;
        std::uint8_t* pixel = out.data() + 3 * (static_cast<std::size_t>(y) * sums.size() + x);
        const float channels[3] = {mean.x, mean.y, mean.z};
        for (int c = 0; c < 3; ++c)
          pixel[c] = static_cast<std::uint8_t>(std::clamp(channels[c], 0.0f, 1.0f) * 255 + 0.5f);
      }
    }
  }

 private:
  struct Spot {
    Vec centre;
    float radius;
    Bounds reach;
  };

  // of a box around a middle; empty: behind the camera or beside the picture
  Bounds bounds(Vec middle, Vec a, Vec b, Vec c) const {
    const Bounds all{0, width_, 0, height_};
    const float far = std::abs(dot(a, back_)) + std::abs(dot(b, back_)) + std::abs(dot(c, back_));
    const float depth = -dot(middle - eye_, back_);
    if (!(far < kNone)) return all;
    if (depth + far <= 0) return {};
    if (depth - far < kNear) return all;  // around the camera
    float low_x = kNone, high_x = -kNone, low_y = kNone, high_y = -kNone;
    for (int corner = 0; corner < 8; ++corner) {
      const Vec at = middle + a * (corner & 1 ? 1.0f : -1.0f) + b * (corner & 2 ? 1.0f : -1.0f) +
                     c * (corner & 4 ? 1.0f : -1.0f) - eye_;
      const float k = 1 / (-dot(at, back_) * scale_), x = dot(at, right_) * k, y = -dot(at, up_) * k;
      low_x = std::min(low_x, x), high_x = std::max(high_x, x);
      low_y = std::min(low_y, y), high_y = std::max(high_y, y);
    }
    const auto place = [](float at, int extent) {
      const float most = static_cast<float>(extent);
      return static_cast<int>(std::clamp(at + most / 2, 0.0f, most));
    };
    return {place(low_x - 1, width_), place(high_x + 2, width_), place(low_y - 1, height_),
            place(high_y + 2, height_)};
  }

  // the rays of one line of samples and what each meets first
  void look_along(int line, std::vector<Vec>& rays, std::vector<Hit>& hits,
                  std::vector<const Body*>& seen) const {
    const float v = (static_cast<float>(height_) / 2 - static_cast<float>(line) - 0.5f) * scale_;
    for (std::size_t x = 0; x < rays.size(); ++x) {
      const float u = (static_cast<float>(x) + 0.5f - static_cast<float>(width_) / 2) * scale_;
      rays[x] = unit(right_ * u + up_ * v - back_);
    }
    std::fill(hits.begin(), hits.end(), Hit{});
    std::fill(seen.begin(), seen.end(), nullptr);
    for (const Body& body : bodies_) {
      if (line < body.seen.top || line >= body.seen.bottom) continue;
      for (auto x = static_cast<std::size_t>(body.seen.left); x < static_cast<std::size_t>(body.seen.right);
           ++x) {
        const Hit hit = meet(body, rays[x]);
        if (hit.distance < hits[x].distance) hits[x] = hit, seen[x] = &body;
      }
    }
  }

  Vec colour(Vec direction, const Hit& hit, const Body* seen, float left) const {
    if (!seen) {
      const float high = std::clamp(0.5f + 0.5f * direction.z, 0.0f, 1.0f);
      return Vec{0.80f, 0.83f, 0.87f} * (1 - high) + Vec{0.62f, 0.72f, 0.84f} * high;
    }
    const Vec at = eye_ + direction * hit.distance, normal = seen->to_world(hit.normal);
    const Vec own = seen->to_own(at - seen->centre);
    const float lamp = std::max(0.0f, dot(normal, lamp_)), fill = std::max(0.0f, dot(normal, fill_));
    const float light = left * (0.42f + 0.10f * normal.z + 0.50f * lamp + 0.14f * fill);
    const Vec half = unit(lamp_ - direction);
    float shine = std::max(0.0f, dot(normal, half));
    for (int i = 0; i < 5; ++i) shine *= shine;
    shine *= seen->pattern ? 0.03f : 0.16f;
    return patterned(*seen, own) * light + Vec{shine, shine, shine};
  }

  // the light that is left on flat surfaces under what is near them
  void darken_along(int line, const std::vector<Vec>& rays, const std::vector<Hit>& hits,
                    const std::vector<const Body*>& seen, std::vector<float>& light) const {
    std::fill(light.begin(), light.end(), 1.0f);
    for (const Spot& spot : spots_) {
      if (line < spot.reach.top || line >= spot.reach.bottom) continue;
      const float wide = 1 / (kWide * spot.radius);
      for (auto x = static_cast<std::size_t>(spot.reach.left); x < static_cast<std::size_t>(spot.reach.right);
           ++x) {
        if (!seen[x]) continue;
        const Vec to = spot.centre - eye_ - rays[x] * hits[x].distance;
        if (to.z <= 0 || to.z > kSpot + spot.radius) continue;
        const float flat = std::sqrt(to.x * to.x + to.y * to.y) * wide;
        // its own top is level with its middle, or above
        if (flat >= 1 || seen[x]->to_world(hits[x].normal).z <= 0.95f) continue;
        const float near = 1 - std::max(0.0f, to.z - spot.radius) / kSpot;
        light[x] *= 1 - 0.35f * near * (1 - flat * flat) * (1 - flat * flat);
      }
    }
  }

  View view_;
  int width_, height_;  // [samples]
  Vec eye_, right_, up_, back_;
  Vec lamp_ = unit({0.35f, 0.45f, 0.85f}), fill_ = unit({-0.6f, -0.35f, 0.5f});
  float scale_ = 1;  // of a sample on the plane at distance 1
  std::vector<Body> bodies_;
  std::vector<Spot> spots_;
};

}  // namespace

void draw(std::span<const Shape> shapes, const View& view, std::span<std::uint8_t> out) {
  Canvas(shapes, view).draw(out);
}

}  // namespace wallx::emulator
