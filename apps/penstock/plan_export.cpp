#include "plan_export.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <system_error>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/plan_file.h"

namespace penstock::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* guide = R"(# A pipeline for torch.distributed.pipelining

`penstock plan` chose it. `plan.json` has the cut, `schedule.csv` the order of each rank's passes. With PyTorch 2.13:

```python
import json
import torch
import torch.distributed as dist
import torch.distributed.pipelining.schedules as schedules
from torch.distributed.pipelining import PipelineStage

plan = json.load(open("plan.json"))
dist.init_process_group()                       # as many processes as plan["ranks"]
rank = dist.get_rank()
layers = [...]                                  # the network's layers, in order
for tie in plan["ties"]:                        # one Parameter object for both ends, which this plan keeps on one rank
    owner, copy = tie["owner"], tie["copy"]
    module, _, name = copy["parameter"].rpartition(".")
    setattr(layers[copy["layer"]].get_submodule(module), name, layers[owner["layer"]].get_parameter(owner["parameter"]))

def build(index):
    first, end = plan["stages"][index]["first_layer"], plan["stages"][index]["end_layer"]
    return torch.nn.Sequential(*layers[first:end])

last = len(plan["stages"]) - 1
mine = [index for index, stage in enumerate(plan["stages"]) if stage["rank"] == rank]
stages = [PipelineStage(build(index), index, len(plan["stages"]), device) for index in mine]
part = lambda outputs, target: loss(outputs, target) / plan["microbatches"]    # of a loss that is a mean
runtime = schedules._PipelineScheduleRuntime(stages, plan["microbatches"], loss_fn=part, scale_grads=False)
runtime._load_csv("schedule.csv")               # compute actions: PyTorch adds sends and receives
runtime.step(*([inputs] if 0 in mine else []), **({"target": targets} if last in mine else {}))
```

The loss is divided by the microbatches, and `scale_grads` off, as PyTorch would divide the gradient of a tied parameter once for each of its
stages. A rank that has neither the first nor the last stage gives `step` nothing. Give an optimizer each parameter once. Stages whose
`recompute` is true were planned to run each layer under `torch.utils.checkpoint.checkpoint`. PyTorch cuts a batch into parts of equal
size: take one that `microbatches` divides.
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

}  // namespace

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
  write_file_atomically(folder / "README.md", guide);
}

}  // namespace penstock::app
