#include "pipeline/pipeline_plan.h"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <thread>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/schedule/lower.h"

namespace penstock {
namespace {

void check_copies(const Schedule& schedule, const PipelineSettings& settings) {
  const auto& holders = schedule.placement.holders;
  const auto divided = [&](const auto& of_stage) { return std::ssize(of_stage) % settings.replicas == 0; };
  if (settings.replicas < 1 || schedule.ranks() % settings.replicas != 0 ||
      !std::all_of(holders.begin(), holders.end(), divided))
    throw bad_input(
        fmt::format("{} replicas in a schedule of {}", settings.replicas, counted(schedule.ranks(), "rank")),
        "as many ranks, and holders of every stage, in each replica", "make the schedule with side_by_side");
  if (settings.gradient_bucket.count < 1)
    throw bad_input(fmt::format("a bucket of {} bytes for gradients", settings.gradient_bucket.count), "at least 1",
                    "raise it");
  if (settings.shard_optimizer &&
      std::all_of(holders.begin(), holders.end(), [](const auto& of_stage) { return of_stage.size() == 1; }))
    throw bad_input("`zero` = 1 where every stage has one holder",
                    "replicas, among which the optimizer's state is shared", "raise `replicas`, or leave `zero` away");
}

}  // namespace

PipelinePlan make_pipeline_plan(Network network, const VerifiedSchedule& schedule, PipelineSettings settings) {
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  check_network(network);
  check_copies(schedule.get(), settings);
  if (settings.cut.empty()) settings.cut = uniform_cut(layers, schedule->stages);
  const Cut& cut = settings.cut;
  const bool ascending = std::is_sorted(cut.begin(), cut.end(), std::less_equal<>());
  if (static_cast<int>(cut.size()) != schedule->stages || cut.front() != 0 || cut.back() >= layers || !ascending)
    throw bad_input(fmt::format("a cut into {} stages of {} layers", cut.size(), layers),
                    fmt::format("the schedule's {} stages, ascending from layer 0", schedule->stages),
                    "make the cut for this schedule");
  if (settings.threads_per_rank < 0)
    throw bad_input(fmt::format("{} threads a rank", settings.threads_per_rank), "at least 1, or 0 to choose",
                    "raise `threads_per_rank`");
  if (settings.threads_per_rank == 0) settings.threads_per_rank = default_threads(schedule->ranks());
  std::vector<TieGroup> ties = tie_groups(network.ties);
  return {std::move(network), std::move(settings), lower(schedule), std::move(ties)};
}

int default_threads(int ranks) { return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks); }

std::string tensor_name(std::int64_t layer, const std::string& name) {
  return fmt::format("layers.{}.{}", layer, name);
}

at::Device device_of(const PipelinePlan& plan, RankId rank) {
  const auto& devices = plan.settings.devices;
  return devices.empty() ? at::Device(at::kCPU) : devices[rank.index() % devices.size()];
}

std::int64_t end_of_stage(const PipelinePlan& plan, StageId stage) {
  const Cut& cut = plan.settings.cut;
  return stage.index() + 1 < cut.size() ? cut[stage.index() + 1]
                                        : static_cast<std::int64_t>(plan.network.layers.size());
}

}  // namespace penstock
