// Steps one after the other: what the zero-bubble schedules gain, and that nothing else is made faster than it is.
#include "penstock/sim/steps.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/steps.h"
#include "penstock/sim/simulate.h"

namespace penstock::steps_test {
namespace {

Cost even_cost(int stages, double ms) {
  Cost cost;
  for (int stage = 0; stage < stages; ++stage) {
    StageCost each;
    each.forward = each.input_backward = each.weight_backward = {ms};
    cost.stages.push_back(each);
  }
  return cost;
}

VerifiedSchedule made(const char* name, int ranks, int microbatches) {
  return verify(make_schedule(name, ranks, microbatches));
}

double longest_span(const Timeline& timeline) {
  double longest = 0;
  for (const auto& events : timeline.ranks)
    longest = std::max(longest, events.back().end.count - events.front().start.count);
  return longest;
}

TEST(InARow, IsAScheduleOfAllStepsThatVerifies) {
  for (const ScheduleFamily& family : schedule_families()) {
    if (family.name == "forward-only") continue;
    SCOPED_TRACE(family.name);
    const Schedule step = make_schedule(family.name, 4, 8);
    const Schedule row = in_a_row(step, 3);
    EXPECT_EQ(verify(row)->microbatches, 24);
    for (std::size_t rank = 0; rank < step.actions.size(); ++rank) {
      ASSERT_EQ(row.actions[rank].size(), 3 * step.actions[rank].size());
      EXPECT_TRUE(std::equal(step.actions[rank].begin(), step.actions[rank].end(), row.actions[rank].begin()));
      EXPECT_EQ(row.actions[rank].back().microbatch.value, step.actions[rank].back().microbatch.value + 16);
    }
  }
  EXPECT_EQ(in_a_row(make_schedule("1f1b", 2, 4), 1), make_schedule("1f1b", 2, 4));
  EXPECT_THROW(static_cast<void>(in_a_row(make_schedule("1f1b", 2, 4), 0)), Error);
  EXPECT_THROW(static_cast<void>(in_a_row(make_schedule("1f1b", 2, 4), 1'000'000'000)), Error);
}

// Of 24 microbatches with F, I and W of 10 ms: the figures of the table in docs/benchmarks.md.
TEST(StepsInARow, WithoutABubbleARankWorksAllTheTime) {
  const StepsInARow zb_v = simulate_in_a_row(made("zb-v", 8, 24), even_cost(16, 10), 8);
  EXPECT_DOUBLE_EQ(zb_v.pace.count, 1440);
  EXPECT_DOUBLE_EQ(zb_v.utilisation, 1);
  EXPECT_GT(zb_v.first.count, 1440);
  const StepsInARow zb_h2 = simulate_in_a_row(made("zb-h2", 8, 24), even_cost(8, 10), 8);
  EXPECT_DOUBLE_EQ(zb_h2.pace.count, 720);
  EXPECT_DOUBLE_EQ(zb_h2.utilisation, 1);
}

// The first rank begins and ends their steps.
TEST(StepsInARow, TheBubblesOfOthersStay) {
  for (const char* name : {"naive", "gpipe", "1f1b"}) {
    const VerifiedSchedule step = made(name, 4, 8);
    const Cost cost = even_cost(4, 10);
    const StepsInARow row = simulate_in_a_row(step, cost, 5);
    EXPECT_DOUBLE_EQ(row.pace.count, makespan(simulate(step, cost)).count) << name;
    EXPECT_DOUBLE_EQ(row.utilisation, utilisation(simulate(step, cost))) << name;
  }
}

TEST(StepsInARow, ASingleStepIsItself) {
  const VerifiedSchedule step = made("zb-h1", 4, 8);
  Cost cost = even_cost(4, 10);
  const StepsInARow row = simulate_in_a_row(step, cost, 1);
  EXPECT_EQ(row.pace, makespan(simulate(step, cost)));
  EXPECT_EQ(row.first, row.pace);
  EXPECT_DOUBLE_EQ(row.utilisation, utilisation(simulate(step, cost)));
  EXPECT_THROW(static_cast<void>(simulate_in_a_row(step, cost, 0)), Error);
  cost.stages.pop_back();
  EXPECT_THROW(static_cast<void>(simulate_in_a_row(step, cost, 2)), Error);
}

TEST(StepsInARow, ARankUpdatesWhatItHoldsBeforeItGoesOn) {
  Cost cost = even_cost(16, 10);
  for (StageCost& stage : cost.stages) stage.update = {3};
  // Two stages a rank.
  EXPECT_DOUBLE_EQ(simulate_in_a_row(made("zb-v", 8, 24), cost, 8).pace.count, 1446);
}

// The same actions, each one span later, keep every rank's order: no rank has to wait longer than that.
TEST(StepsInARow, TakeNoLongerThanTheLongestSpan) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> time(1, 10);
  for (int round = 0; round < 20; ++round)
    for (const ScheduleFamily& family : schedule_families()) {
      if (family.name == "forward-only") continue;
      SCOPED_TRACE(family.name);
      const VerifiedSchedule step = verify(make_schedule(family.name, 4, 8));
      Cost cost;
      for (int stage = 0; stage < step->stages; ++stage) {
        StageCost each;
        each.forward = {time(random)};
        each.input_backward = {time(random)};
        each.weight_backward = {time(random)};
        cost.stages.push_back(each);
      }
      cost.default_link.latency = {time(random) / 5};
      const StepsInARow row = simulate_in_a_row(step, cost, 6);
      EXPECT_LE(row.pace.count, longest_span(simulate(step, cost)) * (1 + 1e-12));
      EXPECT_LE(row.utilisation, 1 + 1e-12);
    }
}

TEST(StepsInARow, OfRanksThatContendAreFasterWhereOthersWait) {
  const VerifiedSchedule step = made("1f1b", 4, 8);
  Cost cost = even_cost(4, 10);
  for (StageCost& stage : cost.stages) stage.update = {3};
  const StepsInARow none = simulate_in_a_row(step, cost, 6);
  cost.contention = 1 + 1e-12;
  const StepsInARow little = simulate_in_a_row(step, cost, 6);
  EXPECT_NEAR(little.pace.count, none.pace.count, 1e-6);
  EXPECT_NEAR(little.first.count, none.first.count, 1e-6);
  cost.contention = 1.5;
  const StepsInARow contended = simulate_in_a_row(step, cost, 6);
  EXPECT_LT(contended.pace.count, none.pace.count * 0.99);
  EXPECT_GT(contended.pace.count, none.pace.count / 1.5);
}

}  // namespace
}  // namespace penstock::steps_test
