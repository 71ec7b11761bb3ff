// SlcanBus keeps the CAN bus contract on a pseudo-terminal, sets its adapter up, and survives any noise.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/slcan_bus.hpp"

#include <map>
#include <random>
#include <string>

#include "contract/can_bus_contract.hpp"
#include "drivers/pty.hpp"

namespace wallx::test {
namespace {

Bytes text(const std::string& of) { return {of.begin(), of.end()}; }

std::string encoded(const CanFrame& frame) {
  const SlcanLine line = encode_slcan(frame);
  return {line.text.data(), line.size};
}

// an adapter that answers nothing, as some do
class SlcanLineUnderTest final : public CanLineUnderTest {
 public:
  SlcanLineUnderTest() : bus_({.kind = "slcan", .port = pty_.slave(), .data_bit_rate = 5'000'000}) {}
  CanBus& bus() override { return bus_; }
  std::unique_ptr<CanBus> make_classic() override {
    return std::make_unique<SlcanBus>(BusConfig{.kind = "slcan", .port = pty_.slave()});
  }
  void write_far(const Frames& frames) override {
    std::string all;
    for (const CanFrame& frame : frames) all += encoded(frame);
    pty_.write(text(all));
  }
  Frames read_far(std::size_t count) override {
    Frames frames;
    while (frames.size() < count)
      for (const std::uint8_t byte : pty_.read_some()) {
        if (byte != '\r') {
          line_ += static_cast<char>(byte);
          continue;
        }
        CanFrame frame;
        if (decode_slcan(line_, '\r', frame) == SlcanEvent::frame) frames.push_back(frame);
        line_.clear();
      }
    return frames;
  }
  void hang_up() override { pty_.hang_up(); }

