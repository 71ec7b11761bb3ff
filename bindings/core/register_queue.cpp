// The inference queue for Python: chunks and texts in order of deadline; every wait is without the GIL.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <string>

#include "bindings/core/flow.hpp"
#include "bindings/core/register.hpp"
#include "runtime/inference_queue.hpp"
#include "runtime/text_work.hpp"

namespace wallx {
namespace {

using NoGil = py::call_guard<py::gil_scoped_release>;

const char* to_name(WorkState state) {
  switch (state) {
    case WorkState::queued:
      return "queued";
    case WorkState::running:
      return "running";
    case WorkState::done:
      return "done";
    case WorkState::cancelled:
      return "cancelled";
    case WorkState::failed:
      break;
  }
  return "failed";
}

TimePoint deadline_of(std::optional<double> seconds) {
  if (!seconds) return kNoDeadline;
  if (!(std::abs(*seconds) < 1e9))
    throw ConfigError("deadline " + std::to_string(*seconds) + " s is not on the monotonic clock");
  return TimePoint(std::chrono::round<Duration>(Seconds(*seconds)));
}

OwnPrompt to_prompt(const py::tuple& prompt) {
  if (prompt.size() != 6)
    throw ConfigError("a prompt is (ids, pixels, grids, state_token_id, state, state_mask), got " +
                      std::to_string(prompt.size()) + " parts");
  return wallx::to_prompt(prompt[0], prompt[1], prompt[2], prompt[3].cast<std::int64_t>(), prompt[4],
                          prompt[5]);
}

}  // namespace

void register_queue(py::module_& m) {
  py::class_<Work, std::shared_ptr<Work>>(m, "Work", "One piece of work in an InferenceQueue.")
      .def("cancel", &Work::cancel)
      .def(
          "wait", [](Work& self, double timeout_s) { return self.wait(Seconds(timeout_s)); },
          py::arg("timeout_s"), NoGil())
      .def("check", &Work::check)
      .def_property_readonly("state", [](const Work& self) { return to_name(self.state()); })
      .def_property_readonly("waited_s", &Work::waited)
      .def_property_readonly("computed_s", &Work::computed)
      .def_property_readonly("longest_slice_s", &Work::longest_slice);
  py::class_<ChunkWork, Work, std::shared_ptr<ChunkWork>>(m, "ChunkWork", "One chunk.")
      .def("actions",
           [](const ChunkWork& self) {
             self.check();
             if (self.state() != WorkState::done) throw WallxError("the chunk is not done; wait for it");
             const auto columns = static_cast<py::ssize_t>(self.actions().size()) / self.horizon();
             return to_array(self.actions(), {static_cast<py::ssize_t>(self.horizon()), columns});
           })
      .def_property_readonly("num_shared", &ChunkWork::num_shared);
  py::class_<TextWork, Work, std::shared_ptr<TextWork>>(m, "TextWork", "One text.")
      .def("token", &TextWork::token, py::arg("index"), NoGil())
      .def_property_readonly("num_shared", &TextWork::num_shared)
      .def_property_readonly("prefill_s", &TextWork::prefill_time);

  py::class_<InferenceQueue>(m, "InferenceQueue", "One thread that computes in order of deadline.")
      .def(py::init<>())
      .def(
          "chunk",
          [](InferenceQueue& self, std::shared_ptr<Context> context, const py::tuple& prompt,
             const py::object& noise, const py::object& dof_mask, std::optional<double> deadline_s,
             std::int64_t num_steps, std::string attention, std::string time_grid,
             const py::object& padding_action, std::optional<float> time_scale,
             std::optional<float> time_shift, const py::object& previous, const py::object& guidance,
             std::int64_t num_frozen, float max_guidance) {
            auto work = std::make_shared<ChunkWork>(
                std::move(context), to_prompt(prompt),
                to_flow(noise, dof_mask,
                        {num_steps, std::move(attention), std::move(time_grid), padding_action, time_scale,
                         time_shift, previous, guidance, num_frozen, max_guidance}));
            const TimePoint deadline = deadline_of(deadline_s);
            const py::gil_scoped_release release;
            self.submit(work, deadline);
            return work;
          },
          py::arg("context"), py::arg("prompt"), py::arg("noise"), py::arg("dof_mask"), py::kw_only(),
          py::arg("deadline_s") = py::none(), py::arg("num_steps") = 10, py::arg("attention") = "checkpoint",
          py::arg("time_grid") = "intervals", py::arg("padding_action") = py::none(),
          py::arg("time_scale") = py::none(), py::arg("time_shift") = py::none(),
          py::arg("previous") = py::none(), py::arg("guidance") = py::none(), py::arg("num_frozen") = 0,
          py::arg("max_guidance") = 10.0f)
      .def(
          "text",
          [](InferenceQueue& self, std::shared_ptr<Context> context, const py::tuple& prompt,
             std::optional<double> deadline_s, std::int64_t max_new_tokens,
             std::vector<std::int64_t> stop_ids, float temperature, float top_p, std::uint64_t seed,
             std::optional<std::pair<std::int64_t, std::int64_t>> allowed_ids) {
            auto work = std::make_shared<TextWork>(
                std::move(context), to_prompt(prompt),
                to_text_options(max_new_tokens, std::move(stop_ids), temperature, top_p, seed, allowed_ids));
            const TimePoint deadline = deadline_of(deadline_s);
            const py::gil_scoped_release release;
            self.submit(work, deadline);
            return work;
          },
          py::arg("context"), py::arg("prompt"), py::kw_only(), py::arg("deadline_s") = py::none(),
          py::arg("max_new_tokens") = 100, py::arg("stop_ids") = std::vector<std::int64_t>{},
          py::arg("temperature") = 0.0f, py::arg("top_p") = 1.0f, py::arg("seed") = 0,
          py::arg("allowed_ids") = py::none())
      .def("begin_generation", &InferenceQueue::begin_generation, NoGil())
      .def_property_readonly("generation", &InferenceQueue::generation)
      .def("close", &InferenceQueue::close, NoGil())
      .def_property_readonly("slice_s", [](InferenceQueue& self) { return self.meter().target(); })
      .def("counters", [](const InferenceQueue& self) {
        const QueueCounters counters = self.counters();
        py::dict d;
        d["done"] = counters.num_done;
        d["cancelled"] = counters.num_cancelled;
        d["failed"] = counters.num_failed;
        d["let_first"] = counters.num_let_first;
        return d;
      });

  m.def(
      "guidance_weights",
      [](std::int64_t start, std::int64_t end, std::int64_t horizon) {
        return to_array(guidance_weights(start, end, horizon), {static_cast<py::ssize_t>(horizon)});
      },
      py::arg("start"), py::arg("end"), py::arg("horizon"));
  m.def("guidance_gain", &guidance_gain, py::arg("time"), py::arg("max_guidance") = 10.0f);
  // the steps of a guided flow by themselves, for fields that are not a network's
  m.def(
      "guide_velocity",
      [](const Floats& velocity, const Floats& x, float time, const Floats& previous, const Floats& guidance,
         float max_guidance) {
        const ChunkGuide guide{view(previous), view(guidance), 0, max_guidance};
        if (x.ndim() != 2 || velocity.size() != x.size())
          throw ConfigError("velocity and x must have one shape, (horizon, action_dim)");
        require_valid(guide, x.shape(0), x.shape(1));
        std::vector<float> out(velocity.data(), velocity.data() + velocity.size());
        const std::vector<float> mask(out.size(), 1.0f);
        guide_velocity(guide, time, view(x), mask, out);
        return to_array(out, {x.shape(0), x.shape(1)});
      },
      py::arg("velocity"), py::arg("x"), py::arg("time"), py::arg("previous"), py::arg("guidance"),
      py::arg("max_guidance") = 10.0f);

  // a thread that outlives the interpreter would keep the program from ending
  py::module_::import("atexit").attr("register")(py::cpp_function(&close_all_queues, NoGil()));
}

}  // namespace wallx
