#include "penstock/plan/plan_layout.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"

namespace penstock {

bool needs_schedule_file(const Plan& plan) {
  const ScheduleFamily* family = find_schedule_family(plan.schedule);
  return !plan.schedule_csv.empty() || family == nullptr || family->stages_per_rank != plan.stages_per_rank;
}

Recompute recompute_of(const Plan& plan) {
  if (std::count(plan.recomputed.begin(), plan.recomputed.end(), true) == plan.stages()) return Recompute::Full;
  std::vector<LayerRange> layers;
  for (std::size_t stage = 0; stage < plan.recomputed.size(); ++stage) {
    const std::int64_t end = stage + 1 < plan.cut.size() ? plan.cut[stage + 1] : plan.layers;
    if (plan.recomputed[stage]) layers.push_back({plan.cut[stage], end - 1});
  }
  return Recompute::of(std::move(layers));
}

Layout with_plan(Layout layout, const Plan& plan, const std::filesystem::path& schedule_file) {
  layout.stages = plan.stages();
  layout.ranks = plan.ranks * plan.replicas;
  layout.cut = choice_of(plan.cut);
  layout.schedule = needs_schedule_file(plan) && !schedule_file.empty() ? schedule_file.string() : plan.schedule;
  layout.microbatches = plan.microbatches * plan.replicas;
  layout.replicas = plan.replicas;
  layout.gradient_tree = plan.gradient_tree;
  layout.recompute = recompute_of(plan);
  if (plan.threads_per_rank > 0) layout.threads_per_rank = plan.threads_per_rank;
  return layout;
}

std::vector<std::optional<Bytes>> memory_caps_of(const LayerCosts& costs, const PlanRequest& request) {
  std::vector<std::optional<Bytes>> caps(static_cast<std::size_t>(request.ranks), request.memory);
  for (std::size_t rank = 0; rank < costs.ranks.size() && rank < caps.size(); ++rank) {
    const auto& cap = costs.ranks[rank].memory_cap;
    if (cap && (!caps[rank] || *cap < *caps[rank])) caps[rank] = cap;
  }
  return caps;
}

Recomputation recomputation_of(const Recompute& choice) {
  if (choice.is_automatic()) return Recomputation::WhereNeeded;
  if (choice.kind() != Recompute::None && choice.kind() != Recompute::Full)
    throw bad_input(fmt::format("`recompute` is \"{}\"", shortened(to_text(choice))), "auto, none or full",
                    "correct `recompute`");
  return choice.kind() == Recompute::Full ? Recomputation::Full : Recomputation::None;
}

}  // namespace penstock
