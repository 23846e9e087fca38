#include "formula.h"

#include <gtest/gtest.h>
#include <string>

#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock::explorer {
namespace {

StageCost unequal_times() {
  StageCost stage;
  stage.forward = {3};
  stage.input_backward = {4};
  stage.weight_backward = {2};
  return stage;
}

double simulated_bubble(const std::string& name, int ranks, int microbatches, const StageCost& stage) {
  const VerifiedSchedule schedule = verify(make_schedule(name, ranks, microbatches));
  return bubble_span(simulate(schedule, uniform_cost(schedule->stages, stage)));
}

TEST(BubbleFormula, IsWhatTheSimulatorFinds) {
  constexpr int ranks = 4;
  constexpr int microbatches = 12;
  for (const char* name : {"naive", "gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1"}) {
    const int stages = name == std::string("interleaved-1f1b") || name == std::string("looped-bfs") ? 2 : 1;
    const auto formula = bubble_formula(name, ranks, microbatches, stages, unequal_times());
    ASSERT_TRUE(formula) << name;
    EXPECT_NEAR(formula->share, simulated_bubble(name, ranks, microbatches, unequal_times()), 1e-12) << name;
  }
}

TEST(BubbleFormula, ZeroBubblesAreZeroInEqualTimes) {
  StageCost equal;
  equal.forward = equal.input_backward = equal.weight_backward = {1};
  for (const char* name : {"zb-h2", "zb-v"}) {
    EXPECT_EQ(bubble_formula(name, 4, 12, 2, equal)->share, 0) << name;
    EXPECT_NEAR(simulated_bubble(name, 4, 12, equal), 0, 1e-12) << name;
  }
}

TEST(BubbleFormula, EveryFamilyHasOneAndNothingElse) {
  for (const ScheduleFamily& family : schedule_families())
    EXPECT_TRUE(bubble_formula(std::string(family.name), 4, 8, family.stages_per_rank, unequal_times())) << family.name;
  EXPECT_FALSE(bubble_formula("schedule.csv", 4, 8, 1, unequal_times()));
}

}  // namespace
}  // namespace penstock::explorer
