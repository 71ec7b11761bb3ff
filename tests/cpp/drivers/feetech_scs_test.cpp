// Feetech SCS servos: another byte order, another table; set up by name, not driven.
// SPDX-License-Identifier: Apache-2.0
#include "drivers/motors/feetech/feetech_registers.hpp"
#include "drivers/registry.hpp"
#include "drivers/scripted_servos.hpp"

#include "check.hpp"

namespace wallx::test {
namespace {

// an SCS0009 with id 3: 1284, high byte first
struct ScsLine {
  ScsLine() : servos(new ScriptedServos), registers(std::unique_ptr<Bus>(servos), feetech::kScs) {
    servos->registers[3].fill(0);
    word(3, 1284);
    word(56, 512);
    servos->registers[3][48] = 1;
    registers.open();
  }
  void word(std::size_t address, int raw) {
    servos->registers[3][address] = static_cast<std::uint8_t>(raw / 256);
    servos->registers[3][address + 1] = static_cast<std::uint8_t>(raw % 256);
  }
  ScriptedServos* servos;  // owned by the registers
  FeetechRegisters registers;
};

TEST(scs_registers_are_read_high_byte_first) {
  ScsLine line;
  CHECK_EQ(line.registers.read(3, "model_number"), feetech::kModelScs0009);
  CHECK_EQ(line.registers.read(3, "present_position"), 512);
  CHECK_EQ(line.servos->log.back(), "FF FF 03 04 02 38 02 BC");
  line.word(58, 100 + 0x8000);
  CHECK_EQ(line.registers.read(3, "present_speed"), -100);
  line.word(60, 5 + 0x400);
  CHECK_EQ(line.registers.read(3, "present_load"), -5);
  CHECK_THROWS(line.registers.read(3, "homing_offset"), ConfigError, "Feetech SCS servos have no register");
}

TEST(scs_registers_are_written_high_byte_first_with_their_own_lock) {
  ScsLine line;
  // these servos do not answer writes of the scripted line: what counts is read back
  line.registers.write(3, "max_angle", 1000);
  CHECK_EQ(int{line.servos->registers[3][11]}, 0x03);
  CHECK_EQ(int{line.servos->registers[3][12]}, 0xE8);
  CHECK_EQ(int{line.servos->registers[3][48]}, 1);  // locked again
  CHECK_EQ(int{line.servos->registers[3][55]}, 0);  // where an STS has its lock
  CHECK(std::find(line.servos->log.begin(), line.servos->log.end(), "FF FF 03 05 03 0B 03 E8 FE") !=
        line.servos->log.end());
  CHECK_THROWS(line.registers.write(3, "present_position", 1), DeviceError, "only be read");
  line.servos->registers[3][40] = 1;
  CHECK_THROWS(line.registers.write(3, "max_angle", 900), DeviceError, "only without torque");
}

TEST(scs_tables_do_not_overlap_and_every_value_survives) {
  int end = 0;
  for (const feetech::Register& row : feetech::kScs.registers) {
    CHECK(row.address >= end);
    CHECK((row.memory == feetech::Memory::eprom) == (row.address < 40));
    end = row.address + row.num_bytes;
  }
  for (const feetech::Series& series : {feetech::kSts, feetech::kScs})
    for (const feetech::Register& row : series.registers)
      for (int raw = 0; raw < (row.num_bytes == 2 ? 0x10000 : 0x100); raw += 37) {
        std::uint8_t bytes[2]{};
        series.put(row, static_cast<std::uint16_t>(raw), bytes);
        REQUIRE(series.get(row, bytes) == raw);
      }
}

TEST(scs_servos_are_not_driven_and_the_registry_says_why) {
  Embodiment embodiment{.name = "hand", .motor_family = "feetech_scs", .joints = {}};
  CHECK_THROWS(make_robot(embodiment, {}, {.kind = "serial", .port = "/dev/ttyTEST"}), ConfigError,
               "set up here but not driven");
  CHECK(make_motor_registers("feetech_scs", {.kind = "serial", .port = "/dev/ttyTEST"}) != nullptr);
}

}  // namespace
}  // namespace wallx::test
