// The Robot contract for Damiao motors in both modes, against their emulator.
// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "contract/robot_contract.hpp"
#include "drivers/dm_arm.hpp"

namespace wallx::test {
namespace {

using emulator::FaultKind;

template <int kMode>
class DamiaoArm final : public ArmUnderTest {
 public:
  Robot& robot() override { return *arm_.robot; }
  void advance(Duration duration) override { arm_.bus->advance(duration); }
  double position(std::size_t joint) override { return arm_.position(joint); }
  double goal(std::size_t joint) override { return arm_.goal(joint); }
  double resolution(std::size_t) override { return 25.0 / 65535; }
  bool has_torque(std::size_t joint) override { return arm_.motor(joint).is_on(); }
  // what the motor really does against an obstacle, tried on the line and undone
  double torque_bound(std::size_t joint) override {
    const emulator::DmBus before = *arm_.wire;
    std::vector<double> row;
    for (std::size_t i = 0; i < 3; ++i) row.push_back(arm_.position(i));
    const std::vector<double> back = row;
    row[joint] += 0.4;
    arm_.wire->set_fault(FaultKind::block, arm_.motor(joint).id(), 0);
    REQUIRE(arm_.send(row).ok());
    advance(std::chrono::seconds(2));
    const double share = std::abs(arm_.motor(joint).torque()) / 7;
    *arm_.wire = before;
    REQUIRE(arm_.send(back).ok());
    return share;
  }
  std::uint64_t num_requests() override { return arm_.bus->num_requests; }
  std::uint64_t num_writes() override {
    const auto& counters = arm_.wire->counters();
    return counters.writes + counters.stores + counters.controls;
  }
  void silence(std::size_t joint, bool is_silent) override {
    const int id = arm_.motor(joint).id();
    is_silent ? arm_.wire->set_fault(FaultKind::silent, id, 0)
              : arm_.wire->clear_fault(FaultKind::silent, id);
  }
  void reboot(std::size_t joint) override {
    arm_.wire->set_fault(FaultKind::brown_out, arm_.motor(joint).id(), 0.1);
  }
  void hang_up() override { arm_.bus->is_gone = true; }

  std::vector<Mismatch> mismatches() override {
    const auto raw = [this](int rid, std::uint32_t value) { (void)arm_.motor(1).write_register(rid, value); };
    const auto number = [raw](int rid, float value) { raw(rid, std::bit_cast<std::uint32_t>(value)); };
    const std::string mode = std::to_string(kMode);
    return {
        {"mode", [=] { raw(10, 2); }, {"ctrl_mode (10)", "is 2", "expected " + mode}},
        {"velocity range", [=] { number(22, 8); }, {"vmax (22)", "is 8", "expected 30"}},
        {"position range", [=] { number(21, 3.5F); }, {"pmax (21)", "is 3.5", "expected 12.5"}},
        {"torque range", [=] { number(23, 28); }, {"tmax (23)", "is 28", "expected 10"}},
        {"feedback id", [=] { raw(7, 0x21); }, {"mst_id (7)", "0x21", "expected 0x12"}},
        {"default feedback id", [=] { raw(7, 0); }, {"mst_id (7)", "0x0", "expected 0x12"}},
        {"another's id",
         [this] { arm_.wire->set_fault(FaultKind::duplicate_id, 7, 2); },
         {"two motors", "101", "102"}},
        {"classic answers",
         [this] { arm_.wire->set_fault(FaultKind::non_fd, 2, 0); },
         {"classic", "expected CAN FD"}},
    };
  }

 private:
  DmArm arm_{kMode};
};

std::unique_ptr<ArmUnderTest> make_mit() { return std::make_unique<DamiaoArm<1>>(); }
std::unique_ptr<ArmUnderTest> make_force() { return std::make_unique<DamiaoArm<4>>(); }

ROBOT_CONTRACT(damiao_mit, make_mit)
ROBOT_CONTRACT(damiao_force, make_force)

}  // namespace
}  // namespace wallx::test
