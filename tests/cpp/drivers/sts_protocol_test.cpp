// STS protocol: the documented frames byte for byte, and a parser that nothing on the wire can mislead.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/feetech/sts_protocol.hpp"

#include <algorithm>
#include <random>

#include "check.hpp"
#include "drivers/fuzz_count.hpp"
#include "drivers/hex.hpp"
#include "drivers/motors/feetech/register_table.hpp"

namespace wallx::test {
namespace {

using namespace feetech;

constexpr std::uint8_t kIds[] = {1, 2, 3, 4, 5, 6};

// answers as `parse` saw them: "id error parameters"
std::vector<std::string> parse(ReplyParser& parser, const Bytes& stream,
                               std::size_t step = ReplyParser::kMaxPush) {
  std::vector<std::string> replies;
  for (std::size_t at = 0; at < stream.size(); at += step) {
    const std::size_t count = std::min(step, stream.size() - at);
    CHECK_EQ(parser.push({stream.data() + at, count}), count);
    Reply reply;
    while (parser.next(reply)) {
      Bytes seen{reply.id, reply.error};
      seen.insert(seen.end(), reply.parameters.begin(), reply.parameters.end());
      replies.push_back(hex(seen));
    }
  }
  return replies;
}

TEST(ping_matches_the_vendor) { CHECK_EQ(hex(encode_ping(1).bytes()), "FF FF 01 02 01 FB"); }

TEST(read_position_matches_the_vendor) {
  constexpr feetech::Register row = find_register("present_position");
  CHECK_EQ(hex(encode_read(1, row.address, row.num_bytes).bytes()), "FF FF 01 04 02 38 02 BE");
}

TEST(reply_2048_is_read) {
  ReplyParser parser;
  const auto replies = parse(parser, bytes("FF FF 01 04 00 00 08 F2"));
  REQUIRE(replies.size() == 1);
  CHECK_EQ(replies[0], "01 00 00 08");
  CHECK_EQ(from_sign_magnitude(get_u16(bytes("00 08").data()), 15), 2048);
}

TEST(torque_on_and_unlock_match) {
  const std::uint8_t on[] = {1}, off[] = {0};
  CHECK_EQ(hex(encode_write(1, find_register("torque_enable").address, on).bytes()),
           "FF FF 01 04 03 28 01 CE");
  CHECK_EQ(hex(encode_write(1, find_register("lock").address, off).bytes()), "FF FF 01 04 03 37 00 C0");
}

TEST(motion_block_matches) {
  std::uint8_t data[7] = {50};
  put_u16(data + 1, 2048);
  put_u16(data + 5, 1000);
  CHECK_EQ(hex(encode_write(1, find_register("acceleration").address, data).bytes()),
           "FF FF 01 0A 03 29 32 00 08 00 00 E8 03 A3");
}

TEST(negative_homing_offset_matches) {
  constexpr feetech::Register row = find_register("homing_offset");
  std::uint8_t data[2];
  put_u16(data, to_sign_magnitude(-85, row.sign_bit).value());
  CHECK_EQ(hex(encode_write(1, row.address, data).bytes()), "FF FF 01 05 03 1F 55 08 7A");
}

TEST(sync_write_goal_matches) {
  const std::uint8_t ids[] = {1, 2};
  std::uint8_t data[4];
  put_u16(data, 2048);
  put_u16(data + 2, 1024);
  CHECK_EQ(hex(encode_sync_write(find_register("goal_position").address, 2, ids, data).bytes()),
           "FF FF FE 0A 83 2A 02 01 00 08 02 00 04 39");
}

TEST(sync_read_matches) {
  CHECK_EQ(hex(encode_sync_read(56, 4, kIds).bytes()), "FF FF FE 0A 82 38 04 01 02 03 04 05 06 24");
}

TEST(requests_that_do_not_fit_are_empty) {
  const Bytes many(300, 1);
  CHECK(encode_write(1, 42, {many.data(), 252}).bytes().size() == kMaxFrameBytes);
  CHECK(encode_write(1, 42, {many.data(), 253}).bytes().empty());
  CHECK(!encode_sync_read(56, 6, {many.data(), 251}).bytes().empty());
  CHECK(encode_sync_read(56, 6, {many.data(), 252}).bytes().empty());
  CHECK(!encode_sync_write(41, 7, {many.data(), 31}, {many.data(), 217}).bytes().empty());
  CHECK(encode_sync_write(41, 7, {many.data(), 32}, {many.data(), 224}).bytes().empty());
  CHECK(encode_sync_write(42, 2, {many.data(), 2}, {many.data(), 3}).bytes().empty());
}

TEST(sign_magnitude_keeps_every_value_it_can_hold) {
  for (const int sign_bit : {10, 11, 15})
    for (int value = -(1 << sign_bit) + 1; value < 1 << sign_bit; ++value) {
      const auto raw = to_sign_magnitude(value, sign_bit);
      if (!raw || from_sign_magnitude(*raw, sign_bit) != value) CHECK_EQ(value, 1 << 20);
    }
  CHECK_EQ(to_sign_magnitude(-85, 11).value(), 0x0855);
  CHECK_EQ(to_sign_magnitude(-1, 15).value(), 0x8001);
  CHECK_EQ(to_sign_magnitude(-1, 10).value(), 0x0401);
  CHECK_EQ(to_sign_magnitude(65535, -1).value(), 65535);
}

TEST(sign_magnitude_refuses_what_it_cannot_hold) {
  for (const int sign_bit : {10, 11, 15}) {
    CHECK(!to_sign_magnitude(1 << sign_bit, sign_bit));
    CHECK(!to_sign_magnitude(-(1 << sign_bit), sign_bit));
    CHECK(!to_sign_magnitude(INT32_MIN, sign_bit));
    CHECK(!to_sign_magnitude(INT32_MAX, sign_bit));
  }
  CHECK(!to_sign_magnitude(-1, -1));
  CHECK(!to_sign_magnitude(65536, -1));
}

TEST(negative_zero_is_zero) { CHECK_EQ(from_sign_magnitude(0x8000, 15), 0); }

TEST(registers_do_not_overlap) {
  int end = 0;
  for (const feetech::Register& row : kRegisters) {
    CHECK(row.address >= end);
    CHECK((row.memory == Memory::eprom) == (row.address < 40));
    CHECK(row.sign_bit < row.num_bytes * 8);
    end = row.address + row.num_bytes;
  }
}

TEST(parser_reads_error_bits) {
  ReplyParser parser;
  const auto replies = parse(parser, bytes("FF FF 05 02 21 D7"));
  REQUIRE(replies.size() == 1);
  CHECK_EQ(replies[0], "05 21");  // voltage and overload
}

TEST(parser_takes_frames_in_pieces_of_any_size) {
  const Bytes stream = bytes("FF FF 01 04 00 00 08 F2 FF FF 05 02 21 D7 FF FF 02 03 00 2A D0");
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    ReplyParser parser;
    const auto replies = parse(parser, stream, step);
    REQUIRE(replies.size() == 3);
    CHECK_EQ(replies[0], "01 00 00 08");
    CHECK_EQ(replies[1], "05 21");
    CHECK_EQ(replies[2], "02 00 2A");
    CHECK_EQ(parser.num_skipped(), 0u);
  }
}

TEST(parser_refuses_a_wrong_checksum) {
  ReplyParser parser;
  CHECK(parse(parser, bytes("FF FF 01 04 00 00 08 F3")).empty());
  CHECK_EQ(parser.num_damaged(), 1u);
}

TEST(parser_finds_the_frame_behind_garbage) {
  for (const char* garbage : {"00", "FF", "FF FF", "FF 00 FF", "12 34 FF FF 01", "FF FF 01 04 00 00",
                              "FF FF FE 04", "FF FF 01 00", "FF FF 01 01 55", "FF FF FF FF FF FF"}) {
    ReplyParser parser(6);
    const auto replies = parse(parser, bytes(std::string(garbage) + " FF FF 01 04 00 00 08 F2"));
    REQUIRE(replies.size() == 1);
    CHECK_EQ(replies[0], "01 00 00 08");
  }
}

// a damaged length must neither swallow the next answers nor wait for bytes that nobody sends
TEST(parser_loses_only_the_damaged_frame) {
  const Bytes good = bytes("FF FF 01 04 00 00 08 F2");
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      Bytes stream = good;
      stream[at] = static_cast<std::uint8_t>(stream[at] ^ 1 << bit);
      const Bytes behind = bytes("FF FF 02 04 00 01 08 F0 FF FF 03 04 00 02 08 EE");
      stream.insert(stream.end(), behind.begin(), behind.end());
      ReplyParser parser(2);
      const auto replies = parse(parser, stream);
      REQUIRE(replies.size() == 2);
      CHECK_EQ(replies[0], "02 00 01 08");
      CHECK_EQ(replies[1], "03 00 02 08");
    }
}

