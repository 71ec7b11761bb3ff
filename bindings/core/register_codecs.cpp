// Codecs for Python: the frames that the drivers send, for tests against other implementations and for
// benchmarks. SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <chrono>

#include "base/errors.hpp"
#include "bindings/core/register.hpp"
#include "drivers/motors/codec_times.hpp"
#include "drivers/motors/dynamixel/dxl_protocol.hpp"
#include "drivers/motors/sync_read_times.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

py::bytes dynamixel_frame(const std::string& instruction, int id, int address, int size,
                          const std::vector<std::uint8_t>& ids, const std::string& data) {
  const auto id8 = static_cast<std::uint8_t>(id);
  const auto at = static_cast<std::uint16_t>(address);
  const auto num_bytes = static_cast<std::uint16_t>(size);
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(data.data()), data.size());
  dynamixel::Frame frame;
  if (instruction == "ping") frame = dynamixel::encode_ping(id8);
  if (instruction == "reboot") frame = dynamixel::encode_reboot(id8);
  if (instruction == "read") frame = dynamixel::encode_read(id8, at, num_bytes);
  if (instruction == "write") frame = dynamixel::encode_write(id8, at, bytes);
  if (instruction == "sync_read")
    frame = dynamixel::encode_sync_read(dynamixel::Instruction::sync_read, at, num_bytes, ids);
  if (instruction == "fast_sync_read")
    frame = dynamixel::encode_sync_read(dynamixel::Instruction::fast_sync_read, at, num_bytes, ids);
  if (instruction == "sync_write") frame = dynamixel::encode_sync_write(at, num_bytes, ids, bytes);
  if (frame.bytes().empty())
    throw ConfigError("no Dynamixel frame for '" + instruction + "' with these values: unknown, or too long");
  return py::bytes(reinterpret_cast<const char*>(frame.bytes().data()), frame.bytes().size());
}

}  // namespace

void register_codecs(py::module_& m) {
  m.def(
      "dynamixel_frame", &dynamixel_frame, py::arg("instruction"), py::kw_only(), py::arg("id") = 0,
      py::arg("address") = 0, py::arg("size") = 0, py::arg("ids") = std::vector<std::uint8_t>{},
      py::arg("data") = py::bytes(),
      "The request that the Dynamixel driver sends: ping, reboot, read, write, sync_read, fast_sync_read or "
      "sync_write.\n\nRaises ConfigError.");
  m.def("codec_times", &codec_times, py::arg("rounds"), py::call_guard<py::gil_scoped_release>(),
        "Time to encode the goal of one motor and to decode its state, by motor family [s]; blocks.");
  m.def(
      "sync_read_times",
      [](const BusConfig& bus, const std::vector<std::uint8_t>& ids, int num_reads) {
        SyncReadTimes times;
        {
          py::gil_scoped_release release;
          times = sync_read_times(bus, ids, num_reads);
        }
        py::dict all;
        all["num_reads"] = times.num_reads;
        all["num_failed"] = times.num_failed;
        all["wall_s"] = times.wall_seconds;
        all["cpu_s"] = times.cpu_seconds;
        return all;
      },
      py::arg("bus"), py::arg("ids"), py::arg("num_reads"),
      "Reads registers 56..63 of Feetech STS servos again and again, on a thread of its own; blocks.\n\n"
      "Raises BusError, ConfigError.");
}

}  // namespace wallx
