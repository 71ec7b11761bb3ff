// The control loop: plans in, records out; the GIL is released around every call that can block.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/errors.hpp"
#include "bindings/core/register.hpp"
#include "control/bare_loop.hpp"
#include "control/control_loop.hpp"
#include "control/estop.hpp"
#include "control/estop_listener.hpp"

namespace py = pybind11;

namespace wallx {
namespace {

using Rows = py::array_t<double, py::array::c_style | py::array::forcecast>;
using NoGil = py::call_guard<py::gil_scoped_release>;

// what does not fit a clock of nanoseconds is no time
TimePoint time_at(double seconds) {
  if (!(std::abs(seconds) < 1e9))
    throw ConfigError("time " + std::to_string(seconds) + " s is not on the monotonic clock");
  return TimePoint(std::chrono::round<Duration>(Seconds(seconds)));
}
double seconds_of(TimePoint time) { return to_seconds(time.time_since_epoch()); }

py::dict to_dict(const Result& result) {
  py::dict d;
  d["code"] = to_string(result.code);
  d["joint"] = result.joint;
  d["detail"] = result.detail;
  return d;
}

py::dict to_dict(const Finding& finding) {
  py::dict d;
  d["verdict"] = to_string(finding.verdict);
  d["reason"] = to_string(finding.reason);
  d["joint"] = finding.joint;
  return d;
}

template <class T, class Array>
py::array_t<T> per_joint(const LoopRecord& record, const Array& values) {
  return py::array_t<T>(record.num_joints, values.data());
}

py::dict to_dict(const LoopRecord& r) {
  py::dict d;
  d["tick"] = r.tick;
  d["time"] = seconds_of(r.scheduled);
  d["lateness_us"] = r.lateness_us;
  d["read_us"] = r.read_us;
  d["state"] = to_string(r.state);
  d["requests"] = r.requests;
  d["is_enabled"] = r.is_enabled;
  d["finding"] = to_dict(r.finding);
  d["cause"] = to_dict(r.cause);
  d["plan_sequence"] = r.plan_sequence;
  d["generation"] = r.generation;
  d["row"] = r.row;
  d["is_on_row"] = r.is_on_row;
  d["has_command"] = r.has_command;
  d["is_exact"] = r.is_exact;
  d["read"] = to_dict(r.read);
  d["send"] = to_dict(r.send);
  d["command"] = per_joint<double>(r, r.command);
  d["target"] = per_joint<double>(r, r.target);
  d["measured"] = per_joint<double>(r, r.measured);
  d["sample_age"] = per_joint<float>(r, r.sample_age);
  d["torque_share"] = per_joint<float>(r, r.torque_share);
  d["reasons"] = per_joint<std::uint16_t>(r, r.reasons);
  d["drive_error"] = per_joint<std::uint8_t>(r, r.drive_error);
  return d;
}

// one array per field, the first axis counts the records
py::dict to_columns(const std::vector<LoopRecord>& records, std::size_t num_joints) {
  const auto column = [&](auto get) {
    using T = decltype(get(records[0]));
    py::array_t<T> values(static_cast<py::ssize_t>(records.size()));
    std::transform(records.begin(), records.end(), values.mutable_data(), get);
    return values;
  };
  const auto table = [&](auto member) {
    using T = typename std::remove_cvref_t<decltype(records[0].*member)>::value_type;
    py::array_t<T> values({records.size(), num_joints});
    T* to = values.mutable_data();
    for (const LoopRecord& r : records) to = std::copy_n((r.*member).begin(), num_joints, to);
    return values;
  };
  using R = const LoopRecord&;
  py::dict d;
  d["tick"] = column([](R r) { return r.tick; });
  d["time"] = column([](R r) { return seconds_of(r.scheduled); });
  d["lateness_us"] = column([](R r) { return r.lateness_us; });
  d["read_us"] = column([](R r) { return r.read_us; });
  d["state"] = column([](R r) { return static_cast<std::uint8_t>(r.state); });
  d["requests"] = column([](R r) { return r.requests; });
  d["is_enabled"] = column([](R r) { return r.is_enabled; });
  d["verdict"] = column([](R r) { return static_cast<std::uint8_t>(r.finding.verdict); });
  d["reason"] = column([](R r) { return static_cast<std::uint8_t>(r.finding.reason); });
  d["plan_sequence"] = column([](R r) { return r.plan_sequence; });
  d["generation"] = column([](R r) { return r.generation; });
  d["row"] = column([](R r) { return r.row; });
  d["is_on_row"] = column([](R r) { return r.is_on_row; });
  d["has_command"] = column([](R r) { return r.has_command; });
  d["is_exact"] = column([](R r) { return r.is_exact; });
  d["read_code"] = column([](R r) { return static_cast<std::uint8_t>(r.read.code); });
  d["read_joint"] = column([](R r) { return r.read.joint; });
  d["send_code"] = column([](R r) { return static_cast<std::uint8_t>(r.send.code); });
  d["command"] = table(&LoopRecord::command);
  d["target"] = table(&LoopRecord::target);
  d["measured"] = table(&LoopRecord::measured);
  d["sample_age"] = table(&LoopRecord::sample_age);
  d["torque_share"] = table(&LoopRecord::torque_share);
  d["reasons"] = table(&LoopRecord::reasons);
  d["drive_error"] = table(&LoopRecord::drive_error);
  return d;
}

py::dict to_dict(const LoopCounters& c) {
  static const char* const kNames[kNumLimitReasons] = {
      "position", "velocity", "acceleration", "jerk", "not_finite", "yielded_jerk", "yielded_acceleration",
      "step_cap", "following"};
  py::dict d, limited;
  d["ticks"] = c.num_ticks;
  d["overruns"] = c.num_overruns;
  d["skipped_periods"] = c.num_skipped_periods;
  d["stale_ticks"] = c.num_stale_ticks;
  d["send_failures"] = c.num_send_failures;
  d["holds"] = c.num_holds;
  d["resets"] = c.num_resets;
  d["refused_plans"] = c.num_refused_plans;
  d["dropped_records"] = c.num_dropped_records;
  for (std::size_t i = 0; i < kNumLimitReasons; ++i) limited[kNames[i]] = c.num_limited_ticks[i];
  d["limited_ticks"] = limited;
  return d;
}

template <class Enum>
py::tuple names(Enum last) {
  py::list list;
  for (int i = 0; i <= static_cast<int>(last); ++i) list.append(to_string(static_cast<Enum>(i)));
  return py::tuple(list);
}

}  // namespace

void register_control(py::module_& m) {
  m.def("monotonic", [] { return seconds_of(Clock::now()); });
  m.def("estop_all", &estop_all);
  m.def("estop_on_signal", &estop_on_signal, py::arg("signal_number"));
  m.def(
      "bare_loop",
      [](double rate_hz, double duration_s, int priority) {
        BareLoopRun run;
        {
          const py::gil_scoped_release release;
          run = run_bare_loop(rate_hz, Seconds(duration_s), priority);
        }
        py::dict d;
        d["lateness"] = py::array_t<std::uint64_t>(run.lateness.size(), run.lateness.data());
        d["ticks"] = run.num_ticks;
        d["is_fifo"] = run.is_fifo;
        return d;
      },
      py::arg("rate_hz"), py::arg("duration_s"), py::arg("priority") = 80);
  m.attr("LOOP_STATES") = names(LoopState::fault);
  m.attr("LOOP_REASONS") = names(Reason::estop);
  m.attr("MAX_ROWS") = kMaxRows;

  m.def("send_estop", &send_estop, py::arg("socket"), NoGil());
  py::class_<EstopListener>(m, "EstopListener")
      .def(py::init([](std::string socket, std::string gpio_chip, int gpio_line, bool is_active_low,
                       int key_descriptor, int key_sink) {
             return std::make_unique<EstopListener>(EstopSources{.socket = std::move(socket),
                                                                 .gpio_chip = std::move(gpio_chip),
                                                                 .gpio_line = gpio_line,
                                                                 .is_active_low = is_active_low,
                                                                 .key_descriptor = key_descriptor,
                                                                 .key_sink = key_sink});
           }),
           py::kw_only(), py::arg("socket") = "", py::arg("gpio_chip") = "", py::arg("gpio_line") = 0,
           py::arg("is_active_low") = true, py::arg("key_descriptor") = -1, py::arg("key_sink") = -1)
      .def_property_readonly("is_pressed", &EstopListener::is_pressed, "The line, now; or it was lost.");

  py::class_<ControlLoop, std::shared_ptr<ControlLoop>>(m, "ControlLoop")
      .def(py::init([](std::shared_ptr<Robot> robot, double rate_hz, double stale_hold, double stale_fault,
                       double ramp_share, double estop_torque_share, double max_first_step, int priority,
                       int cpu, std::size_t ring_capacity, std::optional<double> origin_s) {
             LoopConfig config;
             config.rate_hz = rate_hz;
             config.stale_hold = Seconds(stale_hold);
             config.stale_fault = Seconds(stale_fault);
             config.ramp_share = ramp_share;
             config.estop_torque_share = estop_torque_share;
             config.max_first_step = max_first_step;
             config.priority = priority;
             config.cpu = cpu;
             config.ring_capacity = ring_capacity;
             if (origin_s) {  // a simulated clock: wall times would make two equal runs differ
               config.origin = time_at(*origin_s);
               config.clock = +[]() noexcept { return TimePoint{}; };
             }
             return std::make_shared<ControlLoop>(std::move(robot), config);
           }),
           py::arg("robot"), py::kw_only(), py::arg("rate_hz") = 200.0, py::arg("stale_hold_s") = 0.0,
           py::arg("stale_fault_s") = 0.0, py::arg("ramp_share") = 0.25, py::arg("estop_torque_share") = 0.5,
           py::arg("max_first_step") = 1.0, py::arg("priority") = 80, py::arg("cpu") = -1,
           py::arg("ring_capacity") = 8192, py::arg("origin_s") = py::none())
      .def("start", &ControlLoop::start, NoGil())
      .def("stop", &ControlLoop::stop, NoGil())
      .def_property_readonly("is_running", &ControlLoop::is_running)
      .def_property_readonly("period_s", [](const ControlLoop& loop) { return to_seconds(loop.period()); })
      .def_property_readonly("max_stop_time_s",
                             [](const ControlLoop& loop) { return loop.max_stop_time().count(); })
      .def_property_readonly("state", [](const ControlLoop& loop) { return to_string(loop.state()); })
      .def_property_readonly("generation", &ControlLoop::generation)
      .def_property_readonly("real_time",
                             [](const ControlLoop& loop) {
                               const RealTimeStatus status = loop.real_time_status();
                               py::dict d;
                               d["is_fifo"] = status.is_fifo;
                               d["is_memory_locked"] = status.is_memory_locked;
                               d["shortfalls"] = status.shortfalls;
                               return d;
                             })
      .def(
          "submit",
          [](ControlLoop& loop, const Rows& rows, double start_s, double step_s, std::uint32_t generation) {
            const auto num_joints = static_cast<py::ssize_t>(loop.robot().embodiment().joints.size());
            if (rows.ndim() != 2 || rows.shape(1) != num_joints)
              throw ConfigError("rows must have shape (rows, " + std::to_string(num_joints) +
                                "), one column per joint of the robot");
            const std::span<const double> values(rows.data(), static_cast<std::size_t>(rows.size()));
            const py::gil_scoped_release release;
            return loop.submit(values, time_at(start_s), Seconds(step_s), generation);
          },
          py::arg("rows"), py::arg("start_s"), py::arg("step_s"), py::arg("generation"))
      .def("enable", [](ControlLoop& loop) { loop.request(kRequestEnable); })
      .def("hold", [](ControlLoop& loop) { loop.request(kRequestHold); })
      .def("resume", [](ControlLoop& loop) { loop.request(kRequestResume); })
      .def("reset", [](ControlLoop& loop) { loop.request(kRequestReset); })
      .def_property_readonly("heartbeat_descriptor", &ControlLoop::heartbeat_descriptor)
      .def("release", [](ControlLoop& loop) { loop.request(kRequestRelease); })
      .def("estop", &ControlLoop::estop)
      .def(
          "on_grid",
          [](const ControlLoop& loop, double time_s) { return seconds_of(loop.on_grid(time_at(time_s))); },
          py::arg("time_s"))
      .def(
          "tick",
          [](ControlLoop& loop, double now_s) {
            if (loop.is_running()) throw DeviceError("tick: the loop's thread is running; stop it first");
            LoopRecord record;
            {
              const py::gil_scoped_release release;
              record = loop.tick(loop.on_grid(time_at(now_s)));
            }
            return to_dict(record);
          },
          py::arg("now_s"))
      .def("snapshot",
           [](const ControlLoop& loop) -> py::object {
             LoopRecord record;
             if (!loop.snapshot(record)) return py::none();
             return to_dict(record);
           })
      .def(
          "drain",
          [](ControlLoop& loop, std::size_t max) {
            std::vector<LoopRecord> records;
            {
              const py::gil_scoped_release release;
              records.resize(std::min(max, loop.num_records()));
              records.resize(loop.drain(records));
            }
            return to_columns(records, loop.robot().embodiment().joints.size());
          },
          py::arg("max") = 8192)
      .def("counters", [](const ControlLoop& loop) { return to_dict(loop.counters()); })
      .def("lateness_histogram",
           [](const ControlLoop& loop) {
             const auto counts = loop.lateness_histogram();
             return py::array_t<std::uint64_t>(counts.size(), counts.data());
           })
      .def("fault_report", [](const ControlLoop& loop) -> py::object {
        const std::optional<FaultReport> report = loop.fault_report();
        if (!report) return py::none();
        py::dict d;
        d["message"] = fault_message(*report, loop.robot().embodiment(), loop.config());
        d["cause"] = to_dict(report->cause);
        d["read"] = to_dict(report->read);
        d["send"] = to_dict(report->send);
        d["time"] = seconds_of(report->at);
        d["records"] = to_columns(report->records, loop.robot().embodiment().joints.size());
        return d;
      });
}

}  // namespace wallx