 private:
  Pty pty_;
  SlcanBus bus_;
  std::string line_;
};

std::unique_ptr<CanLineUnderTest> make_slcan_line() { return std::make_unique<SlcanLineUnderTest>(); }

CAN_BUS_CONTRACT(slcan, make_slcan_line)
CAN_BUS_HANG_UP_CONTRACT(slcan, make_slcan_line)
CAN_BUS_FLOW_CONTRACT(slcan, make_slcan_line)

// What an adapter is told by a bus that opens on it; it answers each command with its entry, or "\r".
std::vector<std::string> opened_on(const BusConfig& rates, const std::map<std::string, std::string>& answers,
                                   std::string& error) {
  Pty pty;
  const int kept = ::open(pty.slave().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);  // or closing would hang up
  std::vector<std::string> told;
  std::thread adapter([&] {
    std::string line;
    while (told.empty() || told.back() != "the end")
      for (const std::uint8_t byte : pty.read_some()) {
        if (byte != '\r') {
          line += static_cast<char>(byte);
          continue;
        }
        const auto answer = answers.find(line);
        pty.write(text(answer == answers.end() ? "\r" : answer->second));
        told.push_back(line);
        line.clear();
      }
  });
  BusConfig config = rates;
  config.port = pty.slave();
  SlcanBus bus(config);
  try {
    bus.open();
  } catch (const BusError& refused) {
    error = refused.what();
  }
  CHECK_EQ(bus.is_open(), error.empty());
  bus.close();
  CHECK_EQ(::write(kept, "the end\r", 8), 8);
  adapter.join();
  ::close(kept);
  told.pop_back();
  return told;
}

TEST(slcan_sets_the_rates_and_opens_the_channel) {
  using Told = std::vector<std::string>;
  std::string error;
  // the channel is closed at first, which some adapters refuse to close again
  CHECK(opened_on({.bit_rate = 500'000}, {{"C", "\a"}}, error) == (Told{"", "", "C", "S6", "O", "C"}));
  CHECK(opened_on({.data_bit_rate = 5'000'000}, {}, error) == (Told{"", "", "C", "S8", "Y5", "O", "C"}));
  CHECK_EQ(error, "");
}

TEST(slcan_says_what_the_adapter_refused) {
  std::string error;
  opened_on({}, {{"O", "\a"}}, error);
  CHECK(error.find("the adapter refuses 'O' (open the channel)") != std::string::npos);
  error.clear();
  opened_on({.data_bit_rate = 2'000'000}, {{"Y2", "\a"}}, error);
  CHECK(error.find("refuses 'Y2' (data bit rate; can it do CAN FD?)") != std::string::npos);
}

TEST(slcan_refuses_rates_it_has_no_command_for) {
  CHECK_THROWS(SlcanBus({.port = "x", .bit_rate = 800'000}), ConfigError,
               "bit_rate of slcan bus x is 800000, must");
  CHECK_THROWS(SlcanBus({.port = "x", .data_bit_rate = 3'000'000}), ConfigError,
               "is 3000000, must be one of 2000000");
}

TEST(slcan_closes_the_channel_when_it_closes) {
  Pty pty;
  SlcanBus bus({.port = pty.slave()});
  bus.open();
  bus.close();
  std::string told;
  while (told.size() < 11)
    for (const std::uint8_t byte : pty.read_some()) told += static_cast<char>(byte);
  CHECK_EQ(told, "\r\rC\rS8\rO\rC\r");
}

TEST(slcan_never_takes_a_frame_that_waited_for_a_new_one) {
  SlcanLineUnderTest line;
  line.bus().open();
  CHECK(line.bus().discard_input().ok());
  const TimePoint looked = Clock::now();
  line.write_far({make_frame(5, {1})});
  while (Clock::now() < looked + std::chrono::milliseconds(20)) {
  }
  CHECK(receive_frames(line.bus(), 1)[0].received_at <= looked);
}

TEST(slcan_reports_a_refused_frame_once_and_not_before_what_arrived) {
  Pty pty;
  SlcanBus bus({.port = pty.slave()});
  bus.open();
  pty.write(text("\at00120102\r"));
  CHECK(is_same(receive_frames(bus, 1), {make_frame(1, {1, 2})}));
  pty.write(text("\a"));
  CanFrame frame;
  std::size_t received = 0;
  const Result result = bus.receive({&frame, 1}, can_patient(), received);
  CHECK(result.code == ErrorCode::bad_reply && result.detail == '\a');
  CHECK(bus.receive({&frame, 1}, TimePoint{}, received).code == ErrorCode::timeout);
  CHECK_EQ(bus.num_ignored(), 2u);
}

TEST(slcan_finds_the_next_line_after_noise) {
  Pty pty;
  SlcanBus bus({.port = pty.slave()});
  bus.open();
  pty.write(text(std::string(500, 'x') + "\rt0011FF\r" + "t001zzz\rr0010\rV1013\rz\rT000000031AA1234\r"));
  CanFrame extended = make_frame(3, {0xAA});
  extended.is_extended = true;
  CHECK(is_same(receive_frames(bus, 2), {make_frame(1, {0xFF}), extended}));
  CHECK_EQ(bus.num_ignored(), 4u);
}

TEST(slcan_keeps_a_line_whole_that_had_begun_when_input_was_discarded) {
  Pty pty;
  SlcanBus bus({.port = pty.slave()});
  bus.open();
  pty.write(text("t0010\rt0021"));
  CHECK_EQ(receive_frames(bus, 1)[0].id, 1u);
  CHECK(bus.discard_input().ok());
  pty.write(text("77\r"));
  CHECK(is_same(receive_frames(bus, 1), {make_frame(2, {0x77})}));
}

// literal lines, as LAWICEL's manual and the CANable firmware define them
TEST(slcan_codec_keeps_to_the_format) {
  CHECK_EQ(encoded(make_frame(0x100, {})), "t1000\r");
  CHECK_EQ(encoded(make_frame(0x12, {0xAB, 0x0C})), "t0122AB0C\r");
  CanFrame frame = make_frame(0x1ABCDEF0, {1});
  frame.is_extended = true;
  CHECK_EQ(encoded(frame), "T1ABCDEF0101\r");
  frame.is_fd = true;
  frame.size = 12;
  CHECK_EQ(encoded(frame), "D1ABCDEF09010000000000000000000000\r");
  frame.is_bit_rate_switched = true;
  frame.is_extended = false;
  frame.id = 0x7FF;
  frame.size = 1;
  CHECK_EQ(encoded(frame), "b7FF101\r");
  for (const char* bad : {"t", "t12", "t800", "t8000", "t1009", "t10012", "t1001123", "t1001 1", "T200000000",
                          "t100112345", "d1009", "b10091122334455667788990011223", "?", "tXYZ0"})
    CHECK(decode_slcan(bad, '\r', frame) == SlcanEvent::other);
}

// fixed seed; half of the lines are valid ones, the other half such with up to three characters changed
TEST(slcan_codec_survives_ten_thousand_lines) {
  std::mt19937_64 random(20'260'521);
  const auto below = [&random](std::uint64_t bound) { return random() % bound; };
  int num_valid = 0;
  for (int i = 0; i < 10'000; ++i) {
    CanFrame frame;
    frame.is_extended = below(2) != 0;
    frame.is_fd = below(2) != 0;
    frame.is_bit_rate_switched = frame.is_fd && below(2) != 0;
    frame.id = static_cast<std::uint32_t>(below(frame.is_extended ? 0x2000'0000 : 0x800));
    frame.size = kCanSizes[below(frame.is_fd ? 16 : 9)];
    for (std::size_t k = 0; k < frame.size; ++k) frame.data[k] = static_cast<std::uint8_t>(random());
    std::string line = encoded(frame);
    line.pop_back();
    CanFrame read;
    REQUIRE(decode_slcan(line, '\r', read) == SlcanEvent::frame);
    REQUIRE(is_same(read, frame));
    if (i % 2 == 0) continue;
    for (std::uint64_t changes = 1 + below(3); changes > 0 && !line.empty(); --changes) {
      const std::size_t at = below(line.size());
      switch (below(4)) {
        case 0:
          line[at] = static_cast<char>(random());
          break;
        case 1:
          line[at] = "0123456789abcdefABCDEFtTdDbB"[below(28)];
          break;
        case 2:
          line.erase(at, 1 + below(4));
          break;
        default:
          line.insert(at, 1 + below(4), static_cast<char>(random()));
      }
    }
    CanFrame untouched = make_frame(0x321, {1});
    CanFrame mutated = untouched;
    if (decode_slcan(line, '\r', mutated) == SlcanEvent::frame) {
      ++num_valid;
      REQUIRE(is_valid(mutated));
    } else {
      REQUIRE(is_same(mutated, untouched));
    }
  }
  CHECK(num_valid > 100 && num_valid < 4900);  // the mutations reach both answers
}

}  // namespace
}  // namespace wallx::test
