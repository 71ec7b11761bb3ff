// Emulator: fibers, and the tensor core's product by the tables of the PTX manual.
// SPDX-License-Identifier: Apache-2.0
#include "emulator.hpp"

#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>

#include "backend/pack.hpp"

namespace wallx::test {

struct FiberBlock::Fibers {
  static constexpr std::size_t kStackBytes = 64 << 10;
  ucontext_t scheduler{};
  std::vector<ucontext_t> contexts;
  std::vector<std::byte> stacks;
  std::vector<char> is_done;
  int current = 0;
  const std::function<void(int)>* body = nullptr;
  std::exception_ptr error;

  static void enter(unsigned high, unsigned low) {
    auto& self = *reinterpret_cast<Fibers*>(static_cast<std::uintptr_t>(high) << 32 | low);
    const int thread = self.current;
    try {
      (*self.body)(thread);
    } catch (...) {
      self.error = std::current_exception();
    }
    self.is_done[static_cast<std::size_t>(thread)] = 1;
    swapcontext(&self.contexts[static_cast<std::size_t>(thread)], &self.scheduler);
  }
};

FiberBlock::FiberBlock(int threads, std::size_t shared_bytes)
    : num_threads(threads),
      shared_(shared_bytes, std::byte{0xFF}),  // NaN: nothing may count on zeros
      warps_(static_cast<std::size_t>(threads / 32)),
      fibers_(std::make_unique<Fibers>()) {}
FiberBlock::~FiberBlock() = default;

void FiberBlock::run(const std::function<void(int)>& body) {
  Fibers& f = *fibers_;
  const auto count = static_cast<std::size_t>(num_threads);
  f.contexts.resize(count);
  f.stacks.resize(count * Fibers::kStackBytes);
  f.is_done.assign(count, 0);
  f.body = &body;
  const auto self = reinterpret_cast<std::uintptr_t>(&f);
  for (std::size_t i = 0; i < count; ++i) {
    getcontext(&f.contexts[i]);
    f.contexts[i].uc_stack.ss_sp = f.stacks.data() + i * Fibers::kStackBytes;
    f.contexts[i].uc_stack.ss_size = Fibers::kStackBytes;
    f.contexts[i].uc_link = nullptr;
    makecontext(&f.contexts[i], reinterpret_cast<void (*)()>(&Fibers::enter), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  }
  // A warp goes on alone for as long as it can: what a missing barrier would let happen, happens.
  for (std::size_t left = count; left > 0;) {
    bool has_moved = false;
    for (std::size_t warp = 0; warp < count; warp += 32)
      for (std::int64_t before = -1; before != progress_;) {
        before = progress_;
        for (std::size_t i = warp; i < warp + 32; ++i) {
          if (f.is_done[i]) continue;
          f.current = static_cast<int>(i);
          swapcontext(&f.scheduler, &f.contexts[i]);
          if (f.error) std::rethrow_exception(f.error);
          if (!f.is_done[i]) continue;
          --left;
          ++progress_;
        }
        has_moved |= before != progress_;
      }
    if (!has_moved && left > 0)
      throw std::runtime_error(
          "a block's threads wait for each other for ever: not all reach the same barrier");
  }
}

void FiberBlock::yield() {
  Fibers& f = *fibers_;
  swapcontext(&f.contexts[static_cast<std::size_t>(f.current)], &f.scheduler);
}

void EmulatedLane::barrier() {
  ++block_.at_barrier;
  block_.arrive();
  ++barriers_;
  while (block_.at_barrier < barriers_ * block_.num_threads) block_.yield();
}

void EmulatedLane::copy(void* to, const void* from, bool is_there) {
  const auto at = static_cast<std::byte*>(to) - block_.shared();
  if (at < 0 || at % 16 != 0 || static_cast<std::size_t>(at) + 16 > block_.shared_bytes())
    throw std::runtime_error("copy to byte " + std::to_string(at) + " of " +
                             std::to_string(block_.shared_bytes()) +
                             " shared ones, expected 16 aligned ones inside");
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0)
    throw std::runtime_error("copy from an unaligned address");
  open_.push_back({to, from, is_there});
  // what is on its way is not there yet
  std::memset(to, 0xFF, 16);
}

void EmulatedLane::commit() {
  groups_.push_back(std::move(open_));
  open_.clear();
}

void EmulatedLane::wait_for(std::size_t newest) {
  while (groups_.size() > newest) {
    for (const Copy& copy : groups_.front()) {
      if (copy.is_there) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    groups_.erase(groups_.begin());
  }
}

int EmulatedLane::together() {
  WarpExchange& warp = block_.warp(thread_);
  ++warp.arrived;
  block_.arrive();
  const std::int64_t all = (++collectives_) * 32;
  while (warp.arrived < all) block_.yield();
  return static_cast<int>((collectives_ - 1) % 2);
}

namespace {

// PTX manual, matrix fragments of mma.m16n8k32 with .s8: byte e of a thread's first operand (16 bytes) is at
int int8_row_of_a(int lane, int e) { return lane / 4 + (e < 4 || (8 <= e && e < 12) ? 0 : 8); }
int int8_depth_of_a(int lane, int e) { return lane % 4 * 4 + e % 4 + (e < 8 ? 0 : 16); }
// and of its second (8 bytes)
int int8_depth_of_b(int lane, int e) { return lane % 4 * 4 + e % 4 + (e < 4 ? 0 : 16); }
// mma.m16n8k16 with .bf16: element e of the first (8 elements) and of the second (4)
int bf16_row_of_a(int lane, int e) { return lane / 4 + (e < 2 || (4 <= e && e < 6) ? 0 : 8); }
int bf16_depth_of_a(int lane, int e) { return lane % 4 * 2 + e % 2 + (e < 4 ? 0 : 8); }
int bf16_depth_of_b(int lane, int e) { return lane % 4 * 2 + e % 2 + (e < 2 ? 0 : 8); }
// both: the column of the second operand, and element e of the sums
int column_of_b(int lane) { return lane / 4; }
int row_of_sum(int lane, int e) { return lane / 4 + (e < 2 ? 0 : 8); }
int column_of_sum(int lane, int e) { return lane % 4 * 2 + e % 2; }

// where the element of a row or column at a depth is: thread and element
struct Place {
  int lane, element;
};
struct Tables {
  Place int8_a[16][32], int8_b[8][32], bf16_a[16][16], bf16_b[8][16];
  Tables() {
    for (int lane = 0; lane < 32; ++lane) {
      for (int e = 0; e < 16; ++e) int8_a[int8_row_of_a(lane, e)][int8_depth_of_a(lane, e)] = {lane, e};
      for (int e = 0; e < 8; ++e) int8_b[column_of_b(lane)][int8_depth_of_b(lane, e)] = {lane, e};
      for (int e = 0; e < 8; ++e) bf16_a[bf16_row_of_a(lane, e)][bf16_depth_of_a(lane, e)] = {lane, e};
      for (int e = 0; e < 4; ++e) bf16_b[column_of_b(lane)][bf16_depth_of_b(lane, e)] = {lane, e};
    }
  }
};
const Tables kTables;

template <class T, std::size_t Words>
T element(const std::uint32_t (&words)[32][Words], Place place) {
  T value;
  std::memcpy(
      &value,
      reinterpret_cast<const std::byte*>(words[place.lane]) + place.element * static_cast<int>(sizeof(T)),
      sizeof value);
  return value;
}

}  // namespace

void EmulatedLane::multiply(std::int32_t (&sums)[4], const std::uint32_t (&a)[4],
                            const std::uint32_t (&b)[2]) {
  auto& slots = block_.warp(thread_).slots;
  const int lane = thread_ % 32;
  std::memcpy(slots[collectives_ % 2].a[lane], a, sizeof a);
  std::memcpy(slots[collectives_ % 2].b[lane], b, sizeof b);
  const auto& slot = slots[together()];
  for (int e = 0; e < 4; ++e) {
    const Place* left = kTables.int8_a[row_of_sum(lane, e)];
    const Place* right = kTables.int8_b[column_of_sum(lane, e)];
    for (int k = 0; k < 32; ++k)
      sums[e] += element<std::int8_t>(slot.a, left[k]) * element<std::int8_t>(slot.b, right[k]);
  }
}

void EmulatedLane::multiply(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  auto& slots = block_.warp(thread_).slots;
  const int lane = thread_ % 32;
  std::memcpy(slots[collectives_ % 2].a[lane], a, sizeof a);
  std::memcpy(slots[collectives_ % 2].b[lane], b, sizeof b);
  const auto& slot = slots[together()];
  for (int e = 0; e < 4; ++e) {
    const Place* left = kTables.bf16_a[row_of_sum(lane, e)];
    const Place* right = kTables.bf16_b[column_of_sum(lane, e)];
    for (int k = 0; k < 16; ++k)
      sums[e] += float_of_bf16(element<std::uint16_t>(slot.a, left[k])) *
                 float_of_bf16(element<std::uint16_t>(slot.b, right[k]));
  }
}

float EmulatedLane::exchange(float value, int mask) {
  auto& slots = block_.warp(thread_).slots;
  slots[collectives_ % 2].value[thread_ % 32] = value;
  return slots[together()].value[(thread_ % 32) ^ mask];
}

std::uint32_t EmulatedLane::two_bf16(float low, float high) const {
  return bf16_of(low) | static_cast<std::uint32_t>(bf16_of(high)) << 16;
}

Memory EmulatedBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!data) throw std::bad_alloc();
  std::memset(data, 0, bytes);
  return {data, bytes, [](void* at, std::size_t) { std::free(at); }};
}
void EmulatedBackend::upload(Stream&, const void* host, void* device, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}
void EmulatedBackend::download(Stream&, const void* device, void* host, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}
void EmulatedBackend::copy(Stream&, const void* from, void* to, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace wallx::test
