#include "plan_export.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/plan_file.h"
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

bool holds_copies(const std::string& schedule) {
  const auto families = schedule_families();
  return std::any_of(families.begin(), families.end(),
                     [&](const ScheduleFamily& family) { return family.name == schedule && family.bidirectional; });
}

}  // namespace

void restrict_to_pytorch(PlanRequest& request) {
  for (const std::string& schedule : request.schedules)
    if (holds_copies(schedule))
      throw bad_input(
          fmt::format("--schedule {} with --export-pytorch", schedule),
          "a schedule that keeps each stage on one rank: this one keeps every stage on two, which PyTorch's "
          "runtime cannot",
          "take another, such as dualpipev or zb-v, or leave --export-pytorch out");
  if (request.replicas != std::vector<int>{1})
    throw bad_input("--replicas with --export-pytorch", "one replica: what is exported is one pipeline",
                    "leave --replicas out");
  for (const int count : request.microbatches)
    if (count > 0 && request.batch % count != 0)
      throw bad_input(fmt::format("--microbatches {} of --batch {} with --export-pytorch", count, request.batch),
                      "a divisor of the batch: PyTorch's runtime needs microbatches of equal size",
                      "change --microbatches or --batch");
  request.equal_microbatches = true;
  request.copies_of_stages = false;
  // PyTorch's runtime does not add the gradients of two ranks.
  request.share_ties = true;
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
