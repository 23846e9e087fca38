#include "plan_export.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/other_runtimes.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"

namespace penstock::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* guide = R"(# A pipeline for torch.distributed.pipelining

`penstock plan` chose it. `plan.json` has the cut, by the names of the layers, and `schedule.csv` the order of each
rank's passes. With PyTorch 2.13:

    torchrun --nproc-per-node @RANKS@ train.py --network FILE.py

`FILE.py` describes the network, its data and its loss; `network_layers.py` says how. It need not be named where
measure_layers.py measured such a file: then it is that one. The class `Pipeline` of `train.py` is what a program of
one's own needs.

Each rank gives the runtime's `step` what its stages take: the inputs where it has the first one, the targets where it
has the last. The loss is divided by the microbatches, and `scale_grads` off, as PyTorch would divide the gradient of a
tied parameter once for each of its stages. PyTorch cuts a batch into parts of equal size: one that `microbatches`
divides.
)";

Json stages_of(const Plan& plan, const Schedule& schedule, const LayerCosts& costs) {
  Json stages = Json::array();
  for (std::size_t stage = 0; stage < plan.cut.size(); ++stage) {
    const std::int64_t end = stage + 1 < plan.cut.size() ? plan.cut[stage + 1] : plan.layers;
    Json names = Json::array();
    for (std::int64_t layer = plan.cut[stage]; layer < end; ++layer)
      names.push_back(costs.layers[static_cast<std::size_t>(layer)].name);
    stages.push_back({{"rank", schedule.placement.holders[stage].front().value},
                      {"first_layer", plan.cut[stage]},
                      {"end_layer", end},
                      {"layers", names},
                      {"recompute", static_cast<bool>(plan.recomputed[stage])}});
  }
  return stages;
}

Json end_of_tie(const LayerParameter& end) { return {{"layer", end.layer}, {"parameter", end.parameter}}; }

Json ties_of(const Plan& plan, const Schedule& schedule) {
  const auto rank_of = [&](const LayerParameter& end) {
    const auto stage = std::upper_bound(plan.cut.begin(), plan.cut.end(), end.layer) - plan.cut.begin() - 1;
    return schedule.placement.holders[static_cast<std::size_t>(stage)].front();
  };
  Json ties = Json::array();
  for (const LayerTie& tie : plan.ties) {
    if (rank_of(tie.owner) != rank_of(tie.copy))
      throw bad_input(fmt::format("{}, which the plan has on two ranks", to_string(tie)),
                      "tied parameters on one rank, as PyTorch's runtime does not add the gradients of two",
                      "plan with PlanRequest::share_ties");
    ties.push_back({{"owner", end_of_tie(tie.owner)}, {"copy", end_of_tie(tie.copy)}});
  }
  return ties;
}

std::vector<std::string> layer_names(const LayerCosts& costs) {
  std::vector<std::string> names;
  names.reserve(costs.layers.size());
  for (const LayerCost& layer : costs.layers) names.push_back(layer.name);
  return names;
}

struct Runtime {
  std::string option;
  std::string name;
};

Runtime first_of(const PlanExports& exports) {
  if (!exports.pytorch.empty()) return {"--export-pytorch", "PyTorch's runtime"};
  if (!exports.torchtitan.empty()) return {"--export-torchtitan", "torchtitan"};
  if (!exports.megatron.empty()) return {"--export-megatron", "Megatron"};
  return {};
}

void restrict_to_megatron(PlanRequest& request) {
  const std::vector<std::string> own{"1f1b", "interleaved-1f1b"};
  for (const std::string& schedule : request.schedules)
    if (std::find(own.begin(), own.end(), schedule) == own.end())
      throw bad_input(fmt::format("--schedule {} with --export-megatron", schedule),
                      "1f1b or interleaved-1f1b, which Megatron runs", "take one of these");
  if (request.schedules.empty()) request.schedules = own;
}

bool holds_copies(const std::string& schedule) {
  const ScheduleFamily* family = find_schedule_family(schedule);
  return family != nullptr && family->bidirectional;
}

}  // namespace

