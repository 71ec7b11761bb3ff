// DxlBus: instruction parsing and answers of Dynamixel servos.
// SPDX-License-Identifier: Apache-2.0
#include "emulator/dxl_bus.hpp"

namespace wallx::emulator {
namespace {

constexpr std::uint8_t kPing = 0x01, kRead = 0x02, kWrite = 0x03, kRegWrite = 0x04, kAction = 0x05,
                       kReboot = 0x08, kClear = 0x10, kSyncRead = 0x82, kSyncWrite = 0x83,
                       kFastSyncRead = 0x8A, kBulkRead = 0x92, kBulkWrite = 0x93, kFastBulkRead = 0x9A;
constexpr std::uint8_t kStatus = 0x55;
constexpr Duration kRebootTime = std::chrono::milliseconds(200);
constexpr std::array<std::uint8_t, 5> kClearKey{0x01, 0x44, 0x58, 0x4C, 0x22};
constexpr std::size_t kMaxAsks = 256;

// x^16 + x^15 + x^2 + 1, bit by bit
std::uint16_t remainder(std::uint16_t crc, std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) {
    crc = static_cast<std::uint16_t>(crc ^ byte << 8);
    for (int bit = 0; bit < 8; ++bit)
      crc = static_cast<std::uint16_t>(crc & 0x8000 ? (crc << 1) ^ 0x8005 : crc << 1);
  }
  return crc;
}

int word_of(std::span<const std::uint8_t> bytes, std::size_t at) { return bytes[at] | bytes[at + 1] << 8; }

bool fits(int address, int size) {
  return size > 0 && address + size <= static_cast<int>(DxlServo::kNumRegisters);
}

}  // namespace

DxlBus::DxlBus(std::span<const ServoSetup> setups, const BusOptions& options, EventRing* events)
    : SerialLine(options, events) {
  std::vector<std::unique_ptr<Servo>> servos;
  for (const ServoSetup& setup : setups) servos.push_back(std::make_unique<DxlServo>(setup));
  add_servos(std::move(servos));
}

std::size_t DxlBus::consume(std::span<const std::uint8_t> packet, TimePoint at) noexcept {
  constexpr std::uint8_t kHeader[] = {0xFF, 0xFF, 0xFD, 0x00};
  for (std::size_t i = 0; i < std::min<std::size_t>(packet.size(), 4); ++i)
    if (packet[i] != kHeader[i]) return 1;
  if (packet.size() < 7) return 0;
  const auto length = static_cast<std::size_t>(word_of(packet, 5));
  if (length < 3 || length > kMaxBody + 2) return 1;
  const std::size_t total = length + 7;
  if (packet.size() < total) return 0;
  if (remainder(0, packet.first(total - 2)) != word_of(packet, total - 2)) {
    ++counters_.checksum_errors;
    record(EventKind::checksum_error, at);
    return 1;
  }
  // FF FF FD FD on the wire is FF FF FD
  std::size_t size = 0;
  int num_matched = 0;
  for (std::size_t i = 7; i < total - 2; ++i) {
    const std::uint8_t byte = packet[i];
    if (num_matched == 3) {
      num_matched = 0;
      if (byte == 0xFD) continue;
      ++counters_.malformed;
      record(EventKind::malformed, at);
      return 1;
    }
    body_[size++] = byte;
    if (byte == 0xFF) {
      num_matched = std::min(num_matched + 1, 2);
    } else {
      num_matched = byte == 0xFD && num_matched == 2 ? 3 : 0;
    }
  }
  if (body_[0] != kStatus) execute(at, packet[4], body_[0], {body_.data() + 1, size - 1});
  return total;
}

std::size_t DxlBus::seal(std::uint8_t id, std::uint8_t error, std::span<const std::uint8_t> parameters,
                         std::span<std::uint8_t> out) const noexcept {
  out[0] = out[1] = 0xFF;
  out[2] = 0xFD;
  out[3] = 0;
  out[4] = id;
  out[7] = kStatus;
  out[8] = error;
  std::size_t size = 9;
  int num_matched = error == 0xFF;
  for (const std::uint8_t byte : parameters) {
    out[size++] = byte;
    if (byte == 0xFD && num_matched == 2) out[size++] = 0xFD;
    num_matched = byte == 0xFF ? std::min(num_matched + 1, 2) : 0;
  }
  const std::size_t length = size - 7 + 2;
  out[5] = static_cast<std::uint8_t>(length & 0xFF);
  out[6] = static_cast<std::uint8_t>(length >> 8);
  const std::uint16_t crc = remainder(0, out.first(size));
  out[size++] = static_cast<std::uint8_t>(crc & 0xFF);
  out[size++] = static_cast<std::uint8_t>(crc >> 8);
  return size;
}

