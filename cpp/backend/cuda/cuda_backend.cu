// CudaBackend: memory, streams and launches by the CUDA runtime.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_backend.hpp"

#include <cuda_runtime.h>

#include <new>

#include "backend/cuda/cuda_lane.cuh"
#include "backend/cuda/gpu_operations.hpp"

namespace wallx {
namespace cuda {
namespace {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocks)
    entry(const __grid_constant__ typename Kernel::Arguments args) {
  extern __shared__ __align__(128) std::byte shared[];
  CudaLane lane;
  Kernel::run(lane, args, shared);
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call begins clean
  throw DeviceError(std::string("cuda: ") + what + ": " + cudaGetErrorString(error));
}

struct CudaStream : GpuStream {
  CudaStream() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make_stream"); }
  // an upload by a stream of its own has arrived when that stream is gone
  ~CudaStream() override {
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t stream = nullptr;
};

cudaStream_t handle(Stream& stream) { return static_cast<CudaStream&>(stream).stream; }

class CudaBackend : public GpuOperations<CudaBackend> {
 public:
  CudaBackend() {
    check(cudaGetDevice(&device_), "device");
    check(cudaDeviceGetAttribute(&num_cores_, cudaDevAttrMultiProcessorCount, device_), "device");
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, entry<NormKernel>), "kernels for this GPU");
  }

  std::string name() const override { return "cuda " + cuda_status(); }
  int num_cores() const { return num_cores_; }

  Memory allocate(std::size_t bytes) override {
    if (bytes == 0) return {};
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw std::bad_alloc();
    }
    check(error, "allocate");
    Memory memory{data, bytes, [](void* at, std::size_t) { cudaFree(at); }};
    check(cudaMemset(data, 0, bytes), "allocate");
    check(cudaDeviceSynchronize(), "allocate");  // streams do not wait for the memset by themselves
    return memory;
  }

  std::unique_ptr<Stream> make_stream() override { return std::make_unique<CudaStream>(); }

  // from memory that is not pinned: the host's bytes are taken before it returns
  void upload(Stream& stream, const void* host, void* device, std::size_t bytes) override {
    if (bytes) check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, handle(stream)), "upload");
  }
  void download(Stream& stream, const void* device, void* host, std::size_t bytes) override {
    if (bytes)
      check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, handle(stream)), "download");
    synchronize(stream);
  }
  void copy(Stream& stream, const void* from, void* to, std::size_t bytes) override {
    if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, handle(stream)), "copy");
  }
  void synchronize(Stream& stream) override { check(cudaStreamSynchronize(handle(stream)), "synchronize"); }

  template <class Kernel>
  void launch(Stream& stream, Grid grid, int shared_bytes, const typename Kernel::Arguments& args) {
    constexpr int kAlways = 48 << 10;
    if (shared_bytes > kAlways)
      check(cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
            "launch");
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                      static_cast<unsigned>(grid.z));
    entry<Kernel><<<blocks, Kernel::kThreads, static_cast<std::size_t>(shared_bytes), handle(stream)>>>(args);
    check(cudaGetLastError(), "launch");
  }

 private:
  int device_ = 0;
  int num_cores_ = 0;
};

}  // namespace
}  // namespace cuda

bool has_cuda() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  return error == cudaSuccess && count > 0;
}

std::string cuda_status() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return std::string("no GPU: ") + cudaGetErrorString(error);
  }
  if (count == 0) return "no GPU: the driver finds none";
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess || cudaGetDeviceProperties(&properties, device) != cudaSuccess)
    return std::string("no GPU: ") + cudaGetErrorString(cudaGetLastError());
  return std::string(properties.name) + " sm_" + std::to_string(properties.major) +
         std::to_string(properties.minor);
}

std::shared_ptr<Backend> make_cuda_backend() {
  if (!has_cuda())
    throw DeviceError("cuda: " + cuda_status() + "; use the cpu backend or install NVIDIA's driver");
  return std::make_shared<cuda::CudaBackend>();
}

}  // namespace wallx
