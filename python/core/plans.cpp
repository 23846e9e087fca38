#include <algorithm>
#include <cmath>
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
#include "penstock/base/parse_bytes.h"
#include "penstock/plan/other_runtimes.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/report/report.h"

#include "core/values.h"

namespace penstock::python {

namespace py = pybind11;

namespace {

// A size in bytes, or as people write it.
std::optional<Bytes> memory_of(const py::object& value) {
  if (value.is_none()) return std::nullopt;
  if (py::isinstance<py::str>(value)) return parse_bytes(field("memory"), value.cast<std::string>());
  return Bytes{value.cast<std::int64_t>()};
}

ReportedPlan find_plan(const LayerCosts& costs, const PlanRequest& request) {
  PlanReport report;
  report.answer = make_plans(costs, request);
  report.neighbours = neighbours(costs, request, report.answer);
  report.other_circumstances = other_circumstances(costs, request, report.answer);
  if (costs.measured) report.spread = costs.measured->spread;
  report.memory_caps = memory_caps_of(costs, request);
  Plan best = report.answer.plans.front();
  std::string text = to_text(report);
  std::string json = to_json(report);
  return {std::move(best),
          std::move(text),
          std::move(json),
          std::make_shared<LayerCosts>(costs),
          std::make_shared<PlanRequest>(request),
          std::make_shared<PlanAnswer>(std::move(report.answer))};
}

ReportedPlan alone(Plan plan, std::shared_ptr<const LayerCosts> costs = nullptr) {
  PlanReport report;
  report.answer.plans = {plan};
  return {std::move(plan), to_text(report), to_json(report), std::move(costs), nullptr, nullptr};
}

const LayerCosts& known_costs(const ReportedPlan& plan) {
  if (!plan.costs)
    throw bad_input("a plan without the costs that it was made from", "one that `plan` has just made, or its pickle",
                    "plan again");
  return *plan.costs;
}

std::string sweep_of(const ReportedPlan& plan) {
  if (!plan.request || !plan.answer)
    throw bad_input("a plan without the request that it was made for", "one that `plan` has just made", "plan again");
  PlanRequest request = *plan.request;
  // Between numbers that divide the batch lie the steps of sizes that differ by one sample.
  request.equal_microbatches = request.microbatches.empty();
  std::vector<SweepPoint> points = sweep_plans(known_costs(plan), request);
  include_plans(points, plan.answer->plans);
  return sweep_svg(points, {},
                   fmt::format("Predicted step on {}, batch of {}", counted(request.ranks, "rank"), request.batch),
                   plan.costs->measured ? plan.costs->measured->spread : 0);
}

TitledTimeline timeline_of(const ReportedPlan& plan) {
  const Timeline timeline = penstock::timeline_of(plan.plan, known_costs(plan));
  return {timeline,
          fmt::format("{} on {}, {}: {}", plan.plan.schedule, counted(plan.plan.ranks, "rank"),
                      counted(plan.plan.microbatches, "microbatch"), to_string(makespan(timeline))),
          "ms"};
}

std::string escaped(const std::string& text) {
  return py::module_::import("html").attr("escape")(text).cast<std::string>();
}

std::string plan_html(const ReportedPlan& plan) {
  std::string page = "<pre>" + escaped(plan.report) + "</pre>";
  if (plan.request) page += sweep_of(plan);
  if (plan.costs) page += to_svg(timeline_of(plan).timeline, {timeline_of(plan).title, "ms"});
  return page;
}

std::vector<bool> recomputed_layers(const Plan& plan) {
  std::vector<bool> layers(static_cast<std::size_t>(plan.layers));
  for (std::size_t stage = 0; stage < plan.recomputed.size(); ++stage) {
    const auto first = static_cast<std::size_t>(plan.cut[stage]);
    const auto end = stage + 1 < plan.cut.size() ? static_cast<std::size_t>(plan.cut[stage + 1]) : layers.size();
    std::fill(layers.begin() + static_cast<std::ptrdiff_t>(first), layers.begin() + static_cast<std::ptrdiff_t>(end),
              plan.recomputed[stage]);
  }
  return layers;
}

py::dict prediction_of(const Plan& plan) {
  const PlanPrediction& predicted = plan.prediction;
  py::list memory;
  for (const Bytes bytes : predicted.memory) memory.append(bytes.count);
  py::list passes;
  for (const Milliseconds pass : predicted.stage_passes) passes.append(pass.count);
  return py::dict(py::arg("step_ms") = predicted.step.count, py::arg("pipeline_ms") = predicted.pipeline.count,
                  py::arg("exchange_ms") = predicted.exchange.count, py::arg("update_ms") = predicted.update.count,
                  py::arg("utilisation") = predicted.utilisation,
                  py::arg("samples_per_second") = predicted.samples_per_second, py::arg("memory_bytes") = memory,
                  py::arg("stage_ms") = passes);
}

using TieState = std::tuple<std::int64_t, std::string, std::int64_t, std::string, std::int64_t>;

// By the costs' names where they are known, otherwise by the layers' places.
void write_for_torchtitan(const ReportedPlan& plan, const std::filesystem::path& folder) {
  std::vector<std::string> names;
  if (plan.costs)
    for (const LayerCost& layer : plan.costs->layers) names.push_back(layer.name);
  save_for_torchtitan(plan.plan, names, folder);
}

py::tuple state_of(const Plan& plan) {
  std::vector<TieState> ties;
  ties.reserve(plan.ties.size());
  for (const LayerTie& tie : plan.ties)
    ties.emplace_back(tie.owner.layer, tie.owner.parameter, tie.copy.layer, tie.copy.parameter, tie.size.count);
  return py::make_tuple(plan.ranks, plan.replicas, plan.batch, plan.microbatches, plan.schedule, plan.stages_per_rank,
                        plan.schedule_csv, plan.layers, plan.cut, plan.recomputed, prediction_of(plan), ties,
                        plan.shared_ties, plan.gradient_tree, plan.costs_file, plan.threads_per_rank);
}

Plan plan_from(const py::tuple& state) {
  Plan plan;
  plan.ranks = state[0].cast<int>();
  plan.replicas = state[1].cast<int>();
  plan.batch = state[2].cast<std::int64_t>();
  plan.microbatches = state[3].cast<int>();
  plan.schedule = state[4].cast<std::string>();
  plan.stages_per_rank = state[5].cast<int>();
  plan.schedule_csv = state[6].cast<std::string>();
  plan.layers = state[7].cast<std::int64_t>();
  plan.cut = state[8].cast<Cut>();
  plan.recomputed = state[9].cast<std::vector<bool>>();
  const auto figures = state[10].cast<py::dict>();
  const auto number = [&](const char* name) { return figures[name].cast<double>(); };
  plan.prediction = {{number("step_ms")},
                     {number("pipeline_ms")},
                     {number("exchange_ms")},
                     {number("update_ms")},
                     number("utilisation"),
                     number("samples_per_second"),
                     {},
                     {}};
  for (const auto& bytes : figures["memory_bytes"]) plan.prediction.memory.push_back({bytes.cast<std::int64_t>()});
  for (const auto& pass : figures["stage_ms"]) plan.prediction.stage_passes.push_back({pass.cast<double>()});
  for (const auto& [owner, parameter, copy, copied, bytes] : state[11].cast<std::vector<TieState>>())
    plan.ties.push_back({{owner, parameter}, {copy, copied}, {bytes}});
  plan.shared_ties = state[12].cast<bool>();
  plan.gradient_tree = state[13].cast<int>();
  plan.costs_file = state[14].cast<std::string>();
  plan.threads_per_rank = state[15].cast<int>();
  return plan;
}

py::tuple state_of(const PlanRequest& request) {
  std::optional<std::int64_t> memory;
  if (request.memory) memory = request.memory->count;
  return py::make_tuple(request.ranks, request.batch, memory, request.schedules, request.microbatches,
                        request.equal_microbatches, request.stages_per_rank, request.replicas, request.gradient_tree,
                        static_cast<int>(request.recomputation), request.cut, request.steps_overlap,
                        request.copies_of_stages, request.share_ties, request.most_plans,
                        request.most_simulated_passes);
}

PlanRequest request_from(const py::tuple& state) {
  PlanRequest request;
  request.ranks = state[0].cast<int>();
  request.batch = state[1].cast<std::int64_t>();
  if (!state[2].is_none()) request.memory = Bytes{state[2].cast<std::int64_t>()};
  request.schedules = state[3].cast<std::vector<std::string>>();
  request.microbatches = state[4].cast<std::vector<int>>();
  request.equal_microbatches = state[5].cast<bool>();
  request.stages_per_rank = state[6].cast<std::vector<int>>();
  request.replicas = state[7].cast<std::vector<int>>();
  request.gradient_tree = state[8].cast<int>();
  request.recomputation = static_cast<Recomputation>(state[9].cast<int>());
  request.cut = state[10].cast<std::optional<Cut>>();
  request.steps_overlap = state[11].cast<bool>();
  request.copies_of_stages = state[12].cast<bool>();
  request.share_ties = state[13].cast<bool>();
  request.most_plans = state[14].cast<std::size_t>();
  request.most_simulated_passes = state[15].cast<std::int64_t>();
  return request;
}

// With its costs, its request and the other plans, so that it draws and prints as before.
py::tuple reported_state(const ReportedPlan& reported) {
  py::object costs = py::none();
  py::object request = py::none();
  py::list others;
  if (reported.costs) costs = py::str(to_json(*reported.costs));
  if (reported.request) request = state_of(*reported.request);
  if (reported.answer)
    for (const Plan& plan : reported.answer->plans) others.append(state_of(plan));
  return py::make_tuple(state_of(reported.plan), reported.report, reported.json, costs, request, others);
}

ReportedPlan reported_from_state(const py::tuple& state) {
  ReportedPlan reported{plan_from(state[0].cast<py::tuple>()),
                        state[1].cast<std::string>(),
                        state[2].cast<std::string>(),
                        nullptr,
                        nullptr,
                        nullptr};
  if (!state[3].is_none())
    reported.costs = std::make_shared<LayerCosts>(parse_layer_costs(state[3].cast<std::string>()));
  if (!state[4].is_none()) reported.request = std::make_shared<PlanRequest>(request_from(state[4].cast<py::tuple>()));
  if (state[5].cast<py::list>().empty()) return reported;
  PlanAnswer answer;
  for (const auto& plan : state[5].cast<py::list>()) answer.plans.push_back(plan_from(plan.cast<py::tuple>()));
  reported.answer = std::make_shared<PlanAnswer>(std::move(answer));
  return reported;
}

ReportedPlan plan_for(const LayerCosts& costs, int ranks, std::int64_t batch, const py::object& memory,
                      const std::vector<std::string>& schedules, const std::vector<int>& microbatches,
                      const std::vector<int>& stages_per_rank, const std::vector<int>& replicas,
                      const std::string& recompute, const std::optional<Cut>& cut, int gradient_tree,
                      bool steps_overlap, bool equal_microbatches, bool copies_of_stages, bool share_ties,
                      double effort, std::size_t top) {
  constexpr double passes_a_unit = 1e6;
  if (!(effort > 0 && effort <= 1e6))
    throw bad_input(fmt::format("{} is {}", field("effort"), effort), "millions of passes, above 0 and up to 1000000",
                    "correct the number");
  if (top < 1 || top > 1000)
    throw bad_input(fmt::format("{} is {}", field("top"), top), "1 to 1000", "correct the number");
  PlanRequest request;
  request.ranks = ranks;
  request.batch = batch;
  request.memory = memory_of(memory);
  request.schedules = schedules;
  request.microbatches = microbatches;
  request.stages_per_rank = stages_per_rank;
  request.replicas = replicas;
  request.recomputation = recomputation_of(Recompute(recompute));
  request.cut = cut;
  request.gradient_tree = gradient_tree;
  request.steps_overlap = steps_overlap;
  request.equal_microbatches = equal_microbatches;
  request.copies_of_stages = copies_of_stages;
  request.share_ties = share_ties;
  request.most_plans = top;
  request.most_simulated_passes = std::llround(effort * passes_a_unit);
  const py::gil_scoped_release others_go_on;
  return find_plan(costs, request);
}

using PlanType = py::class_<ReportedPlan>;

void add_choices(PlanType& type) {
  const auto show = [&](const char* name, auto member, const char* what) {
    type.def_property_readonly(name, [member](const ReportedPlan& self) { return self.plan.*member; }, what);
  };
  show("ranks", &Plan::ranks, "Of one replica.");
  show("replicas", &Plan::replicas, "Copies of the whole pipeline, each of which takes an equal part of the batch.");
  show("batch", &Plan::batch, "Samples of an update.");
  show("microbatches", &Plan::microbatches, "Of one replica's part of the batch.");
  show("schedule", &Plan::schedule, "A published schedule's name, or 'synthesised'; `to_schedule` makes it.");
  show("stages_per_rank", &Plan::stages_per_rank, "How many stages each rank holds.");
  show("layers", &Plan::layers, "Of the network that was planned for.");
  show("cut", &Plan::cut, "For each stage the index of its first layer.");
  show("threads_per_rank", &Plan::threads_per_rank, "On which the costs were measured; 0 where it is not known.");
  type.def_property_readonly(
          "recomputed_layers", [](const ReportedPlan& self) { return recomputed_layers(self.plan); },
          "By layer, whether its forward is run again for the backward.")
      .def_property_readonly(
          "prediction", [](const ReportedPlan& self) { return prediction_of(self.plan); },
          "step_ms, pipeline_ms, exchange_ms, update_ms, utilisation, samples_per_second, memory_bytes by rank "
          "and stage_ms by stage.")
      .def_property_readonly(
          "alternatives",
          [](const ReportedPlan& self) {
            std::vector<ReportedPlan> others;
            if (self.answer)
              for (std::size_t index = 1; index < self.answer->plans.size(); ++index)
                others.push_back(alone(self.answer->plans[index], self.costs));
            return others;
          },
          "The next best plans, the fastest first.")
      .def(
          "to_schedule",
          [](const ReportedPlan& self) { return NamedSchedule{schedule_of(self.plan).get(), self.plan.schedule}; },
          "Its Schedule, of all replicas.")
      .def("timeline", &timeline_of, "Its step, simulated, with memory.")
      .def("sweep_svg", &sweep_of,
           "A drawing of the predicted step over the number of microbatches, a line a schedule.");
}

// What becomes files, here or elsewhere.
void add_files(PlanType& type) {
  type.def(
          "to_toml",
          [](const ReportedPlan& self, const std::string& schedule_file) { return to_toml(self.plan, schedule_file); },
          py::arg("schedule_file") = "", "As `penstock train --plan` reads it.")
      .def(
          "to_json", [](const ReportedPlan& self) { return self.json; },
          "What `penstock plan --json` says, the alternatives among it (docs/json.md); times in ms, sizes in bytes.")
      .def(
          "save", [](const ReportedPlan& self, const std::filesystem::path& path) { save_plan(self.plan, path); },
          py::arg("path"), "Writes the TOML, and beside it the schedule's CSV where it has no name.")
      .def_static(
          "load", [](const std::filesystem::path& path) { return alone(load_plan(path)); }, py::arg("path"),
          "Reads what `save` or `penstock plan --output` wrote.")
      .def("export_torchtitan", &write_for_torchtitan, py::arg("folder"),
           "Writes torchtitan.toml, tables of a torchtitan configuration, and schedule.csv, which it names, into the "
           "folder. Raises BadInput for a plan that torchtitan does not run.")
      .def(
          "to_megatron", [](const ReportedPlan& self) { return to_megatron(self.plan); },
          "Arguments of Megatron-LM: its pipeline layout and the sizes that belong to it, a line each. Raises BadInput "
          "for a plan that Megatron does not run: plan with schedules=['1f1b', 'interleaved-1f1b'].");
}

void add_plan_type(py::module_& module) {
  PlanType type(module, "Plan",
                "Cut, schedule, number of microbatches, recomputation and replicas, with the step that they are "
                "predicted to take: a value. Prints as `penstock plan` does.");
  add_choices(type);
  add_files(type);
  type.def("_repr_html_", &plan_html)
      .def("__str__", [](const ReportedPlan& self) { return self.report; })
      .def("__repr__",
           [](const ReportedPlan& self) {
             return fmt::format("Plan({}, {} ranks, {} microbatches, cut {}, step {})", self.plan.schedule,
                                self.plan.ranks, self.plan.microbatches, to_text(choice_of(self.plan.cut)),
                                to_string(self.plan.prediction.step));
           })
      .def(
          "__eq__", [](const ReportedPlan& a, const ReportedPlan& b) { return a == b; }, py::is_operator())
      .def(py::pickle(&reported_state, &reported_from_state))
      .attr("__hash__") = py::none();
}

}  // namespace

void add_plans(py::module_& module) {
  add_plan_type(module);
  module.def(
      "plan", &plan_for, py::arg("costs"), py::kw_only(), py::arg("ranks"), py::arg("batch"),
      py::arg("memory") = py::none(), py::arg("schedules") = std::vector<std::string>(),
      py::arg("microbatches") = std::vector<int>(), py::arg("stages_per_rank") = std::vector<int>(),
      py::arg("replicas") = std::vector<int>{1}, py::arg("recompute") = "auto", py::arg("cut") = py::none(),
      py::arg("gradient_tree") = 0, py::arg("steps_overlap") = false, py::arg("equal_microbatches") = false,
      py::arg("copies_of_stages") = true, py::arg("share_ties") = false, py::arg("effort") = 50.0, py::arg("top") = 5,
      "Chooses cut, schedule, microbatches and recomputation for measured layers.\n\n"
      "costs: LayerCosts, or a dict of their form. ranks: devices, those of all replicas. batch: samples of an update. "
      "memory: of every rank, in bytes or as text ('12GiB'). An empty list leaves a choice free. recompute: 'auto', "
      "stages "
      "that do not fit otherwise, 'none' or 'full'. equal_microbatches: only numbers that divide the batch, for "
      "runtimes that need it. effort: millions of passes that may be simulated, about 10 a "
      "second. "
      "Raises BadInput where nothing fits: the message says how much is missing.");
}

}  // namespace penstock::python