bool DxlBus::execute_one(Event& event, std::uint8_t instruction,
                         std::span<const std::uint8_t> parameters) noexcept {
  const bool is_broadcast = event.id == kBroadcastId;
  switch (instruction) {
    case kPing:
      if (!parameters.empty()) return false;
      ++counters_.pings;
      if (is_broadcast) {
        for (int id = 0; id < kBroadcastId; ++id) for_listeners(id, [&](Slot& slot) { answer_ping(slot); });
      } else if (!for_listeners(event.id, [&](Slot& slot) { answer_ping(slot); })) {
        ++counters_.unanswered;
      }
      return true;
    case kRead:
      if (parameters.size() != 4 || is_broadcast) return false;
      ++counters_.reads;
      if (!for_listeners(event.id, [&](Slot& slot) {
            answer_read(slot, word_of(parameters, 0), word_of(parameters, 2));
          }))
        ++counters_.unanswered;
      return true;
    case kSyncRead:
    case kFastSyncRead:
    case kBulkRead:
    case kFastBulkRead:
      return is_broadcast && read_many(instruction, parameters);
    case kSyncWrite:
    case kBulkWrite:
      return is_broadcast && write_many(event, instruction, parameters);
    default:
      return act(event, instruction, parameters);
  }
}

void DxlBus::answer_ping(Slot& slot) noexcept {
  const Servo& servo = *slot.servo;
  const std::uint8_t data[] = {servo.value(dxl::kModel), servo.value(dxl::kModel + 1),
                               servo.value(dxl::kFirmware)};
  answer(slot, servo.error_bits(), data);
}

void DxlBus::answer_read(Slot& slot, int address, int size) noexcept {
  if (!drive(slot).answers_reads()) return;
  if (!fits(address, size)) {
    answer(slot, static_cast<std::uint8_t>(slot.servo->error_bits() | dxl::kRangeError), {});
    return;
  }
  std::array<std::uint8_t, DxlServo::kNumRegisters> data;
  const std::span<std::uint8_t> out(data.data(), static_cast<std::size_t>(size));
  slot.servo->read(address, out);
  answer(slot, slot.servo->error_bits(), out);
}

