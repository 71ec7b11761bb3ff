// ArmEmulator for Python: one bus, either stepped by the caller or running behind a pseudo-terminal.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>

#include "base/errors.hpp"
#include "bindings/emulator/register.hpp"
#include "emulator/pty_host.hpp"
#include "emulator/registry.hpp"

namespace py = pybind11;

namespace wallx::emulator {
namespace {

TimePoint at_ns(std::int64_t ns) { return TimePoint(std::chrono::nanoseconds(ns)); }
std::int64_t to_ns(TimePoint at) { return std::chrono::nanoseconds(at.time_since_epoch()).count(); }

void check_found(bool is_found, int id) {
  if (!is_found) throw ConfigError("no emulated servo has the id " + std::to_string(id));
}
class ArmEmulator {
 public:
  ArmEmulator(std::vector<ServoSetup> servos, std::uint64_t seed, int baud_rate, std::string family,
              std::shared_ptr<WorldPlant> world)
      : servos_(std::move(servos)),
        options_{.baud_rate = baud_rate, .seed = seed, .world = std::move(world)},
        family_(std::move(family)) {
    if (options_.world && family_ != "feetech_sts")
      throw ConfigError("a world moves the joints of feetech_sts servos only, not of " + family_);
    bus_ = make_line(family_, servos_, options_);
  }

  void start(const std::string& link, const std::string& log) {
    if (host_) throw DeviceError("the emulated arm already runs on " + host_->port() + "; stop() it first");
    host_ = std::make_unique<PtyHost>(family_, servos_, options_, HostOptions{link, log});
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
    host_->with_bus([&](SerialLine& bus) { result = body(bus); });
    return std::move(*result);
  }

  void set_fault(const std::string& kind, std::optional<int> id, std::optional<double> value) {
    const FaultRow& row = find_fault(kind);
    const int drive = id.value_or(kEveryDrive);
    check_fault(family_, SerialLine::kFaults, row.kind, drive, value.value_or(row.preset));
    if (row.kind == FaultKind::unplug) running().unplug();
    check_found(
        use([&](SerialLine& bus) { return bus.set_fault(row.kind, drive, value.value_or(row.preset)); }),
        drive);
  }
  void clear_fault(const std::string& kind, std::optional<int> id) {
    const FaultRow& row = find_fault(kind);
    const int drive = id.value_or(kEveryDrive);
    if (row.kind == FaultKind::unplug) running().plug_in();
    check_found(use([&](SerialLine& bus) { return bus.clear_fault(row.kind, drive); }), drive);
  }

  SerialLine& stepped() {
    if (host_)
      throw DeviceError("the emulated arm was started on " + host_->port() + ": it keeps its own time");
    return *bus_;
  }
  const PtyHost* host() const { return host_.get(); }

 private:
  PtyHost& running() {
    if (!host_) throw DeviceError("only a started arm has a port to pull; call start() first");
    return *host_;
  }

