// Peak on x86-64: assembly, since a compiler may spill accumulators, which halves the rate.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#include "backend/cpu/peak.hpp"

// 24 accumulators hide the latency of any of these on two ports; of the 16 registers that VEX instructions
// have, 12 do
#define ALL24 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
#define ALL12 "0,1,2,3,4,5,6,7,8,9,10,11"
#define CLOBBERS_16                                                                                          \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15", "cc"
#define CLOBBERS_32                                                                                      \
  CLOBBERS_16, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
      "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"
// a round is one instruction, or group of them, for every accumulator
#define LOOP(registers, body) \
  "1:\n .irp r," registers "\n" body "\n .endr\n dec %[rounds]\n jnz 1b\n vzeroupper\n"
#define LOOP_512(instruction)                                                   \
  asm volatile(                                                                 \
      "vpbroadcastd %k[value], %%zmm30\n vmovdqa64 %%zmm30, %%zmm31\n"          \
      " .irp r," ALL24 "\n vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n .endr\n" LOOP( \
          ALL24, instruction " %%zmm30, %%zmm31, %%zmm\\r")                     \
      : [rounds] "+r"(rounds)                                                   \
      : [value] "r"(value)                                                      \
      : CLOBBERS_32)
#define LOOP_256(body)                                                                        \
  asm volatile(                                                                               \
      "vmovd %k[value], %%xmm14\n vpbroadcastd %%xmm14, %%ymm14\n vmovdqa %%ymm14, %%ymm15\n" \
      " .irp r," ALL12 "\n vpxor %%ymm\\r, %%ymm\\r, %%ymm\\r\n .endr\n" LOOP(ALL12, body)    \
      : [rounds] "+r"(rounds)                                                                 \
      : [value] "r"(value)                                                                    \
      : CLOBBERS_16)

