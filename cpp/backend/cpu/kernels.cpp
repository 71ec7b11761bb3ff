// Kernels: which of them this processor can run.
// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/kernels.hpp"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "base/errors.hpp"

namespace wallx::cpu {
namespace {

bool can_run(const Kernels* kernels) {
  if (!kernels) return false;
#if defined(__x86_64__)
  if (kernels == kAvx512Kernels)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (kernels == kAvxVnniKernels) return has_avx2 && __builtin_cpu_supports("avxvnni");
  if (kernels == kAvx2Kernels) return has_avx2;
#elif defined(__aarch64__)
  const unsigned long basic = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
  const bool has_dot = (basic & HWCAP_ASIMDDP) != 0;
  if (kernels == kArmI8mmKernels) return has_dot && (more & HWCAP2_I8MM) && (more & HWCAP2_BF16);
  if (kernels == kArmDotprodKernels) return has_dot;
#endif
  return true;
}

}  // namespace

std::span<const Kernels* const> available_kernels() {
  static const std::vector<const Kernels*> all = [] {
    std::vector<const Kernels*> found;
    for (const Kernels* kernels : {kAvx512Kernels, kAvxVnniKernels, kAvx2Kernels, kArmI8mmKernels,
                                   kArmDotprodKernels, kPlainKernels})
      if (can_run(kernels)) found.push_back(kernels);
    return found;
  }();
  return all;
}

const Kernels& find_kernels(const std::string& name) {
  std::string names;
  for (const Kernels* kernels : available_kernels()) {
    if (name == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw ConfigError("kernels '" + name + "': this processor has " + names);
}

}  // namespace wallx::cpu
