// Plans for runs whose ranks go on to the next step: the longest time of a rank counts, not that of all together.
#include <algorithm>
#include <gtest/gtest.h>

#include "penstock/plan/plan.h"
#include "penstock/sim/steps.h"

namespace penstock::overlap_test {
namespace {

LayerCosts even_layers(int layers) {
  LayerCosts costs;
  for (int layer = 0; layer < layers; ++layer) {
    LayerCost cost;
    cost.name = std::to_string(layer);
    for (const std::int64_t samples : {std::int64_t{1}, std::int64_t{32}}) {
      const Milliseconds each{static_cast<double>(samples)};
      cost.sizes.push_back({samples, {each}, {each}, {each}});
    }
    cost.update = {2};
    costs.layers.push_back(std::move(cost));
  }
  return costs;
}

Plan best_of(PlanRequest request, bool steps_overlap) {
  request.ranks = 4;
  request.batch = 24;
  request.microbatches = {24};
  request.steps_overlap = steps_overlap;
  return make_plans(even_layers(16), request).plans.front();
}

TEST(Overlap, APlanWithoutABubbleTakesItsWorkAndItsUpdate) {
  for (const char* schedule : {"zb-v", "zb-h2"}) {
    const Plan waits = best_of({.schedules = {schedule}}, false);
    const Plan goes_on = best_of({.schedules = {schedule}}, true);
    // Four layers a rank, 24 microbatches of F, I and W of 1 ms, and four updates.
    EXPECT_DOUBLE_EQ(goes_on.prediction.step.count, 4 * 24 * 3 + 4 * 2) << schedule;
    EXPECT_GT(waits.prediction.step, goes_on.prediction.step) << schedule;
  }
}

// The first rank begins and ends the steps of 1F1B: nothing is gained.
TEST(Overlap, APlanWithABubbleIsNotMadeFaster) {
  EXPECT_DOUBLE_EQ(best_of({.schedules = {"1f1b"}}, false).prediction.step.count,
                   best_of({.schedules = {"1f1b"}}, true).prediction.step.count);
}

// The search passes over what its bound says cannot be better: the best of all must be the best of each.
TEST(Overlap, TheBestOfAllIsTheBestOfEach) {
  const Plan best = best_of({}, true);
  for (const char* schedule : {"gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "interleaved-1f1b", "v-half"})
    EXPECT_LE(best.prediction.step.count, best_of({.schedules = {schedule}}, true).prediction.step.count) << schedule;
}

}  // namespace
}  // namespace penstock::overlap_test
