// CountCalls: preloaded into a process, counts the calls for memory that its control loop's thread makes,
// from the end of its first sleep on. SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

std::atomic<std::uint64_t> num_allocations{0}, num_frees{0}, num_mappings{0}, num_sleeps{0};

// initial-exec: a lazily allocated thread-local would call malloc from malloc
__attribute__((tls_model("initial-exec"))) thread_local bool is_loop = false;

void count(std::atomic<std::uint64_t>& calls) noexcept {
  if (is_loop) calls.fetch_add(1, std::memory_order_relaxed);
}

template <class Function>
Function next(const char* name) noexcept {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// glibc's own entry points, so that the first malloc needs no dlsym, which may itself allocate
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
void __libc_free(void* memory);

#define WALLX_EXPORT __attribute__((visibility("default")))

WALLX_EXPORT void* malloc(std::size_t size) {
  count(num_allocations);
  return __libc_malloc(size);
}
WALLX_EXPORT void* calloc(std::size_t number, std::size_t size) {
  count(num_allocations);
  return __libc_calloc(number, size);
}
WALLX_EXPORT void* realloc(void* memory, std::size_t size) {
  count(num_allocations);
  return __libc_realloc(memory, size);
}
WALLX_EXPORT void* memalign(std::size_t alignment, std::size_t size) {
  count(num_allocations);
  return __libc_memalign(alignment, size);
}
WALLX_EXPORT void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count(num_allocations);
  return __libc_memalign(alignment, size);
}
WALLX_EXPORT int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  count(num_allocations);
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}
WALLX_EXPORT void free(void* memory) {
  if (memory) count(num_frees);
  __libc_free(memory);
}

WALLX_EXPORT void* mmap(void* address, std::size_t length, int protection, int flags, int file,
                        off_t offset) {
  static const auto real = next<decltype(&mmap)>("mmap");
  count(num_mappings);
  return real(address, length, protection, flags, file, offset);
}
WALLX_EXPORT int munmap(void* address, std::size_t length) {
  static const auto real = next<decltype(&munmap)>("munmap");
  count(num_mappings);
  return real(address, length);
}

WALLX_EXPORT int clock_nanosleep(clockid_t clock, int flags, const timespec* request, timespec* remain) {
  static const auto real = next<decltype(&clock_nanosleep)>("clock_nanosleep");
  const int error = real(clock, flags, request, remain);
  if (!is_loop) {
    char name[16] = {};
    is_loop = pthread_getname_np(pthread_self(), name, sizeof name) == 0 && !std::strcmp(name, "wallx-loop");
  }
  if (is_loop) num_sleeps.fetch_add(1, std::memory_order_relaxed);
  return error;
}

// allocations, frees, mappings, and the loop's sleeps: 0 of these, and no loop was counted
WALLX_EXPORT void wallx_counted_calls(std::uint64_t counts[4]) {
  counts[0] = num_allocations.load();
  counts[1] = num_frees.load();
  counts[2] = num_mappings.load();
  counts[3] = num_sleeps.load();
}
}
