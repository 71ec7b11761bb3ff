// ScriptedServos: a Bus with servos on it that answer at once, from registers a test sets, with faults a test
// asks for. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "drivers/hex.hpp"
#include "hardware/bus.hpp"

namespace wallx::test {

// What a servo does, written from the protocol's description and not with the driver's codec.
class ScriptedServos final : public Bus {
 public:
  std::map<int, std::array<std::uint8_t, 128>> registers;  // by id
  std::map<int, std::uint8_t> error;                       // error bits of every answer, by id
  std::vector<std::string> log;                            // every request, in hex
  // may change, drop, repeat or reorder the answers to one request
  std::function<void(const Bytes& request, std::vector<Bytes>& answers)> fault;
  Bytes input;  // on its way to the driver
  Bytes late;   // arrives between the driver's discard and the first answer
  bool is_unplugged = false;
  int num_opened = 0;
  int num_closed = 0;

  void add(int id, int model = 777) {
    registers[id].fill(0);
    set16(id, 3, model);
    registers[id][5] = static_cast<std::uint8_t>(id);
    registers[id][8] = 1;
    set16(id, 9, 743);
    set16(id, 11, 3441);
    set16(id, 16, 1000);
    registers[id][18] = 12;
    set16(id, 48, 500);
    set16(id, 56, 2092);
  }
  void set16(int id, std::size_t address, int raw) {
    registers[id][address] = static_cast<std::uint8_t>(raw % 256);
    registers[id][address + 1] = static_cast<std::uint8_t>(raw / 256);
  }
  int get16(int id, std::size_t address) { return registers[id][address] + 256 * registers[id][address + 1]; }

  static Bytes answer(int id, int error_bits, const Bytes& parameters) {
    Bytes frame(parameters.size() + 6, 0xFF);
    frame[2] = static_cast<std::uint8_t>(id);
    frame[3] = static_cast<std::uint8_t>(parameters.size() + 2);
    frame[4] = static_cast<std::uint8_t>(error_bits);
    std::copy(parameters.begin(), parameters.end(), frame.begin() + 5);
    int sum = 0;
    for (std::size_t i = 2; i + 1 < frame.size(); ++i) sum += frame[i];
    frame.back() = static_cast<std::uint8_t>(255 - sum % 256);
    return frame;
  }

  // one whole request in, the answers of all servos out
  std::vector<Bytes> handle(const Bytes& request) {
    log.push_back(hex(request));
    std::vector<Bytes> answers;
    const int id = request[2], instruction = request[4];
    const auto read = [&](int from, std::size_t address, std::size_t count) {
      const auto* at = registers[from].data() + address;
      answers.push_back(answer(from, error[from], Bytes(at, at + count)));
    };
    if (instruction == 0x01 && registers.count(id)) answers.push_back(answer(id, error[id], {}));
    if (instruction == 0x02 && registers.count(id)) read(id, request[5], request[6]);
    if (instruction == 0x82)
      for (std::size_t i = 7; i + 1 < request.size(); ++i)
        if (registers.count(request[i])) read(request[i], request[5], request[6]);
    if (instruction == 0x03 && registers.count(id))
      std::copy(request.begin() + 6, request.end() - 1, registers[id].begin() + request[5]);
    if (instruction == 0x83)
      for (std::size_t i = 7; i + 1 < request.size(); i += 1u + request[6])
        for (std::size_t k = 0; k < request[6] && registers.count(request[i]); ++k)
          registers[request[i]][request[5] + k] = request[i + 1 + k];
    if (fault) fault(request, answers);
    return answers;
  }

  void open() override {
    if (is_unplugged) throw BusError(name_ + " is not there");
    ++num_opened;
    is_open_ = true;
    input.clear();
  }
  void close() noexcept override {
    num_closed += is_open_;
    is_open_ = false;
  }
  bool is_open() const noexcept override { return is_open_; }
  const std::string& name() const noexcept override { return name_; }

  Result transmit(std::span<const std::uint8_t> request, TimePoint) noexcept override {
    if (is_unplugged || !is_open_) return {.code = ErrorCode::bus_closed};
    input.insert(input.end(), late.begin(), late.end());
    late.clear();
    for (const Bytes& one : handle(Bytes(request.begin(), request.end())))
      input.insert(input.end(), one.begin(), one.end());
    return {};
  }
  // nothing more can come once the answers are taken: a deadline passes at once
  Result receive(std::span<std::uint8_t> buffer, TimePoint, std::size_t& received) noexcept override {
    received = 0;
    if (is_unplugged || !is_open_) return {.code = ErrorCode::bus_closed};
    if (input.empty()) return {.code = ErrorCode::timeout};
    received = std::min({buffer.size(), input.size(), max_received});
    std::copy_n(input.begin(), received, buffer.begin());
    input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(received));
    return {};
  }
  Result discard_input() noexcept override {
    if (is_unplugged || !is_open_) return {.code = ErrorCode::bus_closed};
    input.clear();
    return {};
  }

  std::size_t max_received = 64;  // bytes per receive

 private:
  const std::string name_ = "/dev/ttyTEST";
  bool is_open_ = false;
};

}  // namespace wallx::test