  std::vector<ServoSetup> servos_;
  BusOptions options_;
  std::string family_;
  std::unique_ptr<SerialLine> bus_;
  std::unique_ptr<PtyHost> host_;
};

std::span<const std::uint8_t> view(std::string_view bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

std::string take_due(SerialLine& bus, TimePoint now) {
  std::string bytes;
  std::array<TimedByte, 256> taken;
  while (const std::size_t count = bus.due(now, taken)) {
    for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(taken[i].byte);
  }
  return bytes;
}

template <class Value>
auto by_id(ArmEmulator& arm, Value&& value) {
  return arm.use([&](SerialLine& bus) {
    std::map<int, std::decay_t<decltype(value(bus.servo(0)))>> values;
    for (std::size_t i = 0; i < bus.num_servos(); ++i) values[bus.servo(i).id()] = value(bus.servo(i));
    return values;
  });
}

// The addresses are those of the engine's state; whoever makes this keeps the engine alive.
std::shared_ptr<WorldPlant> make_world(
    std::uintptr_t step, std::uintptr_t model, std::uintptr_t data, double timestep, std::uintptr_t positions,
    std::uintptr_t velocities, std::uintptr_t forces, std::size_t state_size,
    const std::vector<std::tuple<std::size_t, std::size_t, double>>& joints) {
  const double steps = timestep / to_seconds(kPlantStep);
  if (!(steps >= 1) || std::abs(steps - std::round(steps)) > 1e-9)
    throw ConfigError("the world's timestep is " + std::to_string(timestep) +
                      " s, expected a whole number of 0.0005 s");
  auto world = std::make_shared<WorldPlant>();
  world->step = reinterpret_cast<void (*)(const void*, void*)>(step);
  world->model = reinterpret_cast<const void*>(model);
  world->data = reinterpret_cast<void*>(data);
  world->plant_steps = static_cast<int>(std::lround(steps));
  world->state = reinterpret_cast<double*>(positions);
  world->state_size = state_size;
  for (const auto& [position, dof, middle_ticks] : joints)
    world->joints.push_back({world->state + position, reinterpret_cast<double*>(velocities) + dof,
                             reinterpret_cast<double*>(forces) + dof, middle_ticks});
  return world;
}

using Release = py::call_guard<py::gil_scoped_release>;

}  // namespace

void register_arm_emulator(py::module_& m) {
  py::class_<ArmEmulator> c(m, "ArmEmulator");
  py::class_<WorldPlant, std::shared_ptr<WorldPlant>>(m, "WorldPlant", py::dynamic_attr())
      .def(py::init(&make_world), py::kw_only(), py::arg("step"), py::arg("model"), py::arg("data"),
           py::arg("timestep"), py::arg("positions"), py::arg("velocities"), py::arg("forces"),
           py::arg("state_size"), py::arg("joints"));
  c.def(py::init<std::vector<ServoSetup>, std::uint64_t, int, std::string, std::shared_ptr<WorldPlant>>(),
        py::arg("servos"), py::kw_only(), py::arg("seed") = 0, py::arg("baud_rate") = 1'000'000,
        py::arg("family") = "feetech_sts", py::arg("world") = nullptr,
        py::keep_alive<1, 6>());  // the world, and with it whoever owns the memory

  // in real time
  c.def("start", &ArmEmulator::start, py::kw_only(), py::arg("link") = "", py::arg("log") = "", Release());
  c.def("stop", &ArmEmulator::stop, Release());
  c.def_property_readonly("port",
                          [](const ArmEmulator& arm) { return arm.host() ? arm.host()->port() : ""; });
  c.def_property_readonly("is_realtime",
                          [](const ArmEmulator& arm) { return arm.host() && arm.host()->is_realtime(); });

  // in lock-step
  c.def(
      "receive",
      [](ArmEmulator& arm, const py::bytes& data, std::int64_t now_ns) {
        arm.stepped().receive(view(data), at_ns(now_ns));
      },
      py::arg("data"), py::arg("now_ns"));
  c.def(
      "advance", [](ArmEmulator& arm, std::int64_t now_ns) { arm.stepped().advance(at_ns(now_ns)); },
      py::arg("now_ns"), Release());
  c.def(
      "due",
      [](ArmEmulator& arm, std::int64_t now_ns) { return py::bytes(take_due(arm.stepped(), at_ns(now_ns))); },
      py::arg("now_ns"));
  c.def(
      "exchange",
      [](ArmEmulator& arm, const py::bytes& data, std::int64_t now_ns) {
        SerialLine& bus = arm.stepped();
        TimePoint now = std::max(at_ns(now_ns), bus.now());
        bus.receive(view(data), now);
        std::string answers;
        while (const auto next = bus.next_event()) {
          now = *next;
          bus.advance(now);
          answers += take_due(bus, now);
        }
        return py::make_tuple(py::bytes(answers), to_ns(now));
      },
      py::arg("data"), py::arg("now_ns"));

  // faults
  c.def("set_fault", &ArmEmulator::set_fault, py::arg("kind"), py::arg("id") = py::none(),
        py::arg("value") = py::none(), Release());
  c.def("clear_fault", &ArmEmulator::clear_fault, py::arg("kind"), py::arg("id") = py::none(), Release());
  c.def(
      "hand",
      [](ArmEmulator& arm, int id, std::optional<double> share) {
        if (share && !(*share >= 0 && *share <= 1)) {
          throw ConfigError("a hand moves to a share of the travel in 0..1, got " + std::to_string(*share));
        }
        check_found(arm.use([&](SerialLine& bus) {
          Servo* servo = bus.find(id);
          if (servo) servo->set_hand(share.value_or(std::numeric_limits<double>::quiet_NaN()));
          return servo != nullptr;
        }),
                    id);
      },
      py::arg("id"), py::arg("share") = py::none(), Release());

  // looking on
  c.def(
      "world_state",
      [](ArmEmulator& arm) {
        std::vector<double> state;
        const std::int64_t now_ns = arm.use([&](SerialLine& bus) {
          if (!bus.world()) throw ConfigError("this emulated arm stands in no world");
          state.assign(bus.world()->state, bus.world()->state + bus.world()->state_size);
          return to_ns(bus.now());
        });
        const py::gil_scoped_acquire gil;
        return py::make_tuple(now_ns,
                              py::array_t<double>(static_cast<py::ssize_t>(state.size()), state.data()));
      },
      Release());
  c.def_property_readonly("positions", [](ArmEmulator& arm) {
    return by_id(arm, [](Servo& servo) { return servo.present_ticks(); });
  });
  c.def_property_readonly(
      "goals", [](ArmEmulator& arm) { return by_id(arm, [](Servo& servo) { return servo.goal_ticks(); }); });
  c.def_property_readonly("torques", [](ArmEmulator& arm) {
    return by_id(arm, [](Servo& servo) { return int{servo.torque()}; });
  });
  c.def(
      "registers",
      [](ArmEmulator& arm, int id) {
        const std::string bytes = arm.use([&](SerialLine& bus) {
          Servo* servo = bus.find(id);
          if (!servo) return std::string();
          const std::span<const std::uint8_t> all = servo->registers();
          return std::string(all.begin(), all.end());
        });
        check_found(!bytes.empty(), id);
        return py::bytes(bytes);
      },
      py::arg("id"));
  c.def_property_readonly("counters", [](ArmEmulator& arm) {
    py::dict all;
    const auto add = [&](const char* name, auto value) { all[name] = value; };
    for_each_counter(arm.use([](SerialLine& bus) { return bus.counters(); }), add);
    if (arm.host()) for_each_counter(arm.host()->counters(), add);
    return all;
  });
}

}  // namespace wallx::emulator
