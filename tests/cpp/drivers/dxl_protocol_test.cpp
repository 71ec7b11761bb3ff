// Dynamixel Protocol 2.0: the published frames byte for byte, stuffing, and a parser that nothing can
// mislead. SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/dynamixel/dxl_protocol.hpp"

#include <algorithm>
#include <random>

#include "check.hpp"
#include "drivers/fuzz_count.hpp"
#include "drivers/hex.hpp"
#include "drivers/motors/dynamixel/register_table.hpp"

namespace wallx::test {
namespace {

using namespace dynamixel;

constexpr std::uint8_t kIds[] = {1, 2};

// answers as the parser saw them: "id error parameters"
std::vector<std::string> parse(StatusParser& parser, const Bytes& stream,
                               std::size_t step = StatusParser::kMaxPush) {
  std::vector<std::string> answers;
  for (std::size_t at = 0; at < stream.size(); at += step) {
    const std::size_t count = std::min(step, stream.size() - at);
    CHECK_EQ(parser.push({stream.data() + at, count}), count);
    Status status;
    while (parser.next(status)) {
      Bytes seen{status.id, status.error};
      seen.insert(seen.end(), status.parameters.begin(), status.parameters.end());
      answers.push_back(hex(seen));
    }
  }
  return answers;
}

// bit by bit, as the protocol's description has it
int slow_crc(const Bytes& bytes) {
  int crc = 0;
  for (const int byte : bytes)
    for (int bit = 7; bit >= 0; --bit) {
      const int feedback = (crc >> 15 & 1) ^ (byte >> bit & 1);
      crc = (crc << 1 & 0xFFFF) ^ (feedback ? 0x8005 : 0);
    }
  return crc;
}

// an answer as a servo would send it, whatever stands in it
Bytes answer(int id, int error, const Bytes& parameters, int instruction = 0x55) {
  Bytes body{static_cast<std::uint8_t>(instruction), static_cast<std::uint8_t>(error)};
  body.insert(body.end(), parameters.begin(), parameters.end());
  if (id != 0xFE)
    for (std::size_t i = 2; i < body.size(); ++i)
      if (body[i - 2] == 0xFF && body[i - 1] == 0xFF && body[i] == 0xFD)
        body.insert(body.begin() + static_cast<std::ptrdiff_t>(++i), 0xFD);
  Bytes frame{0xFF, 0xFF, 0xFD, 0x00, static_cast<std::uint8_t>(id)};
  frame.push_back(static_cast<std::uint8_t>((body.size() + 2) % 256));
  frame.push_back(static_cast<std::uint8_t>((body.size() + 2) / 256));
  frame.insert(frame.end(), body.begin(), body.end());
  const int crc = slow_crc(frame);
  frame.push_back(static_cast<std::uint8_t>(crc % 256));
  frame.push_back(static_cast<std::uint8_t>(crc / 256));
  return frame;
}

TEST(dxl_requests_match_the_vendor) {
  constexpr dynamixel::Register position = find_register("present_position"),
                                goal = find_register("goal_position");
  std::uint8_t data[8];
  CHECK_EQ(hex(encode_ping(1).bytes()), "FF FF FD 00 01 03 00 01 19 4E");
  CHECK_EQ(hex(encode_read(1, position.address, position.num_bytes).bytes()),
           "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15");
  REQUIRE(put(goal, 512, data));
  CHECK_EQ(hex(encode_write(1, goal.address, {data, 4}).bytes()),
           "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89");
  CHECK_EQ(hex(encode_sync_read(Instruction::sync_read, 132, 4, kIds).bytes()),
           "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA");
  REQUIRE(put(goal, 150, data) && put(goal, 170, {data + 4, 4}));
  CHECK_EQ(hex(encode_sync_write(goal.address, 4, kIds, data).bytes()),
           "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87");
  CHECK_EQ(hex(encode_reboot(1).bytes()), "FF FF FD 00 01 03 00 08 2F 4E");
}

TEST(dxl_requests_match_an_independent_codec) {
  CHECK_EQ(hex(encode_sync_read(Instruction::fast_sync_read, 132, 4, kIds).bytes()),
           "FF FF FD 00 FE 09 00 8A 84 00 04 00 01 02 4D 72");
  std::uint8_t data[4];
  REQUIRE(put(find_register("goal_position"), 0x00FDFFFF, data));
  CHECK_EQ(hex(encode_write(1, 116, data).bytes()), "FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD 00 21 E7");
  REQUIRE(put(find_register("bus_watchdog"), 5, data));
  CHECK_EQ(hex(encode_write(1, 98, {data, 1}).bytes()), "FF FF FD 00 01 06 00 03 62 00 05 68 E4");
}

TEST(dxl_answers_match_the_vendor) {
  StatusParser parser;
  const auto answers = parse(
      parser, bytes("FF FF FD 00 01 07 00 55 00 06 04 26 65 5D FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0 "
                    "FF FF FD 00 01 04 00 55 00 A1 0C"));
  REQUIRE(answers.size() == 3);
  CHECK_EQ(answers[0], "01 00 06 04 26");  // model 1030, firmware 38
  CHECK_EQ(answers[1], "01 00 A6 00 00 00");
  CHECK_EQ(answers[2], "01 00");
  CHECK_EQ(parser.num_skipped(), 0u);
  CHECK_EQ(get(find_register("present_position"), bytes("A6 00 00 00"), 132), 166);
}

TEST(dxl_crc_is_the_described_one) {
  std::mt19937 random(7);
  for (int length = 0; length < 200; ++length) {
    Bytes some(static_cast<std::size_t>(length));
    for (auto& byte : some) byte = static_cast<std::uint8_t>(random());
    CHECK_EQ(int{crc16(some)}, slow_crc(some));
  }
}

// header-like data anywhere, also across the end of what was stuffed before
TEST(dxl_data_that_looks_like_a_header_survives_both_ways) {
  for (const char* data : {"FF FF FD", "FF FF FD FD", "FF FF FF FD", "00 FF FF FD 00", "FF FF FD FF FF FD",
                           "FF FF", "FD FF FF FD FD FD", "FF FF FD 00 01 03 00 01 19 4E"}) {
    StatusParser parser;
    const Bytes frame = answer(3, 0, bytes(data));
    const auto answers = parse(parser, frame);
    REQUIRE(answers.size() == 1);
    CHECK_EQ(answers[0], std::string("03 00 ") + data);
    CHECK_EQ(parser.num_damaged(), 0u);

    const Bytes raw = bytes(data);
    const Frame request = encode_write(3, 0x1234, raw);
    Bytes sent(request.bytes().begin(), request.bytes().end());
    for (std::size_t i = 7; i + 4 < sent.size(); ++i)
      if (sent[i] == 0xFF && sent[i + 1] == 0xFF && sent[i + 2] == 0xFD) CHECK_EQ(int{sent[i + 3]}, 0xFD);
    sent.resize(sent.size() - 2);
    CHECK_EQ(slow_crc(sent), int{get_u16(request.bytes().data() + sent.size())});
  }
}

TEST(dxl_stuffing_that_is_missing_is_damage) {
  Bytes frame = bytes("FF FF FD 00 03 08 00 55 00 FF FF FD 00");
  const int crc = slow_crc(frame);
  frame.push_back(static_cast<std::uint8_t>(crc % 256));
  frame.push_back(static_cast<std::uint8_t>(crc / 256));
  StatusParser parser;
  CHECK(parse(parser, frame).empty());
  CHECK(parser.num_damaged() >= 1);
}

TEST(dxl_requests_that_do_not_fit_are_empty) {
  const Bytes many(2000, 0xFF);
  CHECK(!encode_write(1, 116, {many.data(), 510}).bytes().empty());
  CHECK(encode_write(1, 116, {many.data(), 511}).bytes().empty());
  CHECK(encode_sync_read(Instruction::sync_read, 132, 4, {many.data(), 509}).bytes().empty());
  CHECK(encode_sync_write(116, 4, {many.data(), 200}, {many.data(), 800}).bytes().empty());
  CHECK(encode_sync_write(116, 4, {many.data(), 2}, {many.data(), 7}).bytes().empty());
  Bytes worst;
  for (int i = 0; i < 170; ++i) worst.insert(worst.end(), {0xFF, 0xFF, 0xFD});
  const auto stuffed = encode_write(1, 116, worst).bytes().size();
  CHECK_EQ(stuffed, 12 + 510u + 170);
  CHECK(stuffed <= kMaxFrameBytes);
}

TEST(dxl_fast_answers_are_taken_apart) {
  // two servos, two bytes each: error, id, data, crc; data is not stuffed
  const Bytes part1 = bytes("01 FF FF"), part2 = bytes("FD FD 80 02 34 12");
  Bytes parameters = part1;
  parameters.insert(parameters.end(), part2.begin(), part2.end());
  StatusParser parser(fast_parameters(2, 2));
  REQUIRE(parser.push(answer(0xFE, 0, parameters)) > 0);
  Status whole;
  REQUIRE(parser.next(whole));
  CHECK_EQ(int{whole.id}, 0xFE);
  REQUIRE(whole.parameters.size() == fast_parameters(2, 2));
  const Status first = fast_part(whole, 2, 0), second = fast_part(whole, 2, 1);
  CHECK_EQ(int{first.id}, 1);
  CHECK_EQ(int{first.error}, 0);
  CHECK_EQ(hex(first.parameters), "FF FF");
  CHECK_EQ(int{second.id}, 2);
  CHECK_EQ(int{second.error}, 0x80);
  CHECK_EQ(hex(second.parameters), "34 12");
}

TEST(dxl_parser_passes_over_echoes_of_requests) {
  StatusParser parser;
  const auto ping = encode_ping(1);
  const auto echo = ping.bytes();
  Bytes stream(echo.begin(), echo.end());
  const Bytes status = answer(1, 0, {6, 4, 38});
  stream.insert(stream.end(), status.begin(), status.end());
  CHECK_EQ(parse(parser, stream).size(), 1u);
}

TEST(dxl_parser_takes_frames_in_pieces_of_any_size) {
  Bytes stream;
  for (int id = 1; id <= 3; ++id) {
    const Bytes one = answer(id, 0x80, bytes("FF FF FD 11"));
    stream.insert(stream.end(), one.begin(), one.end());
  }
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    StatusParser parser(4);
    const auto answers = parse(parser, stream, step);
    REQUIRE(answers.size() == 3);
    CHECK_EQ(answers[2], "03 80 FF FF FD 11");
    CHECK_EQ(parser.num_skipped(), 0u);
  }
}

// a damaged length must neither swallow the next answers nor wait for bytes that nobody sends
TEST(dxl_parser_loses_only_the_damaged_frame) {
  const Bytes good = answer(1, 0, {0, 8, 0, 0});
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      Bytes stream = good;
      stream[at] = static_cast<std::uint8_t>(stream[at] ^ 1 << bit);
      for (int id = 2; id <= 3; ++id) {
        const Bytes next = answer(id, 0, {1, 8, 0, 0});
        stream.insert(stream.end(), next.begin(), next.end());
      }
      StatusParser parser(4);
      const auto answers = parse(parser, stream);
      REQUIRE(answers.size() == 2);
      CHECK_EQ(answers[0], "02 00 01 08 00 00");
      CHECK_EQ(answers[1], "03 00 01 08 00 00");
    }
}

