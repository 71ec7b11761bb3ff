// Buses: BusConfig, the two sorts of bus for set-up, measurements and tests, and the mailbox's adapter side.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "bindings/core/register.hpp"
#include "drivers/buses/mailbox.hpp"
#include "drivers/buses/registry.hpp"
#include "drivers/buses/stepped_bus.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

TimePoint after(double timeout_s) { return Clock::now() + to_duration(Seconds(timeout_s)); }

template <class Port>
void check(const Result& result, const Port& bus) {
  if (result.ok()) return;
  std::string message = "bus " + bus.name() + ": " + to_string(result.code);
  if (const std::string trouble = bus.trouble(); !trouble.empty())
    message += ": " + trouble;
  else if (result.code == ErrorCode::bus_closed && result.detail == kBusOff)
    message += ": bus-off, the controller counted too many errors; check wiring, termination and bit rate";
  else if (result.code == ErrorCode::bus_closed && result.detail > 0)
    message += std::string(": ") + std::strerror(result.detail);
  else if (result.detail != 0)
    message += " (" + std::to_string(result.detail) + ")";
  if (result.code == ErrorCode::timeout) throw BusTimeout(message);
  throw BusError(message);
}

// nothing in time is no error
template <class Item, class Port>
std::vector<Item> receive(Port& bus, double timeout_s) {
  std::vector<Item> items(std::is_same_v<Item, CanFrame> ? 64 : 4096);
  std::size_t received = 0;
  const Result result = bus.receive(std::span<Item>(items), after(timeout_s), received);
  if (result.code != ErrorCode::timeout) check(result, bus);
  items.resize(received);
  return items;
}

template <class Item>
std::vector<Item> collect(Mailbox<Item>& mailbox, double timeout_s) {
  std::vector<Item> items(std::is_same_v<Item, CanFrame> ? 64 : 4096);
  std::size_t count = 0;
  const Result result = mailbox.collect(std::span<Item>(items), after(timeout_s), count);
  if (result.code == ErrorCode::bus_closed) throw BusError("bus mailbox: bus closed");
  items.resize(count);
  return items;
}

py::bytes to_bytes(const std::vector<std::uint8_t>& data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

std::span<const std::uint8_t> view(const std::string& data) {
  return {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()};
}

// what both sorts share
template <class Class>
void add_line(Class& bus) {
  using Port = typename Class::type;
  bus.def("open", &Port::open, py::call_guard<py::gil_scoped_release>(),
          "Takes the device. Blocks briefly. Raises BusError.")
      .def("close", &Port::close, py::call_guard<py::gil_scoped_release>(), "Idempotent.")
      .def("discard_input",
           [](Port& self) {
             const py::gil_scoped_release release;
             check(self.discard_input(), self);
           })
      .def_property_readonly("is_open", &Port::is_open)
      .def_property_readonly("name", &Port::name);
}

template <class Class>
void add_mailbox(Class& mailbox) {
  using Box = typename Class::type;
  mailbox
      .def(py::init([](double max_age_s) { return std::make_shared<Box>(to_duration(Seconds(max_age_s))); }),
           py::arg("max_age_s") = 0.02)
      .def("connect", &Box::connect)
      .def("disconnect", &Box::disconnect, "The bus is closed from now on, and waits end.")
      .def_property_readonly("num_dropped", &Box::num_dropped, "Stale, or without room in the loop's ring.");
}

}  // namespace

