// AllocationCount: how often this thread of a test program has taken memory with `new`;
// feetech_allocation_test.cpp counts. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace wallx::test {

std::size_t allocations_on_this_thread() noexcept;

}  // namespace wallx::test
