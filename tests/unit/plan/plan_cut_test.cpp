// The cuts of plans against those of others and against all there are.
#include <gtest/gtest.h>
#include <numeric>

#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

#include "plan/block_partition.h"
#include "plan/stage_division.h"
#include "unit/plan/networks.h"

namespace penstock {
namespace {

#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
constexpr int networks = 40;
constexpr int most_layers = 8;
#else
constexpr int networks = 1000;
constexpr int most_layers = 12;
#endif

struct Case {
  std::string schedule;
  int stages = 1;
  int microbatches = 1;
  double samples = 1;
};

double simulated(const LayerCosts& costs, const Case& drawn, const Cut& cut) {
  const VerifiedSchedule schedule = verify(make_schedule(drawn.schedule, drawn.stages, drawn.microbatches));
  CutRun run;
  run.split_backward = drawn.schedule == "zb-h1";
  const Cost cost = cost_of_cut(costs, cut, drawn.samples, run);
  return makespan(simulate(schedule, cost, {.record_memory = false})).count;
}

Plan planned(const LayerCosts& costs, const Case& drawn, std::int64_t passes) {
  PlanRequest request;
  request.ranks = drawn.stages;
  request.batch = std::llround(drawn.samples * drawn.microbatches);
  request.schedules = {drawn.schedule};
  request.microbatches = {drawn.microbatches};
  request.most_plans = 1;
  request.most_simulated_passes = passes;
  return make_plans(costs, request).plans.front();
}

/// Calls `visit` for every cut.
template <class Visit>
void for_every_cut(std::int64_t layers, int stages, const Visit& visit) {
  for (std::uint64_t chosen = 0; chosen < (std::uint64_t{1} << (layers - 1)); ++chosen) {
    Cut cut{0};
    for (std::int64_t layer = 1; layer < layers; ++layer)
      if ((chosen >> (layer - 1) & 1U) != 0) cut.push_back(layer);
    if (std::ssize(cut) == stages) visit(cut);
  }
}

TEST(PlanCut, IsNeverWorseInSimulationThanThoseOfOthers) {
  constexpr unsigned seed = 20'261'124;
  std::mt19937 random(seed);
  SCOPED_TRACE(fmt::format("seed {}", seed));
  double gain_by_time = 0;
  for (int index = 0; index < networks; ++index) {
    const int stages = std::uniform_int_distribution<int>(2, 6)(random);
    const int layers = stages + std::uniform_int_distribution<int>(0, 18)(random);
    const LayerCosts costs = random_network(random, layers);
    const std::array<const char*, 3> names{"1f1b", "gpipe", "zb-h1"};
    const Case drawn{names.at(static_cast<std::size_t>(index) % 3), stages,
                     std::uniform_int_distribution<int>(2, 16)(random), 2};
    const Plan plan = planned(costs, drawn, 100'000);
    const LayersAtSize at_size(costs, 2);
    std::vector<double> times;
    std::vector<std::int64_t> parameters;
    for (std::size_t layer = 0; layer < costs.layers.size(); ++layer) {
      times.push_back(at_size.time(layer, layer + 1, {}).count);
      parameters.push_back(costs.layers[layer].parameter.count);
    }
    const double ours = plan.prediction.pipeline.count;
    EXPECT_DOUBLE_EQ(ours, simulated(costs, drawn, plan.cut));
    const double by_time = simulated(costs, drawn, block_partition_cut(times, stages));
    EXPECT_LE(ours, by_time * (1 + 1e-12)) << "network " << index;
    EXPECT_LE(ours, simulated(costs, drawn, uniform_cut(layers, stages)) * (1 + 1e-12)) << "network " << index;
    EXPECT_LE(ours, simulated(costs, drawn, balanced_cut(parameters, stages)) * (1 + 1e-12)) << "network " << index;
    gain_by_time += by_time / ours / networks;
  }
  EXPECT_GT(gain_by_time, 1.01);
}

TEST(PlanCut, IsTheOptimumInSimulationOfSmallNetworks) {
  std::mt19937 random(7);
  for (int layers = 1; layers <= most_layers; ++layers)
    for (int stages = 1; stages <= std::min(layers, 5); ++stages) {
      const LayerCosts costs = random_network(random, layers);
      const Case drawn{"1f1b", stages, 4, 2};
      double best = 1e300;
      for_every_cut(layers, stages, [&](const Cut& cut) { best = std::min(best, simulated(costs, drawn, cut)); });
      EXPECT_DOUBLE_EQ(planned(costs, drawn, 10'000'000).prediction.pipeline.count, best)
          << layers << " layers, " << stages << " stages";
    }
}

/// Ranks, links and caps that are not alike.
DivisionProblem division_problem(std::mt19937& random, const LayersAtSize& layers, int stages) {
  DivisionProblem problem;
  problem.layers = &layers;
  problem.split_backward = true;
  problem.recomputation = Recomputation::WhereNeeded;
  std::uniform_real_distribution<double> share(0.5, 1.5);
  const double fair = memory_of_stage({&layers, {{}}, true, {}}, 0, 0, layers.layers(), false) / stages;
  for (int stage = 0; stage < stages; ++stage) {
    StagePlace place;
    place.speed = share(random);
    place.cap = fair * share(random) * 4;
    place.to_next = {{0.1}, 100'000 * share(random)};
    place.to_previous = {{0.1}, 100'000 * share(random)};
    place.held = {{stages - stage, 0}, {stages - stage - 1, 2}};
    problem.places.push_back(place);
  }
  return problem;
}

/// The slowest pace of a cut with as little recomputation as its caps allow; infinite where it does not fit.
double pace_of(const DivisionProblem& problem, const Cut& cut) {
  double slowest = 0;
  for (std::size_t stage = 0; stage < cut.size(); ++stage) {
    const auto first = static_cast<std::size_t>(cut[stage]);
    const std::size_t end = end_of(cut, stage, problem.layers->layers());
    bool recomputed = false;
    if (memory_of_stage(problem, stage, first, end, false) > problem.places[stage].cap) recomputed = true;
    if (recomputed && memory_of_stage(problem, stage, first, end, true) > problem.places[stage].cap) return 1e300;
    slowest = std::max(slowest, pace_of_stage(problem, stage, first, end, recomputed));
  }
  return slowest;
}

TEST(PlanCut, ItsSlowestStageIsTheFastestThatThereIs) {
  std::mt19937 random(11);
  int with_caps = 0;
  for (int layers = 1; layers <= most_layers; ++layers)
    for (int stages = 1; stages <= std::min(layers, 5); ++stages)
      for (int draw = 0; draw < 4; ++draw) {
        const LayerCosts costs = random_network(random, layers);
        const LayersAtSize at_size(costs, 3);
        const DivisionProblem problem = division_problem(random, at_size, stages);
        double best = 1e300;
        for_every_cut(layers, stages, [&](const Cut& cut) { best = std::min(best, pace_of(problem, cut)); });
        const auto division = fastest_division(problem);
        ASSERT_EQ(division.has_value(), best < 1e300) << layers << " layers, " << stages << " stages";
        if (!division) continue;
        EXPECT_DOUBLE_EQ(pace_of(problem, division->cut), best) << layers << " layers, " << stages << " stages";
        with_caps += std::count(division->recomputed.begin(), division->recomputed.end(), true) > 0 ? 1 : 0;
      }
  EXPECT_GT(with_caps, 0) << "no case needed recomputation";
}

TEST(PlanCut, ALinkCanBeTheSlowest) {
  LayerCosts costs = even_network(4);
  for (LayerCost& layer : costs.layers) layer.like.reset();
  // The boundary after layer 1 takes as long as twenty layers, so that no cut is there.
  for (LayerAtSize& size : costs.layers[1].sizes) size.boundary = {2'000'000 * size.samples};
  costs.default_link = {{0}, 100'000};
  const Plan plan = planned(costs, {"1f1b", 2, 4, 1}, 1'000'000);
  EXPECT_NE(plan.cut, (Cut{0, 2}));
}

TEST(PlanCut, BlockPartitionIsTorchgpipes) {
  // The examples of torchgpipe's own tests.
  EXPECT_EQ(block_partition_cut({1, 2, 3, 4, 5, 6}, 2), (Cut{0, 4}));
  EXPECT_EQ(block_partition_cut({1, 1, 1, 1, 1, 1}, 3), (Cut{0, 2, 4}));
}

}  // namespace
}  // namespace penstock
