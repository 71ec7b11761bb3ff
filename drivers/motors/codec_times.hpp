// CodecTimes: what encoding a goal and decoding a state costs per motor; for the benchmark.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

namespace wallx {

// By motor family [s], of `rounds` cycles of six motors each; the answers are made here and checked. Blocks.
std::map<std::string, double> codec_times(int rounds);

}  // namespace wallx
