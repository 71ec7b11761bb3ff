// CanArmEmulator for Python: emulated Damiao motors on a CAN line, running behind slcan or UDP multicast.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "base/errors.hpp"
#include "bindings/emulator/register.hpp"
#include "emulator/dm_host.hpp"

namespace py = pybind11;

namespace wallx::emulator {
namespace {

class CanArmEmulator {
 public:
  CanArmEmulator(std::vector<DmSetup> motors, std::uint64_t seed, int bit_rate, int data_bit_rate)
      : motors_(std::move(motors)),
        options_{.rates = {bit_rate, data_bit_rate}, .seed = seed},
        bus_(std::make_unique<DmBus>(motors_, options_)) {}

  void start(const std::string& bus, const std::string& link, const std::string& group,
             const std::string& interface, const std::string& log) {
    if (host_) throw DeviceError("the emulated arm already runs on " + host_->port() + "; stop() it first");
    host_ = std::make_unique<DmHost>(motors_, options_, DmHostOptions{bus, link, group, interface, log});
    bus_.reset();
  }
  void stop() {
    if (host_) host_->stop();
  }

  // runs `body` on the bus, wherever it lives
  template <class Body>
  auto use(Body&& body) {
    if (!host_) return body(*bus_);
    std::optional<decltype(body(*bus_))> result;
    host_->with_bus([&](DmBus& bus) { result = body(bus); });
    return std::move(*result);
  }

  void set_fault(const std::string& kind, std::optional<int> id, std::optional<double> value) {
    const FaultRow& row = find_fault(kind);
    const int drive = id.value_or(kEveryDrive);
    const double amount = value.value_or(row.preset);
    check_fault("damiao", DmBus::kFaults, row.kind, drive, amount);
    if (row.kind == FaultKind::unplug) running().unplug();
    check_found(use([&](DmBus& bus) { return bus.set_fault(row.kind, drive, amount); }), drive);
  }
  void clear_fault(const std::string& kind, std::optional<int> id) {
    const FaultRow& row = find_fault(kind);
    const int drive = id.value_or(kEveryDrive);
    if (row.kind == FaultKind::unplug) running().plug_in();
    check_found(use([&](DmBus& bus) { return bus.clear_fault(row.kind, drive); }), drive);
  }

  void hand(int id, std::optional<double> share) {
    if (share && !(*share >= 0 && *share <= 1))
      throw ConfigError("a hand moves to a share of the travel in 0..1, got " + std::to_string(*share));
    const bool is_found = use([&](DmBus& bus) {
      DmMotor* motor = bus.find(id);
      if (motor) motor->set_hand(share.value_or(std::numeric_limits<double>::quiet_NaN()));
      return motor != nullptr;
    });
    check_found(is_found, id);
  }

  template <class Value>
  auto by_id(Value&& value) {
    return use([&](DmBus& bus) {
      std::map<int, std::decay_t<decltype(value(bus.motor(0)))>> values;
      for (std::size_t i = 0; i < bus.num_motors(); ++i) values[bus.motor(i).id()] = value(bus.motor(i));
      return values;
    });
  }
  const DmHost* host() const { return host_.get(); }

 private:
  DmHost& running() {
    if (!host_) throw DeviceError("only a started arm has a port to pull; call start() first");
    return *host_;
  }
  static void check_found(bool is_found, int id) {
    if (!is_found) throw ConfigError("no emulated motor has the id " + std::to_string(id));
  }

  std::vector<DmSetup> motors_;
  DmBusOptions options_;
  std::unique_ptr<DmBus> bus_;
  std::unique_ptr<DmHost> host_;
};

using Release = py::call_guard<py::gil_scoped_release>;

void register_motor_setup(py::module_& m) {
  py::class_<DmSetup> c(m, "MotorSetup");
  c.def_readwrite("name", &DmSetup::name)
      .def_readwrite("id", &DmSetup::id)
      .def_readwrite("feedback_id", &DmSetup::feedback_id)
      .def_readwrite("mode", &DmSetup::mode)
      .def_readwrite("timeout", &DmSetup::timeout)
      .def_readwrite("pmax", &DmSetup::pmax)
      .def_readwrite("vmax", &DmSetup::vmax)
      .def_readwrite("tmax", &DmSetup::tmax)
      .def_readwrite("peak_torque", &DmSetup::peak_torque)
      .def_readwrite("software", &DmSetup::software)
      .def_readwrite("serial", &DmSetup::serial)
      .def_readwrite("position", &DmSetup::position)
      .def_readwrite("stop_min", &DmSetup::stop_min)
      .def_readwrite("stop_max", &DmSetup::stop_max)
      .def_readwrite("inertia", &DmSetup::inertia)
      .def_readwrite("damping", &DmSetup::damping)
      .def_readwrite("friction", &DmSetup::friction)
      .def_readwrite("gravity", &DmSetup::gravity)
      .def_readwrite("pitch_sign", &DmSetup::pitch_sign)
      .def_readwrite("pitch", &DmSetup::pitch);
  c.def(py::init([](const py::kwargs& fields) {
    py::object setup = py::cast(DmSetup{});
    for (const auto& [name, value] : fields) {
      if (!py::hasattr(setup, name))
        throw py::type_error("MotorSetup has no field " + std::string(py::str(name)));
      py::setattr(setup, name, value);
    }
    return setup.cast<DmSetup>();
  }));
}

}  // namespace

void register_can_arm(py::module_& m) {
  register_motor_setup(m);
  py::class_<CanArmEmulator> c(m, "CanArmEmulator");
  c.def(py::init<std::vector<DmSetup>, std::uint64_t, int, int>(), py::arg("motors"), py::kw_only(),
        py::arg("seed") = 0, py::arg("bit_rate") = 1'000'000, py::arg("data_bit_rate") = 5'000'000);
  c.def("start", &CanArmEmulator::start, py::kw_only(), py::arg("bus") = "slcan", py::arg("link") = "",
        py::arg("group") = "239.74.163.2", py::arg("interface") = "", py::arg("log") = "", Release());
  c.def("stop", &CanArmEmulator::stop, Release());
  c.def_property_readonly("port",
                          [](const CanArmEmulator& arm) { return arm.host() ? arm.host()->port() : ""; });
  c.def_property_readonly("is_realtime",
                          [](const CanArmEmulator& arm) { return arm.host() && arm.host()->is_realtime(); });
  c.def("set_fault", &CanArmEmulator::set_fault, py::arg("kind"), py::arg("id") = py::none(),
        py::arg("value") = py::none(), Release());
  c.def("clear_fault", &CanArmEmulator::clear_fault, py::arg("kind"), py::arg("id") = py::none(), Release());
  c.def("hand", &CanArmEmulator::hand, py::arg("id"), py::arg("share") = py::none(), Release());
  c.def_property_readonly("positions", [](CanArmEmulator& arm) {
    return arm.by_id([](DmMotor& motor) { return motor.position(); });
  });
  c.def_property_readonly(
      "goals", [](CanArmEmulator& arm) { return arm.by_id([](DmMotor& motor) { return motor.goal(); }); });
  c.def_property_readonly("torques", [](CanArmEmulator& arm) {
    return arm.by_id([](DmMotor& motor) { return int{motor.is_on()}; });
  });
  c.def_property_readonly("counters", [](CanArmEmulator& arm) {
    py::dict all;
    const auto add = [&](const char* name, auto value) { all[name] = value; };
    for_each_counter(arm.use([](DmBus& bus) { return bus.counters(); }), add);
    if (arm.host()) for_each_counter(arm.host()->counters(), add);
    return all;
  });
}

}  // namespace wallx::emulator