void restrict_to_exports(PlanRequest& request, const PlanExports& exports) {
  const Runtime runtime = first_of(exports);
  if (runtime.option.empty()) return;
  for (const std::string& schedule : request.schedules)
    if (holds_copies(schedule))
      throw bad_input(
          fmt::format("--schedule {} with {}", schedule, runtime.option),
          fmt::format(
              "a schedule that keeps each stage on one rank: this one keeps every stage on two, which {} cannot",
              runtime.name),
          fmt::format("take another, such as dualpipev or zb-v, or leave {} out", runtime.option));
  if (request.gradient_tree != 0)
    throw bad_input(fmt::format("--gradient-tree with {}", runtime.option),
                    fmt::format("no gradient tree, which {} does not have", runtime.name), "leave --gradient-tree out");
  if (request.replicas != std::vector<int>{1})
    throw bad_input(fmt::format("--replicas with {}", runtime.option), "one replica: what is exported is one pipeline",
                    "leave --replicas out");
  for (const int count : request.microbatches)
    if (count > 0 && request.batch % count != 0)
      throw bad_input(fmt::format("--microbatches {} of --batch {} with {}", count, request.batch, runtime.option),
                      fmt::format("a divisor of the batch: {} needs microbatches of equal size", runtime.name),
                      "change --microbatches or --batch");
  request.equal_microbatches = true;
  request.copies_of_stages = false;
  // These runtimes do not add the gradients of two ranks.
  request.share_ties = !exports.pytorch.empty();
  if (!exports.megatron.empty()) restrict_to_megatron(request);
}

void check_exports(const PlanExports& exports) {
  for (const auto& [option, folder] :
       {std::pair("--export-pytorch", &exports.pytorch), std::pair("--export-torchtitan", &exports.torchtitan)})
    if (!folder->empty() && std::filesystem::exists(*folder) && !std::filesystem::is_directory(*folder))
      throw bad_input(fmt::format("{} {} is no folder", option, shortened(*folder)), "a folder, which need not exist",
                      "name another");
}

void write_exports(const Plan& plan, const LayerCosts& costs, const PlanExports& exports) {
  if (!exports.pytorch.empty()) export_for_pytorch(plan, costs, exports.pytorch);
  if (!exports.torchtitan.empty()) save_for_torchtitan(plan, layer_names(costs), exports.torchtitan);
  if (!exports.megatron.empty()) write_file_atomically(exports.megatron, to_megatron(plan));
}

void export_for_pytorch(const Plan& plan, const LayerCosts& costs, const std::filesystem::path& folder) {
  const VerifiedSchedule schedule = schedule_of(plan);
  const auto& holders = schedule->placement.holders;
  if (std::any_of(holders.begin(), holders.end(), [](const auto& ranks) { return ranks.size() > 1; }))
    throw bad_input(fmt::format("{}, which keeps two copies of each stage", plan.schedule),
                    "a schedule that PyTorch's runtime knows", "take another --schedule");
  const Json ties = ties_of(plan, schedule.get());
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem)
    throw run_failed(fmt::format("cannot make the folder {}: {}", shortened(folder.string()), problem.message()),
                     "a place that can be written", "check the path and its permissions");
  std::vector<std::int64_t> memory;
  memory.reserve(plan.prediction.memory.size());
  for (const Bytes bytes : plan.prediction.memory) memory.push_back(bytes.count);
  const Json document = {{"ranks", plan.ranks},
                         {"batch", plan.batch},
                         {"microbatches", plan.microbatches},
                         {"model", costs.model},
                         {"schedule", plan.schedule},
                         {"stages", stages_of(plan, schedule.get(), costs)},
                         {"ties", ties},
                         {"prediction",
                          {{"step_ms", plan.prediction.step.count},
                           {"utilisation", plan.prediction.utilisation},
                           {"samples_per_second", plan.prediction.samples_per_second},
                           {"memory_bytes", memory}}}};
  write_file_atomically(folder / "plan.json", document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  write_file_atomically(folder / "schedule.csv", to_csv(schedule.get()));
  write_file_atomically(folder / "train.py", train_program);
  write_file_atomically(folder / "network_layers.py", network_layers_program);
  std::string text = guide;
  constexpr std::string_view ranks = "@RANKS@";
  text.replace(text.find(ranks), ranks.size(), std::to_string(plan.ranks));
  write_file_atomically(folder / "README.md", text);
}

}  // namespace penstock::app
