// TickScale: ticks <-> SI of one servo; zero is the middle of the calibrated range.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/joint.hpp"
#include "drivers/motors/feetech/register_table.hpp"

namespace wallx::feetech {

class TickScale {
 public:
  TickScale() = default;
  explicit TickScale(const JointCalibration& calibration) noexcept
      : middle_((calibration.range_min + calibration.range_max) / 2.0),
        sign_(calibration.drive_mode != 0 ? -1 : 1) {}

  double to_rad(double ticks) const noexcept { return sign_ * (ticks - middle_) * kRadPerTick; }
  double to_ticks(double rad) const noexcept { return middle_ + sign_ * rad / kRadPerTick; }
  double sign() const noexcept { return sign_; }  // for velocity and load, which have no zero to shift

 private:
  double middle_ = 0;  // [ticks]
  double sign_ = 1;
};

}  // namespace wallx::feetech
