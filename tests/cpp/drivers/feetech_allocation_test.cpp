// FeetechRobot's loop calls take no memory from the heap, whether the servos answer, stay silent or send
// rubbish. SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdlib>
#include <new>

#include "drivers/allocation_count.hpp"
#include "drivers/arm.hpp"

namespace {

thread_local std::size_t num_allocations = 0;

void* count_and_allocate(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// for the whole test program: every `new` is counted on its thread
void* operator new(std::size_t size) { return count_and_allocate(size); }
void* operator new[](std::size_t size) { return count_and_allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace wallx::test {

std::size_t allocations_on_this_thread() noexcept { return num_allocations; }

namespace {

// passes everything on to the scripted servos until it is frozen; then it repeats one prepared input, without
// the heap
class FrozenBus final : public Bus {
 public:
  explicit FrozenBus(ScriptedServos& servos) : servos_(servos) {}
  void freeze(std::span<const std::uint8_t> input) {
    is_frozen_ = true;
    size_ = std::min(input.size(), input_.size());
    std::copy_n(input.begin(), size_, input_.begin());
  }

  void open() override { servos_.open(); }
  void close() noexcept override { servos_.close(); }
  bool is_open() const noexcept override { return servos_.is_open(); }
  const std::string& name() const noexcept override { return servos_.name(); }
  Result transmit(std::span<const std::uint8_t> bytes, TimePoint deadline) noexcept override {
    left_ = size_;
    return is_frozen_ ? Result{} : servos_.transmit(bytes, deadline);
  }
  Result receive(std::span<std::uint8_t> buffer, TimePoint deadline,
                 std::size_t& received) noexcept override {
    if (!is_frozen_) return servos_.receive(buffer, deadline, received);
    received = std::min({buffer.size(), left_, std::size_t{50}});
    std::copy_n(input_.begin() + static_cast<std::ptrdiff_t>(size_ - left_), received, buffer.begin());
    left_ -= received;
    return received > 0 ? Result{} : Result{.code = ErrorCode::timeout};
  }
  Result discard_input() noexcept override { return is_frozen_ ? Result{} : servos_.discard_input(); }

 private:
  ScriptedServos& servos_;
  bool is_frozen_ = false;
  std::array<std::uint8_t, 1024> input_{};
  std::size_t size_ = 0, left_ = 0;
};

Bytes answers_of(ScriptedServos& servos, const char* request) {
  Bytes all;
  for (const Bytes& answer : servos.handle(bytes(request)))
    all.insert(all.end(), answer.begin(), answer.end());
  return all;
}

TEST(loop_calls_never_allocate) {
  ScriptedServos servos;
  for (const int id : {1, 2, 7}) servos.add(id);
  servos.set16(2, 31, 0x0855);
  auto* bus = new FrozenBus(servos);
  FeetechRobot robot(make_embodiment(), make_calibration(), std::unique_ptr<Bus>(bus));
  robot.connect();
  JointState state;
  const TimePoint deadline = TimePoint::max();

  const Bytes state_answers = answers_of(servos, "FF FF FE 07 82 38 08 01 02 07 2E");
  for (const int id : {1, 2, 7}) servos.registers[id][40] = 1;
  const char* const ask_limits = "FF FF FE 07 82 30 02 01 02 07 3C";
  const Bytes half_limits = answers_of(servos, ask_limits);  // 500, as added
  for (const int id : {1, 2, 7}) servos.set16(id, 48, 1000);
  // the answers to the first question, then those to the second: what is of another length is skipped
  Bytes enable_answers = answers_of(servos, ask_limits);
  for (const std::uint8_t byte : answers_of(servos, "FF FF FE 07 82 28 01 01 02 07 45"))
    enable_answers.push_back(byte);
  const Bytes rubbish(900, 0xFF);
  std::vector<Result> results;
  results.reserve(16);
  std::vector<SafeCommand> commands;
  for (int i = 0; i < 8; ++i) commands.push_back(SafetyLimiter::make(robot.serial(), 1, {0.0, 0.0, 0.0}));

  const std::size_t before = num_allocations;
  bus->freeze(state_answers);
  results.push_back(robot.read(deadline, state));
  bus->freeze(enable_answers);
  results.push_back(robot.enable(std::move(commands[0]), 1, deadline));
  results.push_back(robot.send(std::move(commands[1]), 1, deadline));
  bus->freeze(half_limits);
  results.push_back(robot.limit_torque(0.5, deadline));
  const std::size_t num_good = results.size();
  bus->freeze(rubbish);
  results.push_back(robot.read(deadline, state));
  bus->freeze({});
  results.push_back(robot.read(deadline, state));
  results.push_back(robot.enable(std::move(commands[2]), 1, deadline));
  results.push_back(robot.send(std::move(commands[3]), 2, deadline));
  CHECK_EQ(num_allocations, before);

  for (std::size_t i = 0; i < results.size(); ++i) CHECK_EQ(results[i].ok(), i < num_good);
  CHECK(num_allocations > 0);  // the counter counts
}

}  // namespace
}  // namespace wallx::test
