#include <fmt/format.h>
#include <optional>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <string>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/report/answers.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/synthesis/synthesise.h"

#include "core/values.h"

namespace penstock::python {

namespace py = pybind11;

namespace {

struct SynthesisRequest {
  int ranks = 1;
  int microbatches = 1;
  std::string placement;
  std::optional<int> stages_per_rank;
  std::optional<int> memory_cap;
  double budget_s = 1.5;
  std::int64_t evaluations = 0;
  std::uint64_t seed = 1;
};

// A synthesised schedule and how good it is.
struct FoundSchedule {
  NamedSchedule schedule;
  TitledTimeline timeline;
  Synthesis synthesis;
};

FoundSchedule find_schedule(const Cost& cost, const SynthesisRequest& request) {
  if (request.placement != "v" && request.placement != "loop")
    throw bad_input(field("placement") + " is " + shortened(request.placement), "loop or v", "choose one of them");
  if (!(request.budget_s > 0 && request.budget_s <= 3600))
    throw bad_input(fmt::format("{} is {}", field("budget"), request.budget_s), "seconds, above 0 and up to an hour",
                    "correct the number");
  const bool to_and_fro = request.placement == "v";
  const int stages_per_rank = request.stages_per_rank.value_or(to_and_fro ? 2 : 1);
  check_synthesis_sizes(request.ranks, stages_per_rank, request.microbatches);
  SynthesisSettings settings;
  settings.ranks = request.ranks;
  settings.microbatches = request.microbatches;
  settings.placement = to_and_fro ? wave_placement(request.ranks, stages_per_rank)
                                  : loop_placement(request.ranks, request.ranks * stages_per_rank);
  if (request.memory_cap) settings.memory_caps = {*request.memory_cap};
  settings.budget = {request.budget_s * 1000};
  settings.most_evaluations = request.evaluations;
  settings.seed = request.seed;
  Synthesis synthesis = synthesise(settings, cost, SteadyClock());
  NamedSchedule schedule{synthesis.schedule.get(), synthesised_schedule};
  TitledTimeline timeline{synthesis.timeline, title_of(schedule), "ms"};
  return {std::move(schedule), std::move(timeline), std::move(synthesis)};
}

SynthesisAnswer answer_about(const FoundSchedule& found) {
  SynthesisAnswer answer;
  answer.simulation = {synthesised_schedule,
                       found.synthesis.schedule->stages,
                       found.synthesis.schedule->microbatches,
                       summarise(found.synthesis.timeline),
                       {},
                       {}};
  answer.longest_span = found.synthesis.longest_span;
  answer.lower_bound = found.synthesis.lower_bound;
  answer.proved_optimal = found.synthesis.proved_optimal;
  answer.best_generator = found.synthesis.best_generator;
  answer.generator_span = found.synthesis.generator_span;
  return answer;
}

std::string synthesis_svg(const FoundSchedule& found) {
  return to_svg(found.timeline.timeline, {found.timeline.title, found.timeline.unit});
}

py::tuple synthesis_state(const FoundSchedule& found) {
  const Synthesis& synthesis = found.synthesis;
  return py::make_tuple(to_csv(found.schedule.schedule), py::cast(found.timeline), synthesis.longest_span.count,
                        synthesis.lower_bound.count, synthesis.proved_optimal, synthesis.best_generator,
                        synthesis.generator_span.count);
}

FoundSchedule synthesis_from_state(const py::tuple& state) {
  NamedSchedule schedule{parse_schedule(state[0].cast<std::string>()), synthesised_schedule};
  auto timeline = state[1].cast<TitledTimeline>();
  Synthesis synthesis{looked_at(schedule.schedule), timeline.timeline,     {state[2].cast<double>()},
                      {state[3].cast<double>()},    state[4].cast<bool>(), state[5].cast<std::string>(),
                      {state[6].cast<double>()}};
  return {std::move(schedule), std::move(timeline), std::move(synthesis)};
}

void add_synthesis_type(py::module_& module) {
  py::class_<FoundSchedule>(module, "Synthesis",
                            "A synthesised schedule and how good it is. Prints as `penstock schedule synth`.")
      .def_readonly("schedule", &FoundSchedule::schedule, "The Schedule that was found.")
      .def_readonly("timeline", &FoundSchedule::timeline, "Its step under the costs that it was made for, simulated.")
      .def_property_readonly(
          "longest_span", [](const FoundSchedule& self) { return self.synthesis.longest_span.count; },
          "Of any rank, from its first to its last pass, ms: what was made short.")
      .def_property_readonly(
          "lower_bound", [](const FoundSchedule& self) { return self.synthesis.lower_bound.count; },
          "No schedule of this placement under these caps has a shorter longest span, ms.")
      .def_property_readonly(
          "proved_optimal", [](const FoundSchedule& self) { return self.synthesis.proved_optimal; },
          "Whether none is shorter: by exact search, or because it meets the lower bound.")
      .def_property_readonly(
          "best_generator", [](const FoundSchedule& self) { return self.synthesis.best_generator; },
          "The published schedule of this placement that is best under the caps; or empty.")
      .def_property_readonly(
          "generator_span", [](const FoundSchedule& self) { return self.synthesis.generator_span.count; },
          "The longest span of the best published schedule, ms.")
      .def(
          "to_json", [](const FoundSchedule& self) { return to_json(answer_about(self)); },
          "What `penstock schedule synth --json` says (docs/json.md); times in ms.")
      .def("_repr_svg_", &synthesis_svg)
      .def("_repr_html_", &synthesis_svg)
      .def("__repr__", [](const FoundSchedule& self) { return to_text(answer_about(self)); })
      .def(
          "__eq__",
          [](const FoundSchedule& a, const FoundSchedule& b) {
            return a.schedule == b.schedule && answer_about(a) == answer_about(b);
          },
          py::is_operator())
      .def(py::pickle(&synthesis_state, &synthesis_from_state))
      .attr("__hash__") = py::none();
}

}  // namespace

void add_synthesis(py::module_& module) {
  add_synthesis_type(module);
  module.def(
      "synthesise",
      [](const Cost& cost, int ranks, int microbatches, const std::string& placement,
         std::optional<int> stages_per_rank, std::optional<int> memory_cap, double budget, std::int64_t evaluations,
         std::uint64_t seed) {
        return find_schedule(cost,
                             {ranks, microbatches, placement, stages_per_rank, memory_cap, budget, evaluations, seed});
      },
      py::arg("cost"), py::kw_only(), py::arg("ranks"), py::arg("microbatches"), py::arg("placement") = "loop",
      py::arg("stages_per_rank") = py::none(), py::arg("memory_cap") = py::none(), py::arg("budget") = 1.5,
      py::arg("evaluations") = 0, py::arg("seed") = 1, py::call_guard<py::gil_scoped_release>(),
      "Finds a schedule for the stages and links as they are, never worse than the published ones of the same "
      "placement.\n\n"
      "placement: 'loop', stage s on rank s mod ranks, or 'v', to and fro. memory_cap: most activations of a rank. "
      "budget: "
      "seconds to search. evaluations: instead of the budget, so many orders, so that the result never varies.");
}

}  // namespace penstock::python
