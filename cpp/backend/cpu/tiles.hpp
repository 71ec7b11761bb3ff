// Tiles: a table of one kernel for every number of rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstring>
#include <utility>

#include "backend/cpu/kernels.hpp"

namespace wallx::cpu {

// four bytes of a row, for broadcasts
inline std::int32_t group_of(const std::byte* at) {
  std::int32_t group;
  std::memcpy(&group, at, sizeof group);
  return group;
}

// {nullptr, Kernel<1>::run, ..., Kernel<kMaxTileRows>::run}
template <template <int> class Kernel, int... Rows>
constexpr std::array<TileKernel, sizeof...(Rows) + 1> tile_table(std::integer_sequence<int, Rows...>) {
  return {nullptr, &Kernel<Rows + 1>::run...};
}

}  // namespace wallx::cpu
