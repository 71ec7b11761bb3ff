// Both loopbacks keep their contracts.
// SPDX-License-Identifier: Apache-2.0
#include "hardware/loopback_bus.hpp"

#include "contract/bus_contract.hpp"
#include "contract/can_bus_contract.hpp"

namespace wallx::test {
namespace {

class LoopbackLine final : public LineUnderTest {
 public:
  LoopbackLine() {
    std::tie(near_, far_) = make_loopback("loop");
    far_->open();
  }
  Bus& bus() override { return *near_; }
  void write_far(const Bytes& bytes) override { CHECK(far_->transmit(bytes, patient()).ok()); }
  Bytes read_far(std::size_t count) override { return receive_exactly(*far_, count); }
  void hang_up() override { far_->close(); }

 private:
  std::unique_ptr<Bus> near_, far_;
};

std::unique_ptr<LineUnderTest> make_loopback_line() { return std::make_unique<LoopbackLine>(); }

BUS_CONTRACT(loopback, make_loopback_line)

TEST(loopback_delivers_what_was_sent_before_the_hang_up) {
  auto [near, far] = make_loopback("loop");
  near->open();
  far->open();
  CHECK(far->transmit(Bytes{1, 2}, patient()).ok());
  far->close();
  CHECK(receive_exactly(*near, 2) == (Bytes{1, 2}));
  std::uint8_t buffer[8];
  std::size_t received = 0;
  CHECK(near->receive(buffer, patient(), received).code == ErrorCode::bus_closed);
}

TEST(loopback_carries_more_than_its_capacity_when_someone_reads) {
  auto [near, far] = make_loopback("loop", 16);
  near->open();
  far->open();
  std::thread writer([&bus = *far] { CHECK(bus.transmit(every_byte(), patient()).ok()); });
  CHECK(receive_exactly(*near, 256) == every_byte());
  writer.join();
}

class CanLoopbackLine final : public CanLineUnderTest {
 public:
  CanLoopbackLine() {
    std::tie(near_, far_) = make_can_loopback("loop");
    far_->open();
  }
  CanBus& bus() override { return *near_; }
  std::unique_ptr<CanBus> make_classic() override {
    far_->close();
    std::unique_ptr<CanBus> near;
    std::tie(near, far_) = make_can_loopback("classic", false);
    far_->open();
    return near;
  }
  void write_far(const Frames& frames) override { CHECK(far_->transmit(frames, can_patient()).ok()); }
  Frames read_far(std::size_t count) override { return receive_frames(*far_, count); }
  void hang_up() override { far_->close(); }

 private:
  std::unique_ptr<CanBus> near_, far_;
};

std::unique_ptr<CanLineUnderTest> make_can_loopback_line() { return std::make_unique<CanLoopbackLine>(); }

CAN_BUS_CONTRACT(can_loopback, make_can_loopback_line)
CAN_BUS_HANG_UP_CONTRACT(can_loopback, make_can_loopback_line)
CAN_BUS_FLOW_CONTRACT(can_loopback, make_can_loopback_line)

}  // namespace
}  // namespace wallx::test
