// CudaAbsent: what a build without the CUDA backend says when it is asked for.
// SPDX-License-Identifier: Apache-2.0
#ifndef WALLX_CUDA
#include "backend/cuda/cuda_backend.hpp"
#include "base/errors.hpp"

namespace wallx {

bool has_cuda() { return false; }
std::string cuda_status() {
  return "no GPU: this build has no CUDA backend, set WALLX_CUDA=ON (docs/cuda.md)";
}
std::shared_ptr<Backend> make_cuda_backend() { throw DeviceError("cuda: " + cuda_status()); }

}  // namespace wallx
#endif
