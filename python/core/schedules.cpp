#include <filesystem>
#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <tuple>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/answers.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"
#include "penstock/sim/steps.h"

#include "core/values.h"

namespace penstock::python {

namespace py = pybind11;

namespace {

using Numbers = std::vector<std::vector<std::int32_t>>;

NamedSchedule make_named(const std::string& name, int ranks, int microbatches, std::optional<int> stages_per_rank) {
  return {make_schedule(name, ranks, microbatches, stages_per_rank), name};
}

NamedSchedule parse_named(const std::string& csv, const std::string& name) { return {parse_schedule(csv), name}; }

NamedSchedule load_named(const std::filesystem::path& path) {
  return {parse_schedule(read_file(path)), path.filename().string()};
}

Numbers holders_of(const Placement& placement) {
  Numbers holders;
  for (const auto& stage_holders : placement.holders) {
    holders.emplace_back();
    for (const RankId rank : stage_holders) holders.back().push_back(rank.value);
  }
  return holders;
}

std::vector<std::vector<std::string>> action_texts(const Schedule& schedule) {
  std::vector<std::vector<std::string>> texts;
  for (const auto& rank_actions : schedule.actions) {
    texts.emplace_back();
    for (const Action& action : rank_actions) texts.back().push_back(to_string(action));
  }
  return texts;
}

NamedSchedule proved(const NamedSchedule& schedule, bool blocking_sends, bool any_order,
                     std::optional<int> memory_cap) {
  VerifyOptions wanted;
  wanted.sends = blocking_sends ? SendMode::Blocking : SendMode::NonBlocking;
  wanted.accumulation = any_order ? Accumulation::AnyOrder : Accumulation::InOrder;
  wanted.memory_cap = memory_cap;
  const VerifiedSchedule compute = verify(schedule.schedule, wanted);
  // Only sends and receives can block: a schedule without them is held against those that it would get.
  static_cast<void>(verify(lower(compute).get(), wanted));
  return schedule;
}

std::string csv_of(const NamedSchedule& schedule, const std::optional<std::filesystem::path>& path) {
  std::string csv = to_csv(schedule.schedule);
  if (path) write_file_atomically(*path, csv);
  return csv;
}

// Every pass takes one.
Cost unit_cost(int stages) {
  StageCost stage;
  stage.forward = stage.input_backward = stage.weight_backward = {1};
  return uniform_cost(stages, stage);
}

SimulationAnswer answer_of(const NamedSchedule& schedule, const std::optional<Cost>& cost, int steps) {
  const VerifiedSchedule verified = looked_at(schedule.schedule);
  const Cost used = cost ? *cost : unit_cost(verified->stages);
  SimulationAnswer answer{schedule.name.empty() ? "schedule" : schedule.name,
                          verified->stages,
                          verified->microbatches,
                          summarise(simulate(verified, used)),
                          used.memory_caps,
                          {}};
  if (steps != 1) answer.row = simulate_in_a_row(verified, used, steps);
  return answer;
}

NamedSchedule other_of(const NamedSchedule& schedule, const py::object& other) {
  if (py::isinstance<NamedSchedule>(other)) return other.cast<NamedSchedule>();
  if (!py::isinstance<py::str>(other))
    throw bad_input(
        fmt::format("a {} to compare with", py::str(py::type::of(other).attr("__name__")).cast<std::string>()),
        "a schedule, or a schedule's name", "give one of them");
  return make_named(other.cast<std::string>(), schedule.schedule.ranks(), schedule.schedule.microbatches, std::nullopt);
}

ComparisonAnswer compare_two(const NamedSchedule& schedule, const py::object& other, const std::optional<Cost>& cost,
                             int steps) {
  const NamedSchedule second = other_of(schedule, other);
  const py::gil_scoped_release others_go_on;
  ComparisonAnswer comparison;
  comparison.answers.push_back(answer_of(schedule, cost, steps));
  comparison.answers.push_back(answer_of(second, cost, steps));
  sort_by_bubble(comparison);
  return comparison;
}

ComparisonAnswer compare_all(int ranks, int microbatches, std::optional<int> memory_cap, int steps) {
  ComparisonAnswer comparison;
  for (const ScheduleFamily& family : schedule_families()) {
    // It does a third of the others' work, and would always win.
    if (family.forward_only) continue;
    try {
      const NamedSchedule schedule = make_named(std::string(family.name), ranks, microbatches, std::nullopt);
      static_cast<void>(verify(schedule.schedule, {.sends = SendMode::NonBlocking, .memory_cap = memory_cap}));
      comparison.answers.push_back(answer_of(schedule, std::nullopt, steps));
    } catch (const Error& error) {
      const std::string reason = error.what();
      comparison.refused.push_back({std::string(family.name), reason.substr(0, reason.find('\n'))});
    }
  }
  sort_by_bubble(comparison);
  return comparison;
}

py::list families() {
  py::list all;
  for (const ScheduleFamily& family : schedule_families()) {
    const py::dict one;
    one["name"] = std::string(family.name);
    one["title"] = std::string(family.title);
    one["paper"] = std::string(family.paper);
    one["bubble"] = std::string(family.bubble);
    one["peak_activations"] = std::string(family.memory);
    one["stages_per_rank"] = family.stages_per_rank;
    one["stages_per_rank_varies"] = family.stages_per_rank_varies;
    one["ranks_multiple"] = family.ranks_multiple;
    one["bidirectional"] = family.bidirectional;
    one["forward_only"] = family.forward_only;
    all.append(one);
  }
  return all;
}

std::string schedule_svg(const NamedSchedule& schedule) {
  const TitledTimeline drawn = play(schedule, std::nullopt);
  return to_svg(drawn.timeline, {drawn.title, drawn.unit});
}

std::string schedule_repr(const NamedSchedule& named) {
  const Schedule& schedule = named.schedule;
  return fmt::format("Schedule({}{} ranks, {} stages, {} microbatches)",
                     named.name.empty() ? "" : "'" + named.name + "', ", schedule.ranks(), schedule.stages,
                     schedule.microbatches);
}

// By answer: schedule, stages, microbatches, makespan, bubbles, ranks, caps, the row of steps.
using RankState = std::tuple<double, int, std::int64_t>;
using RowState = std::optional<std::tuple<int, double, double, double>>;
using AnswerState = std::tuple<std::string, int, int, double, double, double, std::vector<RankState>,
                               std::vector<std::int64_t>, RowState>;

AnswerState state_of(const SimulationAnswer& answer) {
  std::vector<RankState> ranks;
  ranks.reserve(answer.summary.ranks.size());
  for (const RankSummary& rank : answer.summary.ranks)
    ranks.emplace_back(rank.busy.count, rank.peak_activations, rank.peak_bytes.count);
  std::vector<std::int64_t> caps;
  caps.reserve(answer.memory_caps.size());
  for (const Bytes cap : answer.memory_caps) caps.push_back(cap.count);
  RowState row;
  if (answer.row)
    row.emplace(answer.row->steps, answer.row->first.count, answer.row->pace.count, answer.row->utilisation);
  return {answer.schedule,
          answer.stages,
          answer.microbatches,
          answer.summary.makespan.count,
          answer.summary.bubble_makespan,
          answer.summary.bubble_span,
          std::move(ranks),
          std::move(caps),
          row};
}

SimulationAnswer answer_from(const AnswerState& state) {
  const auto& [schedule, stages, microbatches, makespan, bubble, bubble_span, ranks, caps, row] = state;
  SimulationAnswer answer{schedule, stages, microbatches, {{makespan}, bubble, bubble_span, {}}, {}, {}};
  for (const auto& [busy, activations, bytes] : ranks) answer.summary.ranks.push_back({{busy}, activations, {bytes}});
  for (const std::int64_t cap : caps) answer.memory_caps.push_back({cap});
  if (row) answer.row = StepsInARow{std::get<0>(*row), {std::get<1>(*row)}, {std::get<2>(*row)}, std::get<3>(*row)};
  return answer;
}

py::tuple comparison_state(const ComparisonAnswer& comparison) {
  std::vector<AnswerState> answers;
  answers.reserve(comparison.answers.size());
  for (const SimulationAnswer& answer : comparison.answers) answers.push_back(state_of(answer));
  std::vector<std::pair<std::string, std::string>> refused;
  refused.reserve(comparison.refused.size());
  for (const auto& one : comparison.refused) refused.emplace_back(one.schedule, one.reason);
  return py::make_tuple(answers, refused);
}

ComparisonAnswer comparison_from_state(const py::tuple& state) {
  ComparisonAnswer comparison;
  for (const AnswerState& answer : state[0].cast<std::vector<AnswerState>>())
    comparison.answers.push_back(answer_from(answer));
  for (const auto& [schedule, reason] : state[1].cast<std::vector<std::pair<std::string, std::string>>>())
    comparison.refused.push_back({schedule, reason});
  return comparison;
}

void add_schedule_type(py::module_& module) {
  py::class_<NamedSchedule>(
      module, "Schedule",
      "Which rank does which actions in which order: a value. Make one with `schedule`, from a file with "
      "`Schedule.load`, or from the CSV text of torch.distributed.pipelining with `Schedule.parse`.")
      .def_static("load", &load_named, py::arg("path"), "Reads a CSV file, a row a rank.")
      .def_static("parse", &parse_named, py::arg("csv"), py::arg("name") = "", "Reads the CSV text, a row a rank.")
      .def_readonly("name", &NamedSchedule::name, "What it is called; empty where nobody named it.")
      .def_property_readonly(
          "ranks", [](const NamedSchedule& self) { return self.schedule.ranks(); }, "How many it is for.")
      .def_property_readonly(
          "stages", [](const NamedSchedule& self) { return self.schedule.stages; },
          "Into how many the network is cut, on all ranks together.")
      .def_property_readonly(
          "microbatches", [](const NamedSchedule& self) { return self.schedule.microbatches; },
          "Into how many a minibatch is cut.")
      .def_property_readonly(
          "forward_only", [](const NamedSchedule& self) { return self.schedule.forward_only; },
          "Whether it only evaluates: no stage has a backward.")
      .def_property_readonly(
          "placement", [](const NamedSchedule& self) { return holders_of(self.schedule.placement); },
          "By stage, the ranks that hold a copy of it.")
      .def_property_readonly(
          "actions", [](const NamedSchedule& self) { return action_texts(self.schedule); },
          "By rank, its actions in order, as text: '2F0' is the forward of stage 2 on microbatch 0.")
      .def("verify", &proved, py::kw_only(), py::arg("blocking_sends") = false, py::arg("any_order") = false,
           py::arg("memory_cap") = py::none(),
           "Proves that every microbatch passes every stage once and that nobody waits for ever; returns the "
           "schedule.\n\n"
           "memory_cap: most activations of a rank, of one microbatch on one stage. Raises BadInput that says where it "
           "is wrong.")
      .def(
          "lower",
          [](const NamedSchedule& self, int posted_receives) {
            return NamedSchedule{lower(looked_at(self.schedule), {posted_receives}).get(), self.name};
          },
          py::kw_only(), py::arg("posted_receives") = 0, "The same with its sends and receives.")
      .def("simulate", &play, py::arg("cost") = py::none(), py::call_guard<py::gil_scoped_release>(),
           "Plays it on a virtual clock into a Timeline. Without a Cost every pass of a stage takes one unit and links "
           "none.")
      .def("compare", &compare_two, py::arg("other"), py::arg("cost") = py::none(), py::kw_only(), py::arg("steps") = 1,
           "Plays it and another schedule, or that of another name, under the same costs; best first.")
      .def(
          "peak_activations", [](const NamedSchedule& self) { return peak_activations(self.schedule); },
          "By rank, the most activations that it holds at a time, of one microbatch on one stage.")
      .def("to_csv", &csv_of, py::arg("path") = py::none(), "The CSV text; written to `path` where one is given.")
      .def("to_svg", &schedule_svg, "A drawing, all passes alike.")
      .def("_repr_svg_", &schedule_svg)
      .def("_repr_html_", &schedule_svg)
      .def("__repr__", &schedule_repr)
      .def("__str__", [](const NamedSchedule& self) { return to_grid(play(self, std::nullopt).timeline); })
      .def(
          "__eq__", [](const NamedSchedule& a, const NamedSchedule& b) { return a == b; }, py::is_operator())
      .def("__hash__", [](const NamedSchedule& self) { return py::hash(py::str(to_csv(self.schedule))); })
      .def(py::pickle([](const NamedSchedule& self) { return py::make_tuple(to_csv(self.schedule), self.name); },
                      [](const py::tuple& state) {
                        return parse_named(state[0].cast<std::string>(), state[1].cast<std::string>());
                      }));
}

void add_comparison_type(py::module_& module) {
  py::class_<ComparisonAnswer>(module, "Comparison", "Schedules under the same costs, best first. Prints as a table.")
      .def_property_readonly(
          "schedules",
          [](const ComparisonAnswer& self) {
            std::vector<std::string> names;
            names.reserve(self.answers.size());
            for (const auto& answer : self.answers) names.push_back(answer.schedule);
            return names;
          },
          "Their names, best first.")
      .def_property_readonly(
          "bubbles",
          [](const ComparisonAnswer& self) {
            std::vector<double> bubbles;
            bubbles.reserve(self.answers.size());
            for (const auto& answer : self.answers) bubbles.push_back(answer.summary.bubble_makespan);
            return bubbles;
          },
          "By schedule, the share of ranks x makespan in which ranks do not compute.")
      .def_property_readonly(
          "makespans",
          [](const ComparisonAnswer& self) {
            std::vector<double> spans;
            spans.reserve(self.answers.size());
            for (const auto& answer : self.answers) spans.push_back(answer.summary.makespan.count);
            return spans;
          },
          "By schedule, from the first start to the last end, in ms (or units).")
      .def_property_readonly(
          "refused",
          [](const ComparisonAnswer& self) {
            const py::dict reasons;
            for (const auto& refused : self.refused) reasons[py::str(refused.schedule)] = refused.reason;
            return reasons;
          },
          "Those that do not exist for these sizes or do not fit, by name, and why.")
      .def(
          "to_json", [](const ComparisonAnswer& self) { return to_json(self); },
          "What `penstock schedule compare --json` says (docs/json.md); times in ms.")
      .def(
          "__eq__", [](const ComparisonAnswer& a, const ComparisonAnswer& b) { return a == b; }, py::is_operator())
      .def("__str__", [](const ComparisonAnswer& self) { return to_text(self); })
      .def("__repr__", [](const ComparisonAnswer& self) { return to_text(self); })
      .def(py::pickle(&comparison_state, &comparison_from_state))
      .attr("__hash__") = py::none();
}

}  // namespace

std::string title_of(const NamedSchedule& named) {
  const ScheduleFamily* family = find_schedule_family(named.name);
  const std::string name = family != nullptr    ? std::string(family->title)
                           : named.name.empty() ? "Schedule"
                                                : named.name;
  return fmt::format("{} on {}, {}", name, counted(named.schedule.ranks(), "rank"),
                     counted(named.schedule.microbatches, "microbatch"));
}

VerifiedSchedule looked_at(const Schedule& schedule) {
  return verify(schedule, {SendMode::NonBlocking, std::nullopt, Accumulation::AnyOrder});
}

TitledTimeline play(const NamedSchedule& schedule, const std::optional<Cost>& cost) {
  const VerifiedSchedule verified = looked_at(schedule.schedule);
  if (cost) return {simulate(verified, *cost), title_of(schedule), "ms"};
  return {simulate(verified, unit_cost(verified->stages)), title_of(schedule), "units"};
}

void add_schedules(py::module_& module) {
  add_comparison_type(module);
  add_schedule_type(module);
  module.def(
      "schedule", &make_named, py::arg("name"), py::kw_only(), py::arg("ranks"), py::arg("microbatches"),
      py::arg("stages_per_rank") = py::none(),
      "A published schedule, '1f1b' or 'zb-v' (`schedules` lists them), for so many devices and slices of a minibatch. "
      "Raises BadInput for a size that it does not exist for.");
  module.def("schedules", &families,
             "Every published schedule: a list of dicts with its name, paper, bubble and memory.");
  module.def("compare", &compare_all, py::kw_only(), py::arg("ranks"), py::arg("microbatches"),
             py::arg("memory_cap") = py::none(), py::arg("steps") = 1,
             "Plays every published schedule, all passes alike; best first.");
  module.def(
      "loop_placement", [](int ranks, int stages) { return holders_of(loop_placement(ranks, stages)); }, py::kw_only(),
      py::arg("ranks"), py::arg("stages"), "By stage the ranks that hold it: stage s on rank s mod ranks.");
  module.def(
      "wave_placement",
      [](int ranks, int stages_per_rank) { return holders_of(wave_placement(ranks, stages_per_rank)); }, py::kw_only(),
      py::arg("ranks"), py::arg("stages_per_rank") = 2, "By stage the ranks that hold it: to and fro.");
}

}  // namespace penstock::python