// what changes something in the servos addressed
bool DxlBus::act(Event& event, std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept {
  const bool is_broadcast = event.id == kBroadcastId;
  const bool is_write = instruction == kWrite || instruction == kRegWrite;
  if (is_write && parameters.size() < 3) return false;
  if ((instruction == kAction || instruction == kReboot) && !parameters.empty()) return false;
  const int address = is_write ? word_of(parameters, 0) : 0;
  const auto data = is_write ? parameters.subspan(2) : parameters;

  const auto body = [&](Slot& slot) {
    std::uint8_t error = 0;
    const bool answers = !is_broadcast && slot.servo->answers_writes();
    const auto with = [&](const WriteEffect& effect) {
      apply(event, slot, effect);
      error = effect.error;
    };
    switch (instruction) {
      case kWrite:
        with(fits(address, static_cast<int>(data.size())) ? slot.servo->write(address, data)
                                                          : WriteEffect{.error = dxl::kRangeError});
        break;
      case kRegWrite:
        if (fits(address, static_cast<int>(data.size())))
          slot.servo->prepare_write(address, data);
        else
          error = dxl::kRangeError;
        break;
      case kAction:
        with(slot.servo->commit_write());
        break;
      case kClear:
        if (!std::equal(data.begin(), data.end(), kClearKey.begin(), kClearKey.end()))
          error = dxl::kRangeError;
        else if (!drive(slot).forget_turns())
          error = dxl::kResultFail;
        break;
      case kReboot:
        break;
      default:
        error = dxl::kInstructionError;
    }
    if (answers) answer(slot, static_cast<std::uint8_t>(slot.servo->error_bits() | error), {});
    if (instruction == kReboot) {
      slot.servo->power_cycle();
      slot.boots_at = now_ + kRebootTime;
    }
  };
  switch (instruction) {
    case kWrite:
      ++counters_.writes;
      break;
    case kRegWrite:
      ++counters_.reg_writes;
      break;
    case kAction:
      ++counters_.actions;
      break;
    case kReboot:
      ++counters_.reboots;
      break;
    case kClear:
      break;
    default:
      ++counters_.unknown_instructions;
  }
  if (is_broadcast) {
    for (Slot& slot : slots_)
      if (is_listening(slot, slot.listens_to())) body(slot);
  } else if (!for_listeners(event.id, body)) {
    ++counters_.unanswered;
  }
  return true;
}

bool DxlBus::read_many(std::uint8_t instruction, std::span<const std::uint8_t> parameters) noexcept {
  const bool is_bulk = instruction == kBulkRead || instruction == kFastBulkRead;
  std::array<Ask, kMaxAsks> asks;
  std::size_t count = 0;
  if (is_bulk) {
    if (parameters.empty() || parameters.size() % 5 != 0 || parameters.size() / 5 > asks.size()) return false;
    for (std::size_t at = 0; at < parameters.size(); at += 5)
      asks[count++] = {parameters[at], word_of(parameters, at + 1), word_of(parameters, at + 3)};
  } else {
    if (parameters.size() < 5 || parameters.size() - 4 > asks.size()) return false;
    for (const std::uint8_t id : parameters.subspan(4))
      asks[count++] = {id, word_of(parameters, 0), word_of(parameters, 2)};
  }
  for (std::size_t i = 0; i < count; ++i)
    if (!fits(asks[i].address, asks[i].size)) return false;
  ++(is_bulk ? counters_.bulk_reads : counters_.sync_reads);
  if (instruction == kSyncRead || instruction == kBulkRead)
    one_by_one({asks.data(), count});
  else
    in_one_packet({asks.data(), count});
  return true;
}

void DxlBus::one_by_one(std::span<const Ask> asks) noexcept {
  for (const Ask& ask : asks) {
    if (!for_listeners(ask.id, [&](Slot& slot) { answer_read(slot, ask.address, ask.size); }))
      wait_for_missing(static_cast<std::size_t>(ask.size) + 11);
  }
}

// Each servo continues the packet of the one before it; the first that is missing ends it. No stuffing. Every
// part ends with the crc of all that went before it.
void DxlBus::in_one_packet(std::span<const Ask> asks) noexcept {
  std::size_t length = 1;
  for (const Ask& ask : asks) length += static_cast<std::size_t>(ask.size) + 4;
  std::array<std::uint8_t, DxlServo::kNumRegisters + 16> part{0xFF,
                                                              0xFF,
                                                              0xFD,
                                                              0x00,
                                                              kBroadcastId,
                                                              static_cast<std::uint8_t>(length & 0xFF),
                                                              static_cast<std::uint8_t>(length >> 8),
                                                              kStatus};
  std::size_t size = 8;
  std::uint16_t crc = 0;
  for (const Ask& ask : asks) {
    bool is_whole = false;
    const bool is_heard = for_listeners(ask.id, [&](Slot& slot) {
      part[size++] = slot.servo->error_bits();
      const FaultSet& faults = slot.servo->faults();
      part[size++] = static_cast<std::uint8_t>(
          faults.has(FaultKind::wrong_id) ? faults.value(FaultKind::wrong_id) : slot.listens_to());
      slot.servo->read(ask.address, {part.data() + size, static_cast<std::size_t>(ask.size)});
      size += static_cast<std::size_t>(ask.size);
      crc = remainder(crc, {part.data(), size});
      part[size++] = static_cast<std::uint8_t>(crc & 0xFF);
      part[size++] = static_cast<std::uint8_t>(crc >> 8);
      crc = remainder(crc, {part.data() + size - 2, 2});
      is_whole = send(slot, {part.data(), size}, {part.data(), size - 1});
    });
    if (!is_heard) ++counters_.unanswered;
    if (!is_whole) return;
    size = 0;
  }
}

bool DxlBus::write_many(Event& event, std::uint8_t instruction,
                        std::span<const std::uint8_t> parameters) noexcept {
  const bool is_bulk = instruction == kBulkWrite;
  if (parameters.size() < 6) return false;
  const std::size_t sync_size = static_cast<std::size_t>(word_of(parameters, 2));
  if (!is_bulk && (sync_size == 0 || (parameters.size() - 4) % (sync_size + 1) != 0)) return false;
  // first look, then write: a packet that is wrong at its end does nothing
  for (const bool is_for_real : {false, true}) {
    for (std::size_t at = is_bulk ? 0 : 4; at < parameters.size();) {
      const std::uint8_t id = parameters[at++];
      if (is_bulk && at + 4 > parameters.size()) return false;
      const int address = word_of(parameters, is_bulk ? at : 0);
      const std::size_t size = is_bulk ? static_cast<std::size_t>(word_of(parameters, at + 2)) : sync_size;
      at += is_bulk ? 4 : 0;
      if (at + size > parameters.size() || !fits(address, static_cast<int>(size))) return false;
      const auto data = parameters.subspan(at, size);
      at += size;
      if (!is_for_real) continue;
      if (!for_listeners(id, [&](Slot& slot) { apply(event, slot, slot.servo->write(address, data)); }))
        ++counters_.unanswered;
    }
  }
  ++(is_bulk ? counters_.bulk_writes : counters_.sync_writes);
  return true;
}

}  // namespace wallx::emulator
