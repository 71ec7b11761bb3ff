// Mailbox keeps both bus contracts, and gives an adapter nothing that has lain too long.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/buses/mailbox.hpp"

#include "contract/bus_contract.hpp"
#include "contract/can_bus_contract.hpp"

namespace wallx::test {
namespace {

// far longer than any test: age is tested on its own
constexpr auto kForever = std::chrono::hours(1);

template <class Item>
std::vector<Item> collect(Mailbox<Item>& mailbox, std::size_t count) {
  std::vector<Item> all;
  while (all.size() < count) {
    std::array<Item, 7> items;
    std::size_t collected = 0;
    REQUIRE(mailbox.collect(items, can_patient(), collected).ok());
    all.insert(all.end(), items.begin(), items.begin() + static_cast<std::ptrdiff_t>(collected));
  }
  return all;
}

class ByteLine final : public LineUnderTest {
 public:
  ByteLine() { mailbox_->connect(); }
  Bus& bus() override { return *bus_; }
  void write_far(const Bytes& bytes) override { mailbox_->deliver(bytes); }
  Bytes read_far(std::size_t count) override { return collect(*mailbox_, count); }
  void hang_up() override { mailbox_->disconnect(); }

 private:
  std::shared_ptr<ByteMailbox> mailbox_ = std::make_shared<ByteMailbox>(kForever);
  std::unique_ptr<Bus> bus_ = make_mailbox_bus({.port = "adapter", .byte_mailbox = mailbox_});
};
std::unique_ptr<LineUnderTest> make_byte_line() { return std::make_unique<ByteLine>(); }
BUS_CONTRACT(mailbox, make_byte_line)

class CanLine final : public CanLineUnderTest {
 public:
  CanLine() { mailbox_->connect(); }
  CanBus& bus() override { return *bus_; }
  std::unique_ptr<CanBus> make_classic() override {
    return make_mailbox_can_bus({.port = "classic", .can_mailbox = mailbox_});
  }
  void write_far(const Frames& frames) override { mailbox_->deliver(frames); }
  Frames read_far(std::size_t count) override { return collect(*mailbox_, count); }
  void hang_up() override { mailbox_->disconnect(); }

 private:
  std::shared_ptr<CanMailbox> mailbox_ = std::make_shared<CanMailbox>(kForever);
  std::unique_ptr<CanBus> bus_ =
      make_mailbox_can_bus({.port = "adapter", .data_bit_rate = 1'000'000, .can_mailbox = mailbox_});
};
std::unique_ptr<CanLineUnderTest> make_can_line() { return std::make_unique<CanLine>(); }
CAN_BUS_CONTRACT(can_mailbox, make_can_line)
CAN_BUS_HANG_UP_CONTRACT(can_mailbox, make_can_line)
CAN_BUS_FLOW_CONTRACT(can_mailbox, make_can_line)

TEST(mailbox_gives_the_adapter_nothing_stale) {
  const auto mailbox = std::make_shared<CanMailbox>(std::chrono::milliseconds(1));
  const auto bus = make_mailbox_can_bus({.port = "adapter", .can_mailbox = mailbox});
  mailbox->connect();
  bus->open();
  CHECK(bus->transmit(Frames{make_frame(1, {})}, can_patient()).ok());
  std::this_thread::sleep_for(
      std::chrono::milliseconds(2));  // the frame grows old meanwhile: that is the test
  std::array<CanFrame, 4> frames;
  std::size_t count = 99;
  CHECK(mailbox->collect(frames, TimePoint{}, count).code == ErrorCode::timeout);
  CHECK_EQ(count, 0u);
  CHECK_EQ(mailbox->num_dropped(), 1u);
}

TEST(mailbox_stamps_frames_when_the_adapter_delivers_them) {
  const auto mailbox = std::make_shared<CanMailbox>();
  const auto bus = make_mailbox_can_bus({.port = "adapter", .can_mailbox = mailbox});
  mailbox->connect();
  bus->open();
  mailbox->deliver(Frames{make_frame(1, {})});
  const TimePoint delivered = Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the frame waits meanwhile: that is the test
  CHECK(receive_frames(*bus, 1)[0].received_at <= delivered);
}

TEST(mailbox_needs_an_adapter_of_the_right_sort) {
  const auto mailbox = std::make_shared<CanMailbox>();
  const BusConfig config{.port = "adapter", .can_mailbox = mailbox};
  CHECK_THROWS(make_mailbox_bus(config), ConfigError, "adapter has no mailbox for bytes");
  CHECK_THROWS(make_mailbox_can_bus({.port = "x"}), ConfigError, "x has no mailbox for CAN frames");
  CHECK_THROWS(make_mailbox_can_bus(config)->open(), BusError, "no adapter is connected");
}

TEST(mailbox_counts_what_the_loop_had_no_room_for) {
  CanMailbox mailbox(kForever, 2);
  mailbox.connect();
  mailbox.deliver(Frames(3, make_frame(1, {})));
  CHECK_EQ(mailbox.num_dropped(), 3u);
}

// both sides at full speed: nothing lost, nothing torn
TEST(mailbox_carries_every_frame_between_two_threads) {
  const auto mailbox = std::make_shared<CanMailbox>(kForever, 64);
  const auto bus = make_mailbox_can_bus({.port = "adapter", .can_mailbox = mailbox});
  mailbox->connect();
  bus->open();
  constexpr std::uint32_t kCount = 20'000;
  std::thread adapter([&] {
    std::uint32_t next = 0;
    while (next < kCount) {
      std::array<CanFrame, 9> frames;
      std::size_t count = 0;
      if (!mailbox->collect(frames, can_patient(), count).ok()) return;
      for (std::size_t i = 0; i < count; ++i, ++next)
        for (const std::uint8_t byte : {frames[i].data[0], frames[i].data[7]})
          CHECK_EQ(int{byte}, int{static_cast<std::uint8_t>(next)});
    }
  });
  for (std::uint32_t i = 0; i < kCount; ++i) {
    CanFrame frame{.id = 1, .size = 8};
    frame.data.fill(static_cast<std::uint8_t>(i));
    REQUIRE(bus->transmit({&frame, 1}, can_patient()).ok());
  }
  adapter.join();
  CHECK_EQ(mailbox->num_dropped(), 0u);
}

}  // namespace
}  // namespace wallx::test