void register_bus(py::module_& m) {
  py::class_<CanFrame>(m, "CanFrame", "One CAN data frame.")
      .def(py::init([](std::uint32_t id, const py::bytes& data, bool is_extended, bool is_fd,
                       bool is_bit_rate_switched) {
             const auto content = std::string_view(data);
             CanFrame frame;
             if (content.size() > frame.data.size())
               throw ConfigError("CAN frame has " + std::to_string(content.size()) +
                                 " bytes, must be at most 64");
             frame.id = id;
             frame.is_extended = is_extended;
             frame.is_fd = is_fd;
             frame.is_bit_rate_switched = is_bit_rate_switched;
             frame.size = static_cast<std::uint8_t>(content.size());
             std::memcpy(frame.data.data(), content.data(), content.size());
             if (!is_valid(frame))
               throw ConfigError(
                   "CAN frame with id " + std::to_string(id) + " and " + std::to_string(frame.size) +
                   " bytes cannot exist; ids have 11 bits, or 29 when extended; sizes are 0..8, FD also "
                   "12, 16, 20, 24, 32, 48, 64; only FD switches bit rates");
             return frame;
           }),
           py::arg("id"), py::arg("data") = py::bytes(), py::kw_only(), py::arg("is_extended") = false,
           py::arg("is_fd") = false, py::arg("is_bit_rate_switched") = false)
      .def_readonly("id", &CanFrame::id)
      .def_property_readonly("data",
                             [](const CanFrame& frame) {
                               return py::bytes(reinterpret_cast<const char*>(frame.data.data()), frame.size);
                             })
      .def_readonly("is_extended", &CanFrame::is_extended)
      .def_readonly("is_fd", &CanFrame::is_fd)
      .def_readonly("is_bit_rate_switched", &CanFrame::is_bit_rate_switched)
      .def_property_readonly(
          "received_at",
          [](const CanFrame& frame) { return to_seconds(frame.received_at.time_since_epoch()); },
          "CLOCK_MONOTONIC [s]; 0: it was not received.")
      .def("__repr__", [](const CanFrame& frame) {
        return "CanFrame(id=" + std::to_string(frame.id) + ", " + std::to_string(frame.size) + " bytes)";
      });

  py::class_<ByteMailbox, std::shared_ptr<ByteMailbox>> bytes(m, "ByteMailbox",
                                                              "A loop's bytes, to and from an adapter.");
  add_mailbox(bytes);
  bytes
      .def(
          "deliver", [](ByteMailbox& self, const std::string& data) { self.deliver(view(data)); },
          py::arg("data"))
      .def(
          "collect",
          [](ByteMailbox& self, double timeout_s) {
            std::vector<std::uint8_t> data;
            {
              const py::gil_scoped_release release;
              data = collect(self, timeout_s);
            }
            return to_bytes(data);
          },
          py::arg("timeout_s"),
          "Bytes to send; none in time: empty. Blocks. Raises BusError once disconnected.");
  py::class_<CanMailbox, std::shared_ptr<CanMailbox>> frames(m, "CanMailbox",
                                                             "A loop's frames, to and from an adapter.");
  add_mailbox(frames);
  frames
      .def(
          "deliver", [](CanMailbox& self, const std::vector<CanFrame>& items) { self.deliver(items); },
          py::arg("frames"))
      .def("collect", &collect<CanFrame>, py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>(),
           "Frames to send; none in time: empty. Blocks. Raises BusError once disconnected.");

  py::class_<SteppedLine, std::shared_ptr<SteppedLine>>(m, "SteppedLine",
                                                        "An emulated line on a simulated clock.")
      .def(py::init([](py::function exchange, std::int64_t now_ns) {
             return std::make_shared<SteppedLine>(
                 [exchange = std::move(exchange)](std::span<const std::uint8_t> output, TimePoint now) {
                   const py::gil_scoped_acquire acquire;
                   const py::bytes sent(reinterpret_cast<const char*>(output.data()), output.size());
                   const auto said = exchange(sent, now.time_since_epoch().count()).cast<py::tuple>();
                   const std::string answer = said[0].cast<std::string>();
                   return std::pair(std::vector<std::uint8_t>(answer.begin(), answer.end()),
                                    TimePoint(Duration(said[1].cast<std::int64_t>())));
                 },
                 TimePoint(Duration(now_ns)));
           }),
           py::arg("exchange"), py::arg("now_ns"))
      .def(
          "advance",
          [](SteppedLine& self, std::int64_t now_ns) { self.advance(TimePoint(Duration(now_ns))); },
          py::arg("now_ns"));

  py::class_<BusConfig>(m, "BusConfig", "Which line a robot's motors are on.")
      .def(py::init([](std::string kind, std::string port, int baud_rate, int bit_rate, int data_bit_rate,
                       std::string interface, std::string record, std::shared_ptr<ByteMailbox> byte_mailbox,
                       std::shared_ptr<CanMailbox> can_mailbox, std::shared_ptr<SteppedLine> stepped_line) {
             return BusConfig{
                 std::move(kind),        std::move(port),        baud_rate,         bit_rate,
                 data_bit_rate,          std::move(interface),   std::move(record), std::move(byte_mailbox),
                 std::move(can_mailbox), std::move(stepped_line)};
           }),
           py::kw_only(), py::arg("kind") = "serial", py::arg("port") = "", py::arg("baud_rate") = 1'000'000,
           py::arg("bit_rate") = 1'000'000, py::arg("data_bit_rate") = 0, py::arg("interface") = "",
           py::arg("record") = "", py::arg("byte_mailbox") = nullptr, py::arg("can_mailbox") = nullptr,
           py::arg("stepped_line") = nullptr)
      .def_readonly("kind", &BusConfig::kind)
      .def_readonly("port", &BusConfig::port, "Device, network interface, group address or file.")
      .def_readonly("baud_rate", &BusConfig::baud_rate, "Of a serial device [bit/s].")
      .def_readonly("bit_rate", &BusConfig::bit_rate, "Of CAN arbitration [bit/s].")
      .def_readonly("data_bit_rate", &BusConfig::data_bit_rate, "Of CAN FD data; 0: classic CAN [bit/s].")
      .def_readonly("interface", &BusConfig::interface,
                    "udp_multicast: network interface; replay: channel in the log.")
      .def_readonly("record", &BusConfig::record, "Log of everything that goes over the line; empty: none.")
      .def("__repr__", [](const BusConfig& config) {
        return "BusConfig(kind='" + config.kind + "', port='" + config.port + "')";
      });

  py::class_<Bus> bus(m, "Bus",
                      "A line of bytes, for set-up, measurements and tests; a robot's loop has its own.");
  add_line(bus);
  bus.def(
         "transmit",
         [](Bus& self, const std::string& data, double timeout_s) {
           const py::gil_scoped_release release;
           check(self.transmit(view(data), after(timeout_s)), self);
         },
         py::arg("data"), py::arg("timeout_s") = 1.0, "Blocks. Raises BusTimeout, BusError.")
      .def(
          "receive",
          [](Bus& self, double timeout_s) {
            std::vector<std::uint8_t> data;
            {
              const py::gil_scoped_release release;
              data = receive<std::uint8_t>(self, timeout_s);
            }
            return to_bytes(data);
          },
          py::arg("timeout_s"), "What is there; nothing in time: empty. Blocks. Raises BusError.");

  py::class_<CanBus> can(m, "CanBus", "A line of CAN frames, for set-up, measurements and tests.");
  add_line(can);
  can.def_property_readonly("is_fd", &CanBus::is_fd)
      .def_property_readonly("num_ignored", &CanBus::num_ignored, "What arrived and was no data frame.")
      .def(
          "transmit",
          [](CanBus& self, const std::vector<CanFrame>& items, double timeout_s) {
            check(self.transmit(items, after(timeout_s)), self);
          },
          py::arg("frames"), py::arg("timeout_s") = 1.0, py::call_guard<py::gil_scoped_release>(),
          "Blocks. Raises BusTimeout, BusError.")
      .def(
          "receive", [](CanBus& self, double timeout_s) { return receive<CanFrame>(self, timeout_s); },
          py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>(),
          "What is there; nothing in time: empty. Blocks. Raises BusError.");

  m.def("make_bus", &make_bus, py::arg("config"), "Opens nothing. Raises ConfigError.");
  m.def("make_can_bus", &make_can_bus, py::arg("config"), "Opens nothing. Raises ConfigError.");
}

}  // namespace wallx