namespace wallx {
namespace {

constexpr std::uint32_t kOnesInt8 = 0x01010101, kOnesInt16 = 0x00010001, kOnesBf16 = 0x3F803F80,
                        kOneFp32 = 0x3F800000;

__attribute__((target("avx512f,avx512vl"))) void int8_avx512(std::uint64_t rounds) {
  const std::uint32_t value = kOnesInt8;
  LOOP_512("vpdpbusd");
}

__attribute__((target("avx512f,avx512vl"))) void bf16_avx512(std::uint64_t rounds) {
  const std::uint32_t value = kOnesBf16;
  LOOP_512("vdpbf16ps");
}

__attribute__((target("avx512f,avx512vl"))) void fp32_avx512(std::uint64_t rounds) {
  const std::uint32_t value = kOneFp32;
  LOOP_512("vfmadd231ps");
}

__attribute__((target("avx2"))) void int8_avx_vnni(std::uint64_t rounds) {
  const std::uint32_t value = kOnesInt8;
  LOOP_256("%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm\\r");
}

// what a product of bytes is without an instruction for it
__attribute__((target("avx2"))) void int8_avx2(std::uint64_t rounds) {
  const std::uint32_t value = kOnesInt16;
  LOOP_256(
      "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n vpmaddwd %%ymm12, %%ymm15, %%ymm13\n"
      " vpaddd %%ymm13, %%ymm\\r, %%ymm\\r");
}

__attribute__((target("avx2,fma"))) void fp32_avx2(std::uint64_t rounds) {
  const std::uint32_t value = kOneFp32;
  LOOP_256("vfmadd231ps %%ymm14, %%ymm15, %%ymm\\r");
}

__attribute__((target("avx512f"))) std::uint64_t read_avx512(const std::byte* data, std::size_t size) {
  constexpr std::size_t kLines = 8;
  __m512i sums[kLines] = {};
  for (std::size_t at = 0; at < size; at += kLines * 64)
    for (std::size_t i = 0; i < kLines; ++i) {
      const std::byte* from = data + at + i * 64;
      _mm_prefetch(reinterpret_cast<const char*>(from + kReadAhead), _MM_HINT_T1);
      sums[i] = _mm512_add_epi64(sums[i], _mm512_loadu_si512(from));
    }
  for (std::size_t i = 1; i < kLines; ++i) sums[0] = _mm512_add_epi64(sums[0], sums[i]);
  std::uint64_t parts[8], sum = 0;
  _mm512_storeu_si512(parts, sums[0]);
  for (const std::uint64_t part : parts) sum += part;
  return sum;
}

// between two registers: an addition of a constant need not take a cycle
void clock_chain(std::uint64_t rounds) {
  std::uint64_t sum = 0;
  asm volatile("1:\n .rept 64\n add %[one], %[sum]\n .endr\n dec %[rounds]\n jnz 1b\n"
               : [rounds] "+r"(rounds), [sum] "+r"(sum)
               : [one] "r"(std::uint64_t{1})
               : "cc");
}

struct Processor {
  bool is_amd = false, is_intel = false;
  unsigned family = 0, model = 0;
};

Processor processor() {
  Processor found;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return found;
  found.is_amd = b == 0x68747541;    // Auth
  found.is_intel = b == 0x756e6547;  // Genu
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  found.family = (a >> 8 & 0xF) + ((a >> 8 & 0xF) == 0xF ? a >> 20 & 0xFF : 0);
  found.model = (a >> 4 & 0xF) + (a >> 12 & 0xF0);
  return found;
}

// Instructions of 512 bits that begin in a cycle; 0: not known. Zen 5's parts for notebooks split them in
// two. Measured on Zen 5 (family 26, model 2) only; the others as their vendors' guides say.
std::int64_t per_cycle_512(bool is_bf16) {
  const Processor p = processor();
  if (p.is_amd && p.family == 26 && (p.model < 0x20 || (p.model >= 0x40 && p.model < 0x50))) return 2;
  if (is_bf16) return 0;
  if (p.is_amd && p.family == 25) return 1;
  // Xeons of the Skylake to Granite Rapids generations
  for (const unsigned server : {0x55u, 0x6Au, 0x6Cu, 0x8Fu, 0xCFu, 0xADu})
    if (p.is_intel && p.family == 6 && p.model == server) return 2;
  return 0;
}

// of 256 bits; every processor with AVX2 but Intel's small cores and the first Zen
std::int64_t per_cycle_256() {
  const Processor p = processor();
  if (p.is_amd && (p.family == 25 || p.family == 26 || (p.family == 23 && p.model >= 0x30))) return 2;
  for (const unsigned core : {0x3Cu, 0x3Fu, 0x45u, 0x46u, 0x3Du, 0x47u, 0x4Fu, 0x56u, 0x4Eu, 0x5Eu, 0x8Eu,
                              0x9Eu, 0xA5u, 0xA6u, 0x7Du, 0x7Eu, 0x8Cu, 0x8Du, 0xA7u})
    if (p.is_intel && p.family == 6 && p.model == core) return 2;
  return 0;
}

bool has_avx512_vnni() { return __builtin_cpu_supports("avx512vnni"); }
bool has_avx512_bf16() { return __builtin_cpu_supports("avx512bf16"); }
bool has_avx512() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"); }
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

constexpr PeakLoop kLoops[] = {
    {PeakKind::int8, "vpdpbusd, 512 bits", 24 * 128, has_avx512_vnni, int8_avx512,
     [] { return per_cycle_512(false) * 128; }},
    {PeakKind::int8, "vpdpbusd, 256 bits", 12 * 64, has_avx_vnni, int8_avx_vnni,
     [] { return per_cycle_256() * 64; }},
    // two products a multiply-add, so that half as many begin in a cycle
    {PeakKind::int8, "vpmaddubsw, 256 bits", 12 * 64, has_avx2, int8_avx2,
     [] { return per_cycle_256() * 32; }},
    {PeakKind::bf16, "vdpbf16ps, 512 bits", 24 * 64, has_avx512_bf16, bf16_avx512,
     [] { return per_cycle_512(true) * 64; }},
    {PeakKind::fp32, "vfmadd231ps, 512 bits", 24 * 32, has_avx512, fp32_avx512,
     [] { return per_cycle_512(false) * 32; }},
    {PeakKind::fp32, "vfmadd231ps, 256 bits", 12 * 16, has_avx2, fp32_avx2,
     [] { return per_cycle_256() * 16; }},
    {PeakKind::clock, "add", 64, [] { return true; }, clock_chain, [] { return std::int64_t{1}; }},
};

}  // namespace

ReadLoop wide_read_loop() { return has_avx512() ? read_avx512 : nullptr; }

std::span<const PeakLoop> peak_loops() { return kLoops; }

}  // namespace wallx

#endif
