// SyncReadTimes: reads back to back. SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/sync_read_times.hpp"

#include <pthread.h>
#include <time.h>

#include <thread>

#include "base/errors.hpp"
#include "drivers/buses/registry.hpp"
#include "drivers/motors/feetech/feetech_robot.hpp"

namespace wallx {
namespace {

constexpr Duration kAnswerLimit = std::chrono::milliseconds(50);
constexpr int kPriority = 50;  // as the control loop's

double cpu_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

SyncReadTimes sync_read_times(const BusConfig& bus, const std::vector<std::uint8_t>& ids, int num_reads) {
  if (ids.empty() || ids.size() > feetech::Protocol::kMaxServos)
    throw ConfigError("1.." + std::to_string(feetech::Protocol::kMaxServos) + " servos can be read, not " +
                      std::to_string(ids.size()));
  ServoLine<feetech::Protocol> line(make_bus(bus), ids);
  line.bus().open();
  SyncReadTimes times{.num_reads = num_reads};
  std::thread reader([&] {
    sched_param parameters{};
    parameters.sched_priority = kPriority;
    ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters);
    const auto request = feetech::encode_sync_read(56, 8, line.ids());
    const TimePoint begin = Clock::now();
    const double cpu_begin = cpu_time();
    for (int i = 0; i < num_reads; ++i)
      times.num_failed += !line.ask_all(request, 8, Clock::now() + kAnswerLimit).ok();
    times.wall_seconds = to_seconds(Clock::now() - begin);
    times.cpu_seconds = cpu_time() - cpu_begin;
  });
  reader.join();
  line.bus().close();
  return times;
}

}  // namespace wallx
