// StopProfile: the discrete jerk-limited stop from a velocity and an acceleration, in closed form.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

namespace wallx {

// Motion is what the motors see: one position per period dt, with
//   a[i] = a[i-1] + j dt,  v[i] = v[i-1] + a[i] dt,  p[i] = p[i-1] + v[i] dt.
// Scaled by d = J dt, a stop is the sequence u[i] = a[i] / d (i = 1, 2, ..., and 0 for i > T)
//   u[i] = max(x - i, -h, min(0, i - T)),   x = a[0] / d, h = A / d,
// mirrored where the velocity left after ramping a to zero is negative: ramp down at full jerk, stay at full
// deceleration, ramp up at full jerk, with the real number T >= |x| chosen so that the velocity ends at zero.
// Every u[i] moves continuously and monotonically with T, so the stop depends continuously on (v, a). The
// profile from (v[1], a[1]) is the rest of the profile from (v[0], a[0]): who follows the first step of each
// period's stop follows one stop.
struct StopProfile {
  double sign = 1;    // -1: mirrored; everything below is in the mirrored frame
  double x = 0;       // acceleration before the first step            [J dt]
  double w = 0;       // velocity before the first step                [J dt^2]
  double h = 0;       // deceleration bound                            [J dt]
  double end = 0;     // T, time at which the acceleration is back at zero [dt]
  double moment = 0;  // sum of i u[i]
  double peak = 0;    // largest velocity of the stop, first state included  [J dt^2]

  // a in [rad/s^2], v in [rad/s]; bounds > 0
  static StopProfile from(double v, double a, double max_acceleration, double max_jerk, double dt) noexcept {
    const double d = max_jerk * dt;
    StopProfile stop;
    stop.x = a / d;
    stop.w = v / (d * dt);
    stop.h = max_acceleration / d;
    if (stop.w + coast(stop.x) < 0) {
      stop.sign = -1;
      stop.x = -stop.x;
      stop.w = -stop.w;
    }
    stop.peak = stop.w + (stop.x > 0 ? coast(stop.x) : 0.0);
    stop.solve();
    return stop;
  }

  // signed way from the first state to rest [J dt^3]; times sign
  double displacement() const noexcept { return sign * (-w - moment); }
  // acceleration of the first step [J dt]; times sign
  double first() const noexcept { return sign * std::max({x - 1, -h, std::min(0.0, 1 - end)}); }
  // where the motion turns when it starts backwards (w < 0, in the mirrored frame) [J dt^3]; 0: it does not
  // move back
  double backward_way() const noexcept {
    if (w >= 0) return 0;
    const double middle = x - 0.5;
    const double root = middle - std::sqrt(std::max(0.0, middle * middle + 2 * w));
    const double n = std::max(0.0, std::floor(root));  // last step with a velocity that is not forward
    return n * w + x * n * (n + 1) / 2 - n * (n + 1) * (n + 2) / 6;
  }

 private:
  struct Sums {
    double zeroth;  // sum of u[i]
    double first;   // sum of i u[i]
    double rising;  // how many u[i] lie on the last ramp: minus the slope of `zeroth` over T
  };

  // velocity gained while the acceleration goes straight to zero at full jerk [J dt^2]
  static double coast(double x) noexcept {
    const double n = std::floor(std::abs(x));
    return std::copysign(n * std::abs(x) - n * (n + 1) / 2, x);
  }
  static double upto(double n) noexcept { return n * (n + 1) / 2; }
  static double squares_upto(double n) noexcept { return n * (n + 1) * (2 * n + 1) / 6; }

  Sums sums(double t) const noexcept {
    const double down =
        std::max(0.0, std::floor(std::min((x + t) / 2, x + h)));  // last step of the first ramp
    const double up = std::max(down + 1, std::ceil(t - h));       // first step of the last ramp
    const double last = std::floor(t);
    const double rising = last - up + 1;
    return {down * x - upto(down) - h * (up - 1 - down) + upto(last) - upto(up - 1) - t * rising,
            x * upto(down) - squares_upto(down) - h * (upto(up - 1) - upto(down)) + squares_upto(last) -
                squares_upto(up - 1) - t * (upto(last) - upto(up - 1)),
            rising};
  }

  // `zeroth` is piecewise linear and falling in T: Newton inside a bracket ends on the right piece in a few
  // steps
  void solve() noexcept {
    double low = std::abs(x);
    Sums at = sums(low);
    if (w + at.zeroth <= 0) {  // coasting to zero is the stop
      end = low;
      moment = at.first;
      return;
    }
    // the same stop in continuous time
    const double energy = x >= 0 ? peak : std::max(0.0, w + x * x / 2);
    const double depth = std::min(std::sqrt(energy), h);
    double t = std::max(low, x + depth + energy / std::max(depth, 1e-300)) + 1;
    double high = t;
    for (int i = 0; i < 60 && w + sums(high).zeroth > 0; ++i) high = 2 * high + 1;
    t = high;
    const double enough = 4e-16 * (1 + std::abs(w));
    for (int i = 0; i < 60; ++i) {
      at = sums(t);
      const double left = w + at.zeroth;
      if (std::abs(left) <= enough) break;
      (left > 0 ? low : high) = t;
      const double next = at.rising > 0 ? t + left / at.rising : low;
      const double previous = t;
      t = next > low && next < high ? next : (low + high) / 2;
      if (t == previous) break;
    }
    end = t;
    moment = sums(t).first;
  }
};

}  // namespace wallx
