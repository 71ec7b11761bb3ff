// MemoryTest: loading needs hardly more memory than the weights as fp32, whatever their form on disk.
// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "check.hpp"
#include "model/wall_oss.hpp"
#include "tiny_checkpoint.hpp"

namespace wallx::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kIsSanitized = true;  // its shadow and quarantine are memory too
#else
constexpr bool kIsSanitized = false;
#endif

// a field of /proc/self/status [bytes]; 0: not there
std::int64_t status_bytes(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  return 0;
}

// makes the present use the new peak
bool reset_peak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return static_cast<bool>(clear);
}

// 50 million weights, most of them in one embedding and four wide experts
TinyModel large_model() {
  TinyModel model;
  model.hidden = 256;
  model.head_dim = 8;
  model.text_inner = model.action_inner = 8192;
  model.vocab = 98304;
  return model;
}

// Writes the checkpoint without ever holding it in memory; returns the weights' size as fp32 [bytes].
std::int64_t write_large(const TemporaryFolder& folder, bool is_half) {
  const TinyModel model = large_model();
  folder.write("config.json", model.config().text());
  std::string header = "{";
  std::int64_t count = 0;
  const std::int64_t size = is_half ? 2 : 4;
  for (const auto& [name, shape] : model.shapes()) {
    const std::int64_t begin = count * size;
    count += num_elements(shape);
    header += join(header.size() > 1 ? "," : "", "\"", name, "\":{\"dtype\":\"", is_half ? "BF16" : "F32",
                   "\",\"shape\":", to_string(shape), ",\"data_offsets\":[", begin, ",", count * size, "]}");
  }
  header += "}";
  while (header.size() % 8) header += ' ';
  std::ofstream out(folder.file("model.safetensors"), std::ios::binary);
  const std::string head = safetensors(header, "");
  out.write(head.data(), static_cast<std::streamsize>(head.size()));
  const std::string block(1 << 20, '\x3c');  // 0x3c3c: about 0.011 as bf16 and as fp32
  for (std::int64_t left = count * size; left > 0; left -= static_cast<std::int64_t>(block.size()))
    out.write(block.data(), std::min(left, static_cast<std::int64_t>(block.size())));
  out.close();
  if (!out) throw std::runtime_error("cannot write the large checkpoint");
  return count * 4;
}

struct Growth {
  std::int64_t peak = 0, after = 0;  // [bytes]
};

// in a child, so that memory of other tests is no part of it
Growth load_and_touch(const std::string& directory) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::fflush(stdout);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Growth growth;
    const std::int64_t before = status_bytes("VmRSS:");
    if (reset_peak()) {
      const auto model = WallOss::load(directory);
      // every weight is used: mapped ones become resident only now
      volatile float sum = 0;
      for (const auto& [name, shape] : large_model().shapes()) {
        const TensorEntry& entry = model->weights().entry(name);
        if (entry.dtype == Dtype::f32)
          for (std::size_t at = 0; at < entry.num_bytes; at += 1024)
            sum = sum + static_cast<float>(std::to_integer<int>(entry.data[at]));
      }
      growth = {status_bytes("VmHWM:") - before, status_bytes("VmRSS:") - before};
    }
    const bool is_sent = ::write(ends[1], &growth, sizeof growth) == sizeof growth;
    ::_exit(is_sent ? 0 : 1);
  }
  ::close(ends[1]);
  Growth growth;
  const bool is_received = ::read(ends[0], &growth, sizeof growth) == sizeof growth;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(is_received && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return growth;
}

void check_peak(bool is_half) {
  if (kIsSanitized) {
    std::printf("  skipped: sanitizers need memory of their own\n");
    return;
  }
  const TemporaryFolder folder;
  const std::int64_t weights = write_large(folder, is_half);
  const Growth growth = load_and_touch(folder.path());
  if (growth.peak == 0) {
    std::printf("  skipped: /proc/self/clear_refs cannot be written, so the peak cannot be reset\n");
    return;
  }
  std::printf("  weights %.0f MB as fp32: peak %.0f MB, then %.0f MB\n", static_cast<double>(weights) * 1e-6,
              static_cast<double>(growth.peak) * 1e-6, static_cast<double>(growth.after) * 1e-6);
  CHECK(growth.peak <= weights + weights / 5 + 10'000'000);
  CHECK(growth.peak >= weights * 95 / 100);  // it did measure the weights
}

}  // namespace

TEST(loading_bf16_peaks_at_the_fp32_size) { check_peak(true); }
TEST(loading_fp32_peaks_at_its_own_size) { check_peak(false); }

}  // namespace wallx::test
