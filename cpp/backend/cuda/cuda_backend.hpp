// CudaBackend: operations on an NVIDIA GPU of compute capability 8.7, 8.9, 9.0 or 11.0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "backend/backend.hpp"

namespace wallx {

// One line: the GPU's name and capability, or why there is none. Never throws, and loads the driver only now.
std::string cuda_status();
// whether make_cuda_backend would succeed
bool has_cuda();

// On the process's first GPU. Operations are queued and never wait for the host, so that what has run once
// can be captured into a graph; an error of the device is thrown by the next call. Weights are panels as
// layout.hpp has them: the tensor cores take them as they lie. There: norm, product and gated_product of int8
// and bf16 weights, rotate_and_cache and cache_attention over bf16 with heads of up to 128 dims; anything
// else throws DeviceError, which names it. Throws DeviceError: no driver, no GPU, or one that the kernels are
// not built for.
std::shared_ptr<Backend> make_cuda_backend();

}  // namespace wallx
