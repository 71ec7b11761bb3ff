// AllocationCounter: how often this test program asked for memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace wallx::test {

long allocations() noexcept;  // since the start, of all threads

}  // namespace wallx::test
