// Peak on arm64: assembly, since a compiler may spill accumulators.
// SPDX-License-Identifier: Apache-2.0
#if defined(__aarch64__)

#include <sys/auxv.h>

#include "backend/cpu/peak.hpp"

#define ALL24 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
#define CLOBBERS                                                                                        \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", \
      "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v30", "v31", "cc"
#define LOOP(body)                                                                                   \
  asm volatile("dup v30.4s, %w[value]\n mov v31.16b, v30.16b\n .irp r," ALL24                        \
               "\n movi v\\r\\().4s, #0\n .endr\n"                                                   \
               "1:\n .irp r," ALL24 "\n" body "\n .endr\n subs %[rounds], %[rounds], #1\n b.ne 1b\n" \
               : [rounds] "+r"(rounds)                                                               \
               : [value] "r"(value)                                                                  \
               : CLOBBERS)

namespace wallx {
namespace {

constexpr std::uint32_t kOnesInt8 = 0x01010101, kOnesBf16 = 0x3F803F80, kOneFp32 = 0x3F800000;
constexpr unsigned long kDotprod = 1ul << 20;                  // of AT_HWCAP
constexpr unsigned long kI8mm = 1ul << 13, kBf16 = 1ul << 14;  // of AT_HWCAP2

__attribute__((target("arch=armv8.6-a"))) void int8_i8mm(std::uint64_t rounds) {
  const std::uint32_t value = kOnesInt8;
  LOOP("smmla v\\r\\().4s, v30.16b, v31.16b");
}

__attribute__((target("arch=armv8.2-a+dotprod"))) void int8_dotprod(std::uint64_t rounds) {
  const std::uint32_t value = kOnesInt8;
  LOOP("sdot v\\r\\().4s, v30.16b, v31.16b");
}

__attribute__((target("arch=armv8.6-a"))) void bf16_mmla(std::uint64_t rounds) {
  const std::uint32_t value = kOnesBf16;
  LOOP("bfmmla v\\r\\().4s, v30.8h, v31.8h");
}

void fp32_fmla(std::uint64_t rounds) {
  const std::uint32_t value = kOneFp32;
  LOOP("fmla v\\r\\().4s, v30.4s, v31.4s");
}

void clock_chain(std::uint64_t rounds) {
  std::uint64_t sum = 0;
  asm volatile(
      "1:\n .rept 64\n add %[sum], %[sum], %[one]\n .endr\n subs %[rounds], %[rounds], #1\n b.ne 1b\n"
      : [rounds] "+r"(rounds), [sum] "+r"(sum)
      : [one] "r"(std::uint64_t{1})
      : "cc");
}

bool has(unsigned long type, unsigned long bit) { return (::getauxval(type) & bit) != 0; }
bool always() { return true; }
// how many begin in a cycle depends on the core, which nothing here was measured on
std::int64_t not_known() { return 0; }

constexpr PeakLoop kLoops[] = {
    {PeakKind::int8, "smmla", 24 * 64, [] { return has(AT_HWCAP2, kI8mm); }, int8_i8mm, not_known},
    {PeakKind::int8, "sdot", 24 * 32, [] { return has(AT_HWCAP, kDotprod); }, int8_dotprod, not_known},
    {PeakKind::bf16, "bfmmla", 24 * 32, [] { return has(AT_HWCAP2, kBf16); }, bf16_mmla, not_known},
    {PeakKind::fp32, "fmla", 24 * 8, always, fp32_fmla, not_known},
    {PeakKind::clock, "add", 64, always, clock_chain, [] { return std::int64_t{1}; }},
};

}  // namespace

ReadLoop wide_read_loop() { return nullptr; }

std::span<const PeakLoop> peak_loops() { return kLoops; }

}  // namespace wallx

#endif