TEST(parser_says_how_much_it_takes) {
  ReplyParser parser;
  const Bytes stream(2 * (kMaxFrameBytes + ReplyParser::kMaxPush), 0);
  const std::size_t taken = parser.push(stream);
  CHECK_EQ(taken, kMaxFrameBytes + ReplyParser::kMaxPush);
  CHECK_EQ(parser.push(stream), 0u);
  Reply reply;
  CHECK(!parser.next(reply));
  CHECK_EQ(parser.push(stream), kMaxFrameBytes + ReplyParser::kMaxPush);
}

TEST(parser_reset_forgets_half_a_frame) {
  ReplyParser parser;
  CHECK(parse(parser, bytes("FF FF 01 04 00")).empty());
  parser.reset(kMaxParameters);
  CHECK(parse(parser, bytes("00 08 F2")).empty());
  CHECK_EQ(parser.num_damaged(), 0u);
}

// What the parser yields must stand in the stream as one whole frame with a right checksum, in order. Half of
// the frames are valid ones changed in one place with the checksum repaired, and some of these damaged once
// more.
TEST(fuzzed_parser_never_yields_an_invalid_frame) {
  std::mt19937 random(20240611);
  const auto below = [&](unsigned bound) { return static_cast<std::uint8_t>(random() % bound); };
  std::size_t num_yielded = 0, num_damaged = 0;
  for (int left = fuzz_count(); left > 0;) {
    Bytes stream;
    for (int pieces = 1 + below(12); pieces > 0 && left > 0; --pieces, --left) {
      Bytes part;
      if (below(2) == 0) {
        part.resize(below(40));
        // many 0xFF, so that false headers are common
        for (auto& byte : part) byte = below(3) == 0 ? 0xFF : below(256);
      } else {
        const std::uint8_t num_parameters = below(9);
        part = {0xFF, 0xFF, below(254), static_cast<std::uint8_t>(num_parameters + 2), below(64)};
        for (int i = 0; i < num_parameters; ++i) part.push_back(below(4) == 0 ? 0xFF : below(256));
        part[below(static_cast<unsigned>(part.size()))] = below(256);
        unsigned sum = 0;
        for (std::size_t i = 2; i < part.size(); ++i) sum += part[i];
        part.push_back(static_cast<std::uint8_t>(255 - sum % 256));
        if (below(4) == 0) part[below(static_cast<unsigned>(part.size()))] = below(256);
        if (below(6) == 0) part.resize(below(static_cast<unsigned>(part.size())));
      }
      stream.insert(stream.end(), part.begin(), part.end());
    }
    const std::size_t max_parameters = below(2) == 0 ? 6 : kMaxParameters;
    ReplyParser parser(max_parameters);
    std::size_t pushed = 0, searched_from = 0;
    while (pushed < stream.size()) {
      const std::size_t count = std::min<std::size_t>(1 + below(64), stream.size() - pushed);
      REQUIRE(parser.push({stream.data() + pushed, count}) == count);
      pushed += count;
      Reply reply;
      while (parser.next(reply)) {
        ++num_yielded;
        REQUIRE(reply.id <= kMaxId);
        REQUIRE(reply.parameters.size() <= max_parameters);
        Bytes frame = {0xFF, 0xFF, reply.id, static_cast<std::uint8_t>(reply.parameters.size() + 2),
                       reply.error};
        frame.insert(frame.end(), reply.parameters.begin(), reply.parameters.end());
        unsigned sum = 0;
        for (std::size_t i = 2; i < frame.size(); ++i) sum += frame[i];
        frame.push_back(static_cast<std::uint8_t>(255 - sum % 256));
        const auto found =
            std::search(stream.begin() + static_cast<std::ptrdiff_t>(searched_from),
                        stream.begin() + static_cast<std::ptrdiff_t>(pushed), frame.begin(), frame.end());
        REQUIRE(found != stream.begin() + static_cast<std::ptrdiff_t>(pushed));
        searched_from = static_cast<std::size_t>(found - stream.begin()) + frame.size();
      }
    }
    num_damaged += parser.num_damaged();
  }
  // the fuzz must have reached both sides
  CHECK(num_yielded > static_cast<std::size_t>(fuzz_count()) / 20);
  CHECK(num_damaged > static_cast<std::size_t>(fuzz_count()) / 20);
}

}  // namespace
}  // namespace wallx::test
