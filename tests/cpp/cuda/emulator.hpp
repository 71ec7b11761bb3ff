// Emulator: runs the GPU kernels' own source on the processor, a fiber for each thread of a block.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cuda/gpu_operations.hpp"

namespace wallx::test {

// What the threads of a warp hand to each other at one collective.
struct WarpExchange {
  int arrived = 0;  // threads, of all collectives so far
  // of this collective and of the one before, which slow threads still read
  struct {
    std::uint32_t a[32][4], b[32][2];
    float value[32];
  } slots[2] = {};
};

// One block's threads in turn, each until it waits for another. A block in which nobody can go on throws.
class FiberBlock {
 public:
  FiberBlock(int threads, std::size_t shared_bytes);
  ~FiberBlock();
  FiberBlock(const FiberBlock&) = delete;
  FiberBlock& operator=(const FiberBlock&) = delete;

  void run(const std::function<void(int thread)>& body);
  void yield();
  void arrive() { ++progress_; }

  std::byte* shared() { return shared_.data(); }
  std::size_t shared_bytes() const { return shared_.size(); }
  WarpExchange& warp(int thread) { return warps_[static_cast<std::size_t>(thread / 32)]; }

  int num_threads;
  std::int64_t at_barrier = 0;  // arrivals, of all barriers so far

 private:
  struct Fibers;
  std::vector<std::byte> shared_;
  std::vector<WarpExchange> warps_;
  std::unique_ptr<Fibers> fibers_;
  std::int64_t progress_ = 0;
};

// A Lane (backend/cuda/lane.hpp). Copies happen when they are waited for, and no sooner; matrix products are
// by the fragment tables of the PTX manual, element by element.
class EmulatedLane {
 public:
  EmulatedLane(FiberBlock& block, int thread, cuda::Grid at) : block_(block), thread_(thread), at_(at) {}

  int thread() const { return thread_; }
  int block(int axis) const { return axis == 0 ? at_.x : axis == 1 ? at_.y : at_.z; }
  void barrier();
  void copy(void* to, const void* from, bool is_there);
  void commit();
  template <int kNewest>
  void wait() {
    wait_for(kNewest);
  }
  void multiply(std::int32_t (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
  void multiply(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
  float exchange(float value, int mask);
  std::uint32_t two_bf16(float low, float high) const;

 private:
  struct Copy {
    void* to;
    const void* from;
    bool is_there;
  };
  void wait_for(std::size_t newest);
  int together();  // waits for the warp; the slot of this collective

  FiberBlock& block_;
  int thread_;
  cuda::Grid at_;
  std::int64_t barriers_ = 0, collectives_ = 0;
  std::vector<Copy> open_;
  std::vector<std::vector<Copy>> groups_;  // oldest first
};

// The CUDA backend's operations on the processor. Memory is the host's.
class EmulatedBackend : public cuda::GpuOperations<EmulatedBackend> {
 public:
  explicit EmulatedBackend(int num_cores) : num_cores_(num_cores) {}

  std::string name() const override { return "cuda, emulated"; }
  int num_cores() const { return num_cores_; }  // multiprocessors of the GPU that it stands for
  Memory allocate(std::size_t bytes) override;
  std::unique_ptr<Stream> make_stream() override { return std::make_unique<cuda::GpuStream>(); }
  void upload(Stream&, const void* host, void* device, std::size_t bytes) override;
  void download(Stream&, const void* device, void* host, std::size_t bytes) override;
  void copy(Stream&, const void* from, void* to, std::size_t bytes) override;
  void synchronize(Stream&) override {}

  template <class Kernel>
  void launch(Stream&, cuda::Grid grid, int shared_bytes, const typename Kernel::Arguments& args) {
    for (int z = 0; z < grid.z; ++z)
      for (int y = 0; y < grid.y; ++y)
        for (int x = 0; x < grid.x; ++x) {
          FiberBlock block(Kernel::kThreads, static_cast<std::size_t>(shared_bytes));
          block.run([&](int thread) {
            EmulatedLane lane(block, thread, {x, y, z});
            Kernel::run(lane, args, block.shared());
          });
        }
  }

 private:
  int num_cores_;
};

}  // namespace wallx::test
