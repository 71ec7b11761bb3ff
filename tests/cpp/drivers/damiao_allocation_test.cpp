// DamiaoRobot's loop calls take no memory from the heap, whether the motors answer, stay silent or send
// rubbish. SPDX-License-Identifier: Apache-2.0
#include <array>
#include <memory>

#include "drivers/allocation_count.hpp"
#include "drivers/dm_arm.hpp"

namespace wallx::test {
namespace {

// passes everything on to the emulated line until it is frozen; then every frame has one prepared answer,
// without the heap
class FrozenCanBus final : public CanBus {
 public:
  enum class Says { status, silence, rubbish };
  explicit FrozenCanBus(std::shared_ptr<emulator::DmBus> wire) : live_(std::move(wire)) {}
  void freeze(Says says, std::uint8_t status) {
    is_frozen_ = true;
    says_ = says;
    status_ = status;
    count_ = 0;
  }

  void open() override { live_.open(); }
  void close() noexcept override { live_.close(); }
  bool is_open() const noexcept override { return live_.is_open(); }
  bool is_fd() const noexcept override { return true; }
  const std::string& name() const noexcept override { return live_.name(); }
  Result transmit(std::span<const CanFrame> frames, TimePoint deadline) noexcept override {
    if (!is_frozen_) return live_.transmit(frames, deadline);
    if (says_ == Says::silence) return {};
    for (const CanFrame& frame : frames) {
      CanFrame answer = frame;
      const std::uint32_t id = frame.id == 0x7FF ? frame.data[0] : frame.id & 0xFF;
      answer.id = id + 0x10;
      answer.received_at = Clock::now();
      if (says_ == Says::rubbish) {
        answer.size = 5;
      } else if (frame.id != 0x7FF || frame.data[2] != 0x55) {
        answer.data.fill(0x80);
        answer.data[0] = static_cast<std::uint8_t>(status_ << 4 | id);
      }
      if (count_ < input_.size()) input_[count_++] = answer;
    }
    return {};
  }
  Result receive(std::span<CanFrame> frames, TimePoint deadline, std::size_t& received) noexcept override {
    if (!is_frozen_) return live_.receive(frames, deadline, received);
    received = std::min(frames.size(), count_);
    std::copy_n(input_.begin(), received, frames.begin());
    count_ = 0;
    return received > 0 ? Result{} : Result{.code = ErrorCode::timeout};
  }
  Result discard_input() noexcept override {
    if (!is_frozen_) return live_.discard_input();
    count_ = 0;
    return {};
  }

 private:
  LockStepCanBus live_;
  bool is_frozen_ = false;
  Says says_ = Says::silence;
  std::uint8_t status_ = 0;
  std::array<CanFrame, 64> input_{};
  std::size_t count_ = 0;
};

TEST(damiao_loop_calls_never_allocate) {
  using Says = FrozenCanBus::Says;
  const DmParts parts = make_dm_parts(1);
  const auto wire = std::make_shared<emulator::DmBus>(
      parts.motors, emulator::DmBusOptions{.rates = {}, .start = TimePoint{std::chrono::seconds(1)}});
  auto* bus = new FrozenCanBus(wire);
  DamiaoRobot robot(parts.embodiment, parts.calibration, std::unique_ptr<CanBus>(bus));
  robot.connect();
  JointState state;
  const TimePoint deadline = TimePoint::max();
  // 0x8080 is 0.05 rad from the middle of the range, minus the joints' zeros
  const std::vector<double> pose{0.0489, -(0.0489 + 17 * kDegree), 0.0489 - 5 * kDegree};
  std::vector<SafeCommand> commands;
  for (int i = 0; i < 8; ++i) commands.push_back(SafetyLimiter::make(robot.serial(), 1, pose));
  std::vector<Result> results;
  results.reserve(16);

  const std::size_t before = allocations_on_this_thread();
  bus->freeze(Says::status, 1);
  results.push_back(robot.read(deadline, state));
  results.push_back(robot.enable(std::move(commands[0]), 1, deadline));
  results.push_back(robot.send(std::move(commands[1]), 1, deadline));
  results.push_back(robot.read(deadline, state));
  results.push_back(robot.limit_torque(0.5, deadline));
  const std::size_t num_good = results.size();
  bus->freeze(Says::status, 9);
  results.push_back(robot.read(deadline, state));
  bus->freeze(Says::rubbish, 0);
  results.push_back(robot.read(deadline, state));
  bus->freeze(Says::silence, 0);
  results.push_back(robot.read(deadline, state));
  results.push_back(robot.enable(std::move(commands[2]), 1, deadline));
  results.push_back(robot.release(deadline));
  results.push_back(robot.send(std::move(commands[3]), 2, deadline));
  CHECK_EQ(allocations_on_this_thread(), before);

  for (std::size_t i = 0; i < results.size(); ++i)
    if (results[i].ok() != (i < num_good))
      fail(__FILE__, __LINE__, "call " + std::to_string(i) + ": " + to_string(results[i].code));
  CHECK(allocations_on_this_thread() > 0);  // the counter counts
}

}  // namespace
}  // namespace wallx::test
