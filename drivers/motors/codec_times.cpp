// CodecTimes: a cycle of six motors without a bus: goals to bytes, bytes to registers.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/codec_times.hpp"

#include <array>
#include <map>
#include <vector>

#include "base/errors.hpp"
#include "base/time.hpp"
#include "drivers/motors/damiao/damiao_protocol.hpp"
#include "drivers/motors/dynamixel/dxl_protocol.hpp"
#include "drivers/motors/dynamixel/register_table.hpp"
#include "drivers/motors/feetech/register_table.hpp"
#include "drivers/motors/feetech/sts_protocol.hpp"

namespace wallx {
namespace {

constexpr std::array<std::uint8_t, 6> kIds{1, 2, 3, 4, 5, 6};

// seconds per motor of a cycle that answers how many motors it decoded
template <class Cycle>
double time_of(int rounds, Cycle&& cycle) {
  const TimePoint begin = Clock::now();
  std::int64_t decoded = 0;
  for (int round = 0; round < rounds; ++round) decoded += cycle(round);
  const double seconds = to_seconds(Clock::now() - begin);
  const std::int64_t expected = std::int64_t{rounds} * static_cast<std::int64_t>(kIds.size());
  if (decoded != expected) throw WallxError("the codec did not decode what it encoded");
  return seconds / static_cast<double>(expected);
}

double feetech_time(int rounds) {
  std::vector<std::uint8_t> answers;
  for (const std::uint8_t id : kIds) {
    // an answer and a request differ only in what their fifth byte means
    const std::array<std::uint8_t, 8> state{0, 8, 10, 0, 20, 0, 120, 30};
    const feetech::Frame frame(id, static_cast<feetech::Instruction>(0), state);
    answers.insert(answers.end(), frame.bytes().begin(), frame.bytes().end());
  }
  feetech::ReplyParser parser;
  return time_of(rounds, [&](int round) {
    std::array<std::uint8_t, 12> data;
    for (std::size_t i = 0; i < kIds.size(); ++i)
      feetech::put_u16(&data[2 * i], static_cast<std::uint16_t>(round & 4095));
    const auto sent = feetech::encode_sync_write(42, 2, kIds, data);
    parser.reset(8);
    parser.push(answers);
    feetech::Reply reply;
    int count = 0;
    while (parser.next(reply))
      count += feetech::from_sign_magnitude(feetech::get_u16(reply.parameters.data()), 15) == 2048 &&
               sent.bytes().size() == 26;
    return count;
  });
}

double dynamixel_time(int rounds) {
  using namespace dynamixel;
  std::vector<std::uint8_t> answers;
  for (const std::uint8_t id : kIds) {
    const std::array<std::uint8_t, 11> state{0, 1, 0, 10, 0, 0, 0, 0, 8, 0, 0};  // error, then 126..135
    const Frame frame(id, Instruction::status, state);
    answers.insert(answers.end(), frame.bytes().begin(), frame.bytes().end());
  }
  constexpr Register kGoal = find_register("goal_position"), kPosition = find_register("present_position");
  StatusParser parser;
  return time_of(rounds, [&](int round) {
    std::array<std::uint8_t, 24> data;
    for (std::size_t i = 0; i < kIds.size(); ++i)
      (void)put(kGoal, round & 4095, std::span(data).subspan(4 * i, 4));
    const Frame sent = encode_sync_write(kGoal.address, 4, kIds, data);
    parser.reset(10);
    parser.push(answers);
    Status status;
    int count = 0;
    while (parser.next(status))
      count += get(kPosition, status.parameters, 126) == 2048 && sent.bytes().size() == 44;
    return count;
  });
}

double damiao_time(int rounds) {
  const damiao::Ranges ranges{12.5, 30, 10};
  CanFrame answer{.size = 8};
  answer.data = {0x10, 0x8A, 0x3C, 0x7F, 0xF7, 0xFF, 0x23, 0x1E};  // enabled, 1 rad, at rest
  return time_of(rounds, [&](int round) {
    int count = 0;
    for (const std::uint8_t id : kIds) {
      CanFrame sent;
      damiao::Feedback state;
      answer.data[0] = static_cast<std::uint8_t>(0x10 | id);
      const damiao::MitCommand command{.position = 1e-4 * (round & 4095), .kp = 40, .kd = 1};
      count += damiao::encode_mit(id, command, ranges, sent).ok() && sent.size == 8 &&
               damiao::decode_feedback(answer, id, ranges, state) && state.rotor_temperature == 30;
    }
    return count;
  });
}

}  // namespace

std::map<std::string, double> codec_times(int rounds) {
  return {{"feetech_sts", feetech_time(rounds)},
          {"dynamixel_x", dynamixel_time(rounds)},
          {"damiao", damiao_time(rounds)}};
}

}  // namespace wallx
