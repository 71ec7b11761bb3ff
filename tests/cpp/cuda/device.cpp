// Device: the backend under test is this machine's GPU; without one the tests are skipped, with the reason.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_backend.hpp"
#include "check.hpp"
#include "gpu.hpp"

namespace wallx::test {

Backend& gpu() {
  static const std::shared_ptr<Backend> backend = make_cuda_backend();
  return *backend;
}

}  // namespace wallx::test

int main(int argc, char** argv) {
  if (!wallx::has_cuda()) {
    std::printf("skipped: %s\n", wallx::cuda_status().c_str());
    return 77;
  }
  std::printf("%s\n", wallx::test::gpu().name().c_str());
  return wallx::test::run_all(argc > 1 ? argv[1] : nullptr);
}
