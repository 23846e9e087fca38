#include <algorithm>

#include "penstock/base/error.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"

#include "plan/find_plans.h"

namespace penstock {
namespace {

constexpr std::int64_t part_of_the_effort = 10;

/// The best plan for a changed request, or nothing if there is none. \param complete set to whether all of it was
/// looked at.
std::optional<Plan> best_plan(const LayerCosts& costs, PlanRequest request, bool* complete = nullptr) {
  request.most_plans = 1;
  request.most_simulated_passes /= part_of_the_effort;
  try {
    std::optional<PlanAnswer> answer = find_plans(costs, request);
    if (answer && complete != nullptr) *complete = answer->left_out == 0;
    return answer ? std::optional(std::move(answer->plans.front())) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void add(std::vector<Alternative>& alternatives, std::string what, std::optional<Plan> plan) {
  if (plan) alternatives.push_back({std::move(what), std::move(*plan)});
}

/// The request that leaves only this plan's configuration.
PlanRequest pinned(const PlanRequest& request, const Plan& plan) {
  PlanRequest only = request;
  only.schedules = {plan.schedule};
  only.stages_per_rank = {plan.stages_per_rank};
  only.replicas = {plan.replicas};
  only.microbatches = {plan.microbatches};
  return only;
}

/// The best plan under other circumstances. If the effort is not enough for a whole search, the schedule that is
/// best as things are is looked at by itself, so that what is better does not look worse.
std::optional<Plan> best_plan_near(const LayerCosts& costs, const PlanRequest& request, const Plan& best) {
  bool complete = false;
  std::optional<Plan> plan = best_plan(costs, request, &complete);
  const auto consider = [&](const PlanRequest& near) {
    std::optional<Plan> other = best_plan(costs, near);
    if (other && (!plan || other->prediction.step < plan->prediction.step)) plan = std::move(other);
  };
  PlanRequest near = pinned(request, best);
  consider(near);
  near.microbatches = request.microbatches;
  if (!complete) consider(near);
  return plan;
}

bool is_free(const LinkCost& link) { return link.latency.count == 0 && link.bytes_per_millisecond > 1e18; }

void quicken(LinkCost& link) {
  link.latency = link.latency * 0.1;
  link.bytes_per_millisecond *= 10;
}

}  // namespace

std::vector<Alternative> neighbours(const LayerCosts& costs, const PlanRequest& request, const PlanAnswer& answer) {
  const Plan& best = answer.plans.front();
  std::vector<Alternative> alternatives;
  const int fewer = (best.microbatches + 1) / 2;
  if (fewer < best.microbatches) {
    PlanRequest changed = pinned(request, best);
    changed.microbatches = {fewer};
    add(alternatives, "half as many microbatches", best_plan(costs, changed));
  }
  if (std::int64_t{2} * best.microbatches <= best.batch / best.replicas) {
    PlanRequest changed = pinned(request, best);
    changed.microbatches = {2 * best.microbatches};
    add(alternatives, "twice as many microbatches", best_plan(costs, changed));
  }
  const auto other = std::find_if(answer.plans.begin(), answer.plans.end(),
                                  [&](const Plan& plan) { return plan.schedule != best.schedule; });
  if (other != answer.plans.end()) {
    add(alternatives, "the best other schedule", *other);
  } else if (request.schedules.empty()) {
    PlanRequest changed = request;
    for (const ScheduleFamily& family : schedule_families())
      if (family.name != best.schedule && !family.forward_only) changed.schedules.emplace_back(family.name);
    add(alternatives, "the best other schedule", best_plan(costs, changed));
  }
  if (!request.cut && best.stages() > 1 && best.cut != uniform_cut(best.layers, best.stages())) {
    PlanRequest changed = pinned(request, best);
    changed.cut = uniform_cut(best.layers, best.stages());
    add(alternatives, "the same with layers divided by number", best_plan(costs, changed));
  }
  return alternatives;
}

std::vector<Alternative> other_circumstances(const LayerCosts& costs, const PlanRequest& request,
                                             const PlanAnswer& answer) {
  const Plan& best = answer.plans.front();
  std::vector<Alternative> alternatives;
  const bool listed = std::any_of(costs.ranks.begin(), costs.ranks.end(),
                                  [](const RankCost& rank) { return rank.memory_cap.has_value(); });
  if (request.memory || listed) {
    PlanRequest changed = request;
    if (changed.memory) changed.memory->count *= 2;
    LayerCosts more = costs;
    for (RankCost& rank : more.ranks)
      if (rank.memory_cap) rank.memory_cap->count *= 2;
    add(alternatives, "twice the memory", best_plan_near(more, changed, best));
  }
  const bool free = is_free(costs.default_link) && std::all_of(costs.links.begin(), costs.links.end(),
                                                               [](const auto& entry) { return is_free(entry.second); });
  if (!free && request.ranks > 1) {
    LayerCosts faster = costs;
    quicken(faster.default_link);
    for (auto& [pair, link] : faster.links) quicken(link);
    add(alternatives, "links ten times as fast", best_plan_near(faster, request, best));
  }
  if (request.microbatches.empty()) {
    PlanRequest changed = request;
    changed.batch *= 2;
    add(alternatives, "a batch twice as large", best_plan_near(costs, changed, best));
  }
  return alternatives;
}

}  // namespace penstock
