// PeakTest: every loop of this processor ends and says what it did; what cannot be measured is refused.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/peak.hpp"

#include <cmath>
#include <limits>
#include <set>

#include "base/errors.hpp"
#include "check.hpp"

namespace wallx::test {
TEST(every_loop_that_this_processor_has_can_be_run) {
  std::set<PeakKind> kinds;
  for (const PeakLoop& loop : peak_loops()) {
    CHECK(loop.operations > 0);
    if (!loop.is_supported()) continue;
    loop.run(3);
    CHECK(loop.width() >= 0);
    kinds.insert(loop.kind);
  }
  CHECK(kinds.count(PeakKind::fp32) == 1);
  CHECK(kinds.count(PeakKind::clock) == 1);
}

TEST(a_peak_is_a_number_with_the_name_of_an_instruction) {
  for (const PeakKind kind :
       {PeakKind::int8, PeakKind::bf16, PeakKind::fp32, PeakKind::read, PeakKind::clock}) {
    CHECK(to_peak_kind(to_string(kind)) == kind);
    try {
      const Peak peak = measure_peak(kind, 1, 0.01);
      CHECK(std::isfinite(peak.rate) && peak.rate > 0);
      CHECK(peak.instruction[0] != '\0');
    } catch (const ConfigError& error) {
      // an older processor has no products of these two
      CHECK(kind == PeakKind::int8 || kind == PeakKind::bf16);
      CHECK(std::string(error.what()).find("has no instruction for the peak of") != std::string::npos);
    }
  }
}

TEST(what_cannot_be_measured_is_refused) {
  CHECK_THROWS(to_peak_kind("fp64"), ConfigError, "peak of 'fp64', expected int8, bf16, fp32, read or clock");
  CHECK_THROWS(measure_peak(PeakKind::fp32, 0, 0.01), ConfigError, "threads is 0, expected 1 to");
  CHECK_THROWS(measure_peak(PeakKind::fp32, 1 << 20, 0.01), ConfigError,
               "processors that this process may use");
  for (const double seconds : {0.0, -1.0, 61.0, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS(measure_peak(PeakKind::fp32, 1, seconds), ConfigError,
                 "expected more than 0 and at most 60");
}

}  // namespace wallx::test