TEST(dxl_registers_do_not_overlap_and_hold_what_they_can) {
  int end = 0;
  for (const dynamixel::Register& row : kRegisters) {
    CHECK(row.address >= end);
    CHECK((row.memory == Memory::eeprom) == (row.address < 64));
    end = row.address + row.num_bytes;
    const std::int64_t span = std::int64_t{1} << 8 * row.num_bytes;
    const std::int64_t min = row.is_signed ? -span / 2 : 0;
    for (const std::int64_t value : {min, min + 1, std::int64_t{0}, std::int64_t{100}, min + span - 1}) {
      std::uint8_t data[4];
      REQUIRE(put(row, value, data));
      CHECK_EQ(get(row, data, row.address), value);
    }
    std::uint8_t data[4];
    CHECK(!put(row, min - 1, data));
    CHECK(!put(row, min + span, data));
  }
  CHECK_EQ(get(find_register("bus_watchdog"), bytes("FF"), 98), -1);
  CHECK_EQ(get(find_register("homing_offset"), bytes("AB FF FF FF"), 20), -85);
}

// What the parser yields must stand in the stream as one whole frame with a right crc, in order. Half of the
// frames are valid ones changed in one place with the crc repaired.
TEST(dxl_fuzzed_parser_never_yields_an_invalid_frame) {
  std::mt19937 random(20261121);
  const auto below = [&](unsigned bound) { return static_cast<unsigned>(random() % bound); };
  const auto byte = [&] {
    return static_cast<std::uint8_t>(below(3) == 0 ? (below(2) ? 0xFF : 0xFD) : below(256));
  };
  std::size_t num_yielded = 0, num_damaged = 0;
  for (int left = fuzz_count(); left > 0;) {
    Bytes stream;
    for (unsigned pieces = 1 + below(12); pieces > 0 && left > 0; --pieces, --left) {
      Bytes part;
      if (below(2) == 0) {
        part.resize(below(40));
        for (auto& one : part) one = byte();
        if (part.size() > 8 && below(2) == 0)
          std::copy_n(bytes("FF FF FD 00 01 06 00").begin(), 7, part.begin());
      } else {
        Bytes parameters(below(12));
        for (auto& one : parameters) one = byte();
        part = answer(below(8) ? static_cast<int>(below(253)) : 0xFE, static_cast<int>(below(2) * 128),
                      parameters, below(8) ? 0x55 : static_cast<int>(below(256)));
        part[below(static_cast<unsigned>(part.size() - 2))] = byte();
        const int crc = slow_crc(Bytes(part.begin(), part.end() - 2));
        part.end()[-2] = static_cast<std::uint8_t>(crc % 256);
        part.end()[-1] = static_cast<std::uint8_t>(crc / 256);
        if (below(6) == 0) part.resize(below(static_cast<unsigned>(part.size())));
      }
      stream.insert(stream.end(), part.begin(), part.end());
    }
    const std::size_t max_parameters = below(2) == 0 ? 10 : kMaxParameters;
    StatusParser parser(max_parameters);
    std::size_t pushed = 0, searched_from = 0;
    while (pushed < stream.size()) {
      const std::size_t count = std::min<std::size_t>(1 + below(64), stream.size() - pushed);
      REQUIRE(parser.push({stream.data() + pushed, count}) == count);
      pushed += count;
      Status status;
      while (parser.next(status)) {
        ++num_yielded;
        REQUIRE(status.id <= kMaxId || status.id == kBroadcastId);
        REQUIRE(status.parameters.size() <= max_parameters);
        const Bytes frame =
            answer(status.id, status.error, Bytes(status.parameters.begin(), status.parameters.end()));
        const auto end = stream.begin() + static_cast<std::ptrdiff_t>(pushed);
        const auto found = std::search(stream.begin() + static_cast<std::ptrdiff_t>(searched_from), end,
                                       frame.begin(), frame.end());
        REQUIRE(found != end);
        searched_from = static_cast<std::size_t>(found - stream.begin()) + frame.size();
      }
    }
    num_damaged += parser.num_damaged();
  }
  // the fuzz must have reached both sides
  CHECK(num_yielded > static_cast<std::size_t>(fuzz_count()) / 8);
  CHECK(num_damaged > static_cast<std::size_t>(fuzz_count()) / 8);
}

}  // namespace
}  // namespace wallx::test
