#include "penstock/plan/drift.h"

#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/plan/networks.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Two stages of two microbatches on two ranks.
Plan plan_of_two(const LayerCosts& costs) {
  PlanRequest request;
  request.ranks = 2;
  request.batch = 8;
  request.schedules = {"1f1b"};
  request.microbatches = {2};
  return make_plans(costs, request).plans.front();
}

// A step in which the passes of stage 1 take `factor` times as long as planned.
Timeline step_of(const Plan& plan, double factor, bool of_all = false) {
  Timeline step;
  for (std::int32_t rank = 0; rank < 2; ++rank) {
    const double pass =
        plan.prediction.stage_passes.at(static_cast<std::size_t>(rank)).count * (rank == 1 || of_all ? factor : 1);
    std::vector<Event> events;
    for (std::int32_t microbatch = 0; microbatch < 2; ++microbatch) {
      const double start = 10.0 * microbatch;
      events.push_back({{ActionKind::Forward, {rank}, {microbatch}}, {start}, {start + pass / 2}});
      events.push_back({{ActionKind::Backward, {rank}, {microbatch}}, {start + pass / 2}, {start + pass}});
    }
    step.ranks.push_back(events);
  }
  return step;
}

std::string told_in(DriftWatch& watch, const Plan& plan, double factor, int steps, bool of_all = false) {
  std::string all;
  for (int step = 0; step < steps; ++step) all += watch.observe(step_of(plan, factor, of_all)).value_or("");
  return all;
}

TEST(Drift, AStageAsPlannedIsNotTold) {
  const Plan plan = plan_of_two(even_network(8));
  DriftWatch watch(plan, 0.25);
  EXPECT_EQ(told_in(watch, plan, 1.2, 50), "");
}

TEST(Drift, AStageThatDriftsIsToldOnceWithWhatANewPlanWouldGain) {
  const LayerCosts costs = even_network(8);
  const auto file = std::filesystem::path(testing::TempDir()) / "drift_costs.json";
  save_layer_costs(costs, file);
  Plan plan = plan_of_two(costs);
  plan.costs_file = file.string();
  DriftWatch watch(plan, 0.25);
  EXPECT_THAT(told_in(watch, plan, 3, 50),
              AllOf(HasSubstr("the run drifts from its plan: stage 1 takes "), HasSubstr("(+200 %)"),
                    Not(HasSubstr("stage 0")), HasSubstr("would make a step")));
  EXPECT_EQ(told_in(watch, plan, 3, 50), "");
}

TEST(Drift, AMachineThatIsSlowerOnAllStagesAlikeIsToldAsThat) {
  const Plan plan = plan_of_two(even_network(8));
  for (const auto& [factor, words] :
       {std::pair{1.5, "the machine is slower"}, std::pair{0.5, "the machine is faster"}}) {
    DriftWatch watch(plan, 0.25);
    EXPECT_THAT(told_in(watch, plan, factor, 50, /*of_all=*/true),
                AllOf(HasSubstr(words), HasSubstr(fmt::format("{:.2f} times", factor)),
                      HasSubstr("on all stages alike"), Not(HasSubstr("the run drifts")), Not(HasSubstr("\n"))));
  }
}

TEST(Drift, OneSlowStepIsNoDrift) {
  const Plan plan = plan_of_two(even_network(8));
  DriftWatch watch(plan, 0.25);
  EXPECT_EQ(told_in(watch, plan, 1, 10) + told_in(watch, plan, 9, 2) + told_in(watch, plan, 1, 20), "");
}

TEST(Drift, CostsThatAreGoneTakeOnlyTheGainAway) {
  Plan plan = plan_of_two(even_network(8));
  plan.costs_file = "no such file";
  DriftWatch watch(plan, 0.25);
  EXPECT_THAT(told_in(watch, plan, 0.5, 50), AllOf(HasSubstr("(-50 %)"), Not(HasSubstr("new plan"))));
}

}  // namespace
}  // namespace penstock
