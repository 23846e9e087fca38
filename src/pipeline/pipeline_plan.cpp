#include "pipeline/pipeline_plan.h"

#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <thread>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/nn/weight_type.h"
#include "penstock/schedule/replicas.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

void check_copies(const Schedule& schedule, const PipelineSettings& settings) {
  const auto& holders = schedule.placement.holders;
  const auto divided = [&](const auto& holders_of_stage) {
    return std::ssize(holders_of_stage) % settings.replicas == 0;
  };
  if (settings.replicas < 1 || schedule.ranks() % settings.replicas != 0 ||
      !std::all_of(holders.begin(), holders.end(), divided))
    throw bad_input(
        fmt::format("{} replicas in a schedule of {}", settings.replicas, counted(schedule.ranks(), "rank")),
        "as many ranks, and holders of every stage, in each replica", "make the schedule with side_by_side");
  if (settings.gradient_bucket.count < 1)
    throw bad_input(fmt::format("a bucket of {} bytes for gradients", settings.gradient_bucket.count), "at least 1",
                    "raise it");
  if (settings.shard_optimizer && std::all_of(holders.begin(), holders.end(), [](const auto& holders_of_stage) {
        return holders_of_stage.size() == 1;
      }))
    throw bad_input("`zero` = 1 where every stage has one holder",
                    "replicas, among which the optimizer's state is shared", "raise `replicas`, or leave `zero` away");
}

// A tree over runs has its sums only where every holder of a stage has a replica's share of the microbatches.
void check_shares(const Schedule& schedule, const PipelineSettings& settings) {
  if (settings.gradient_tree == 0) return;
  check_gradient_tree(settings.gradient_tree, settings.replicas, schedule.microbatches);
  const int ranks = schedule.ranks() / settings.replicas;
  const int share = schedule.microbatches / settings.replicas;
  for (const auto& holders_of_stage : schedule.placement.holders)
    if (std::ssize(holders_of_stage) != settings.replicas)
      throw bad_input(fmt::format("`gradient_tree` is {} for a schedule that holds a stage on {} ranks of a replica",
                                  settings.gradient_tree, std::ssize(holders_of_stage) / settings.replicas),
                      "a schedule in which one rank has all microbatches of a stage", "choose another `schedule`");
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    for (const Action& action : entry(schedule.actions, rank))
      if (is_compute(action.kind) && action.microbatch.value / share != rank / ranks)
        throw bad_input(fmt::format("`gradient_tree` is {}, and replica {} has microbatch {}", settings.gradient_tree,
                                    rank / ranks, action.microbatch.value),
                        fmt::format("{} in a row for each replica", counted(share, "microbatch")),
                        "give each replica a schedule of as many microbatches");
}

}  // namespace

PipelinePlan make_pipeline_plan(Network network, const VerifiedSchedule& schedule, PipelineSettings settings) {
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  check_network(network);
  if (settings.weights != Precision::Float32 &&
      (settings.weights != Precision::BFloat16 || settings.precision != Precision::BFloat16))
    throw bad_input(
        fmt::format("`weights` = {} with `precision` = {}", word_of(settings.weights), word_of(settings.precision)),
        "weights in fp32, or in bf16 where layers compute in bf16 too", "change `weights` or `precision`");
  if (settings.outside_optimizer && settings.weights != Precision::Float32)
    throw bad_input("`weights` = bf16 with an optimizer of another library", "weights in fp32", "leave `weights` out");
  settings.optimizer.masters = settings.weights != Precision::Float32;
  network = with_weights_in(std::move(network), settings.weights);
  check_copies(schedule.get(), settings);
  check_shares(schedule.get(), settings);
  if (settings.cut.empty()) settings.cut = uniform_cut(layers, schedule->stages);
  if (settings.outside_optimizer && settings.post_validation.value_or(false))
    throw bad_input("`post-validation` with an optimizer of another library", "updates that wait for the norm",
                    "leave `post-validation` out");
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
  VerifiedSchedule lowered = lower(schedule);
  std::vector<Lead> leads = find_leads(lowered);
  return {std::move(network), std::move(settings), std::move(lowered), std::move(leads), std::move(ties)};
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
