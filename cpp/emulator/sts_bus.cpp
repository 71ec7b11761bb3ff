// StsBus: instruction parsing and answers of Feetech servos.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/sts_bus.hpp"

namespace wallx::emulator {
namespace {

constexpr std::uint8_t kPing = 0x01, kRead = 0x02, kWrite = 0x03, kRegWrite = 0x04, kAction = 0x05,
                       kSyncRead = 0x82, kSyncWrite = 0x83;

// the complement of the low byte of the sum over everything between header and checksum
std::uint8_t packet_sum(const std::uint8_t* first, const std::uint8_t* last) {
  unsigned sum = 0;
  while (first != last) sum += *first++;
  return static_cast<std::uint8_t>(0xFF - (sum & 0xFF));
}

bool fits(std::size_t address, std::size_t size) { return size > 0 && address + size <= kNumRegisters; }

}  // namespace

StsBus::StsBus(std::span<const ServoSetup> setups, const BusOptions& options, EventRing* events)
    : SerialLine(options, events) {
  std::vector<std::unique_ptr<Servo>> servos;
  for (const ServoSetup& setup : setups) servos.push_back(std::make_unique<StsServo>(setup));
  add_servos(std::move(servos));
}

std::size_t StsBus::consume(std::span<const std::uint8_t> packet, TimePoint at) noexcept {
  if (packet[0] != 0xFF || (packet.size() > 1 && packet[1] != 0xFF) ||
      (packet.size() > 2 && packet[2] == 0xFF) || (packet.size() > 3 && packet[3] < 2)) {
    return 1;
  }
  if (packet.size() < 4 || packet.size() < packet[3] + 4u) return 0;
  const std::size_t total = packet[3] + 4u;
  if (packet_sum(&packet[2], &packet[total - 1]) != packet[total - 1]) {
    ++counters_.checksum_errors;
    record(EventKind::checksum_error, at);
    return 1;
  }
  execute(at, packet[2], packet[4], packet.subspan(5, packet[3] - 2u));
  return total;
}

std::size_t StsBus::seal(std::uint8_t id, std::uint8_t error, std::span<const std::uint8_t> parameters,
                         std::span<std::uint8_t> out) const noexcept {
  out[0] = out[1] = 0xFF;
  out[2] = id;
  out[3] = static_cast<std::uint8_t>(parameters.size() + 2);
  out[4] = error;
  std::copy(parameters.begin(), parameters.end(), out.begin() + 5);
  const std::size_t size = parameters.size() + 6;
  out[size - 1] = packet_sum(&out[2], &out[size - 1]);
  return size;
}

bool StsBus::execute_one(Event& event, std::uint8_t instruction,
                         std::span<const std::uint8_t> parameters) noexcept {
  const bool is_broadcast = event.id == kBroadcastId;
  const auto for_addressed = [&](auto&& body) {
    if (is_broadcast) {
      for (Slot& slot : slots_) {
        if (is_listening(slot, slot.listens_to())) body(slot);
      }
    } else if (!for_listeners(event.id, body)) {
      ++counters_.unanswered;
    }
  };

  switch (instruction) {
    case kPing:
      if (!parameters.empty()) return false;
      ++counters_.pings;
      for_addressed([&](Slot& slot) { answer(slot, slot.servo->error_bits(), {}); });
      return true;
    case kRead: {
      if (parameters.size() != 2 || !fits(parameters[0], parameters[1]) || is_broadcast) return false;
      ++counters_.reads;
      for_addressed([&](Slot& slot) {
        std::array<std::uint8_t, kNumRegisters> data;
        const std::span<std::uint8_t> out(data.data(), parameters[1]);
        slot.servo->read(parameters[0], out);
        answer(slot, slot.servo->error_bits(), out);
      });
      return true;
    }
    case kWrite:
    case kRegWrite:
      if (parameters.size() < 2 || !fits(parameters[0], parameters.size() - 1)) return false;
      ++(instruction == kWrite ? counters_.writes : counters_.reg_writes);
      for_addressed([&](Slot& slot) {
        if (instruction == kRegWrite) {
          slot.servo->prepare_write(parameters[0], parameters.subspan(1));
        } else {
          apply(event, slot, slot.servo->write(parameters[0], parameters.subspan(1)));
        }
        if (!is_broadcast && slot.servo->answers_writes()) answer(slot, slot.servo->error_bits(), {});
      });
      return true;
    case kAction:
      if (!parameters.empty()) return false;
      ++counters_.actions;
      for_addressed([&](Slot& slot) {
        apply(event, slot, slot.servo->commit_write());
        if (!is_broadcast && slot.servo->answers_writes()) answer(slot, slot.servo->error_bits(), {});
      });
      return true;
    case kSyncRead:
      return is_broadcast && sync_read(parameters);
    case kSyncWrite:
      return is_broadcast && sync_write(event, parameters);
    default:
      ++counters_.unknown_instructions;
      return true;
  }
}

bool StsBus::sync_read(std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() < 3 || !fits(parameters[0], parameters[1])) return false;
  ++counters_.sync_reads;
  std::array<std::uint8_t, kNumRegisters> data;
  const std::span<std::uint8_t> out(data.data(), parameters[1]);
  for (const std::uint8_t id : parameters.subspan(2)) {
    const bool is_heard = for_listeners(id, [&](Slot& slot) {
      slot.servo->read(parameters[0], out);
      answer(slot, slot.servo->error_bits(), out);
    });
    if (!is_heard) wait_for_missing(out.size() + 6);  // the others wait for the missing one's slot to pass
  }
  return true;
}

bool StsBus::sync_write(Event& event, std::span<const std::uint8_t> parameters) noexcept {
  if (parameters.size() < 4 || !fits(parameters[0], parameters[1])) return false;
  const std::size_t group = parameters[1] + 1u;
  if ((parameters.size() - 2) % group != 0) return false;
  ++counters_.sync_writes;
  for (std::size_t at = 2; at < parameters.size(); at += group) {
    const bool is_heard = for_listeners(parameters[at], [&](Slot& slot) {
      apply(event, slot, slot.servo->write(parameters[0], parameters.subspan(at + 1, group - 1)));
    });
    if (!is_heard) ++counters_.unanswered;
  }
  return true;
}

}  // namespace wallx::emulator
