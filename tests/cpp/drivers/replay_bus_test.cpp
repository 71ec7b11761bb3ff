// ReplayBus answers as the log did, in the log's time, and reports a command that differs; what is recorded
// is replayed. SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/replay_bus.hpp"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <random>
#include <string>

#include "contract/bus_contract.hpp"
#include "contract/can_bus_contract.hpp"
#include "drivers/buses/candump_log.hpp"
#include "drivers/buses/recorder.hpp"
#include "hardware/loopback_bus.hpp"

namespace wallx::test {
namespace {

class Log {
 public:
  explicit Log(const std::string& text) {
    const int fd = ::mkstemp(path_);
    REQUIRE(fd >= 0);
    ::close(fd);
    std::ofstream(path_) << text;
  }
  ~Log() { std::remove(path_); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
  BusConfig config(const std::string& channel = "") const { return {.port = path_, .interface = channel}; }

 private:
  char path_[32] = "/tmp/wallx-replay-XXXXXX";
};

constexpr char kTalk[] =
    "(1436509052.000000) can0 123#0102 R\n"
    "(1436509052.000500) can0 7FF#AA T\n"
    "\n"
    "(1436509052.020500) can0 011#BB R\n"
    "(1436509052.020700) can0 00000012#CC R\n"
    "(1436509052.030000) can0 7FF##1DD T\n";

// the promises that need no other end to write to
std::unique_ptr<CanLineUnderTest> make_talk() {
  class Talk final : public CanLineUnderTest {
   public:
    CanBus& bus() override { return bus_; }
    std::unique_ptr<CanBus> make_classic() override { std::abort(); }
    void write_far(const Frames&) override { std::abort(); }
    Frames read_far(std::size_t) override { std::abort(); }

   private:
    Log log_{"(0.0) can0 7FF#AA T\n(0.1) can0 123#00 R\n"};
    ReplayCanBus bus_{log_.config()};
  };
  return std::make_unique<Talk>();
}
CAN_BUS_PROMISE(replay, make_talk, times_out_at_the_deadline_and_not_before)
CAN_BUS_PROMISE(replay, make_talk, refuses_everything_while_closed)

TEST(replay_answers_as_the_log_did) {
  const Log log(kTalk);
  ReplayCanBus bus(log.config());
  CHECK(bus.is_fd());
  for (int round = 0; round < 2; ++round) {
    bus.open();
    CHECK_THROWS(bus.open(), BusError, "already open");
    CHECK(is_same(receive_frames(bus, 1), {make_frame(0x123, {1, 2})}));
    // nothing comes before the command that caused it
    CanFrame frame;
    std::size_t received = 0;
    CHECK(bus.receive({&frame, 1}, Clock::now() + std::chrono::milliseconds(2), received).code ==
          ErrorCode::timeout);
    const TimePoint sent = Clock::now();
    CHECK(bus.transmit(Frames{make_frame(0x7FF, {0xAA})}, can_patient()).ok());
    const Frames answers = receive_frames(bus, 2);
    CanFrame extended = make_frame(0x12, {0xCC});
    extended.is_extended = true;
    CHECK(is_same(answers, {make_frame(0x11, {0xBB}), extended}));
    CHECK(answers[0].received_at >= sent + std::chrono::milliseconds(20));
    CHECK(answers[1].received_at - answers[0].received_at == std::chrono::microseconds(200));
    CanFrame last = make_frame(0x7FF, {0xDD});
    last.is_fd = last.is_bit_rate_switched = true;
    CHECK(bus.transmit({&last, 1}, can_patient()).ok());
    CHECK(bus.receive({&frame, 1}, can_patient(), received).code == ErrorCode::bus_closed);
    bus.close();
  }
}

TEST(replay_reports_a_command_that_differs_with_its_line) {
  const Log log(kTalk);
  ReplayCanBus bus(log.config());
  bus.open();
  const Result other = bus.transmit(Frames{make_frame(0x7FF, {0xAB})}, can_patient());
  CHECK(other.code == ErrorCode::bad_reply);
  CHECK_EQ(other.detail, 2);
  CHECK(bus.trouble().find("another command in line 2 ") != std::string::npos);
  // it does not go on as if nothing had been
  CHECK(bus.transmit(Frames{make_frame(0x7FF, {0xAA})}, can_patient()).code == ErrorCode::bus_closed);
  bus.close();
  bus.open();
  CHECK(bus.trouble().empty());
  CHECK(bus.transmit(Frames{make_frame(0x7FF, {0xAA})}, can_patient()).ok());
  CHECK_EQ(bus.transmit(Frames{make_frame(0x7FF, {0xDD})}, can_patient()).detail, 6);
}

TEST(replay_expects_no_command_where_the_log_has_none) {
  const Log log("(0.0) can0 123#00\n");
  ReplayCanBus bus(log.config());
  bus.open();
  const Result result = bus.transmit(Frames{make_frame(1, {})}, can_patient());
  CHECK(result.code == ErrorCode::bad_reply && result.detail == 0);
  CHECK(bus.trouble().find("the log ends here") != std::string::npos);
}

// how a driver and the log cut the bytes need not be the same
TEST(replay_answers_with_bytes_as_the_log_did) {
  const Log log("(0.0) tty FFFF0102 T\n(0.001) tty FFFF R\n(0.002) tty 0105 R\n(0.003) tty 07 T\n");
  ReplayBus bus(log.config());
  for (int round = 0; round < 2; ++round) {
    bus.open();
    std::uint8_t buffer[3];
    std::size_t received = 9;
    CHECK(bus.transmit(Bytes{0xFF, 0xFF, 1}, patient()).ok());
    CHECK(bus.receive(buffer, Clock::now(), received).code == ErrorCode::timeout && received == 0);
    CHECK(bus.transmit(Bytes{2}, patient()).ok());
    CHECK(receive_exactly(bus, 4) == (Bytes{0xFF, 0xFF, 1, 5}));
    CHECK(bus.transmit(Bytes{7}, patient()).ok());
    CHECK(bus.receive(buffer, patient(), received).code == ErrorCode::bus_closed);
    CHECK(bus.trouble().find("the log ends here") != std::string::npos);
    bus.close();
  }
  bus.open();
  const Result other = bus.transmit(Bytes{0xFF, 0xFE}, patient());
  CHECK(other.code == ErrorCode::bad_reply && other.detail == 1);
}

TEST(a_recorded_line_is_replayed_byte_for_byte) {
  const Log log("");
  auto ends = make_loopback("near");
  auto& [near, far] = ends;
  BusConfig config{.port = "/dev/my tty", .record = log.config().port};
  const auto bus = make_recorded(std::move(near), config);
  far->open();
  bus->open();
  std::mt19937_64 random(3);
  Bytes sent(300), answered(200);
  for (auto* bytes : {&sent, &answered})
    for (std::uint8_t& byte : *bytes) byte = static_cast<std::uint8_t>(random());
  CHECK(bus->transmit(sent, patient()).ok());
  CHECK(far->transmit(answered, patient()).ok());
  CHECK(receive_exactly(*bus, 200) == answered);
  bus->close();

  ReplayBus replay(log.config("my_tty"));
  replay.open();
  CHECK(replay.transmit(sent, patient()).ok());
  CHECK(receive_exactly(replay, 200) == answered);
  config.record = "/nowhere/log";
  CHECK_THROWS(make_recorded(make_loopback("near").first, config)->open(), BusError, "cannot be written");
}

TEST(replay_discards_what_is_due_and_only_that) {
  const Log log("(0.0) can0 001#\n(0.0) can0 002#\n(0.0) can0 7FF# T\n(0.0) can0 003#\n");
  ReplayCanBus bus(log.config());
  bus.open();
  CHECK(bus.discard_input().ok());
  CHECK(bus.transmit(Frames{make_frame(0x7FF, {})}, can_patient()).ok());
  CHECK_EQ(receive_frames(bus, 1)[0].id, 3u);
}

TEST(replay_takes_one_channel) {
  const Log log("(0.1) can0 001#\n(0.0) can1 002#\n(0.2) can0 003#\n");
  CHECK_THROWS(ReplayCanBus(log.config()), ConfigError, "line 2: its time stamp is before");
  ReplayCanBus bus(log.config("can0"));
  bus.open();
  CHECK_EQ(receive_frames(bus, 2)[1].id, 3u);
  CHECK_THROWS(ReplayCanBus(log.config("can7")), ConfigError, "no frame of channel 'can7'");
}

TEST(replay_names_what_is_wrong_with_a_log) {
  CHECK_THROWS(ReplayCanBus({.port = "/nowhere.log"}), ConfigError,
               "/nowhere.log cannot be read: No such file");
  CHECK_THROWS(ReplayCanBus(Log("(0.0) tty 0102 R\n").config()), ConfigError, "is not like");
  CHECK_THROWS(ReplayBus(Log("(0.0) can0 001#\n").config()), ConfigError, "is not like");
  CHECK_THROWS(ReplayCanBus(Log("").config()), ConfigError, "has no frame");
  CHECK_THROWS(ReplayCanBus(Log("(0.0) can0 001#\nnonsense\n").config()), ConfigError,
               "line 2: 'nonsense' is not like");
}

TEST(candump_log_reads_the_formats_others_write) {
  CandumpLine line;
  CHECK(parse_candump("(1436509052.249713) vcan0 044#2A366C2BBA", line) == CandumpEvent::frame);
  CHECK(is_same(line.frame, make_frame(0x44, {0x2A, 0x36, 0x6C, 0x2B, 0xBA})));
  CHECK(line.channel == "vcan0" && !line.is_sent);
  CHECK(line.stamp == std::chrono::nanoseconds(1'436'509'052'249'713'000));
  CHECK(parse_candump("(0.5)  can1  12345678##3AABBCCDDEEFF00112233445566  T\r", line) ==
        CandumpEvent::malformed);
  CHECK(parse_candump("(0.5)  can1  12345678##3AABBCCDDEEFF001122334455  T\r", line) == CandumpEvent::frame);
  CHECK(line.is_sent && line.frame.is_fd && line.frame.is_bit_rate_switched && line.frame.size == 12);
  CHECK(parse_candump("(1.0) can0 123#1122334455667788_B", line) == CandumpEvent::frame);
  CHECK(parse_candump("(1.5) ttyACM0 FFFF0A T", line) == CandumpEvent::bytes);
  CHECK(line.is_sent && line.frame.size == 3 && line.frame.data[2] == 0x0A && line.channel == "ttyACM0");
  CHECK(to_candump(line, true) == "(1.500000) ttyACM0 FFFF0A T");
  for (const char* other : {"", "  ", "(1.0) can0 123#R", "(1.0) can0 123#R8 R", "(1.0) can0 20000080#0000"})
    CHECK(parse_candump(other, line) == CandumpEvent::other);
  for (const char* bad :
       {"x", "(1.0)", "(1.0) can0", "(1.0) can0 123", "1.0 can0 123#", "(1.x) can0 123#", "(1.0) can0 1234#",
        "(1.0) can0 800#", "(1.0) can0 123#1", "(1.0) can0 123#112233445566778899", "(1.0) can0 123#0G",
        "(1.0) can0 123## R", "(1.0) can0 123#00 X", "(1.0) can0 123#00 R R", "(99999999999.0) can0 123#",
        "(1.0000000001) can0 123#"})
    CHECK(parse_candump(bad, line) == CandumpEvent::malformed);
}

// fixed seed; half of the lines are valid ones, the other half such with up to three characters changed
TEST(candump_log_survives_ten_thousand_lines) {
  std::mt19937_64 random(11);
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
    const bool is_sent = below(2) != 0;
    std::string text =
        to_candump({std::chrono::microseconds(below(1'000'000'000'000'000)), "can0", frame, is_sent}, false);
    CandumpLine read;
    REQUIRE(parse_candump(text, read) == CandumpEvent::frame);
    REQUIRE(is_same(read.frame, frame) && read.is_sent == is_sent);
    if (i % 2 == 0) continue;
    for (std::uint64_t changes = 1 + below(3); changes > 0 && !text.empty(); --changes) {
      const std::size_t at = below(text.size());
      switch (below(4)) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text[at] = "0123456789ABCDEF# ()R."[below(22)];
          break;
        case 2:
          text.erase(at, 1 + below(4));
          break;
        default:
          text.insert(at, 1 + below(4), static_cast<char>(random()));
      }
    }
    const CanFrame untouched = make_frame(0x321, {1});
    CandumpLine mutated;
    mutated.frame = untouched;
    const CandumpEvent event = parse_candump(text, mutated);
    if (event == CandumpEvent::frame) {
      ++num_valid;
      REQUIRE(is_valid(mutated.frame));
    } else if (event == CandumpEvent::bytes) {  // without its #
      REQUIRE(mutated.frame.size > 0 && mutated.frame.size <= 64);
    } else {
      REQUIRE(is_same(mutated.frame, untouched));
    }
  }
  CHECK(num_valid > 100 && num_valid < 4900);  // the mutations reach both answers
}

}  // namespace
}  // namespace wallx::test
