#include "plan/ties.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/plan/plan.h"

#include "plan/stage_division.h"
#include "unit/plan/networks.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// All cuts of so many layers, ascending.
std::vector<Cut> all_cuts(std::int64_t layers, std::size_t stages) {
  std::vector<Cut> cuts{{0}};
  for (std::size_t stage = 1; stage < stages; ++stage) {
    std::vector<Cut> longer;
    for (const Cut& cut : cuts)
      for (std::int64_t first = cut.back() + 1; first < layers; ++first) {
        longer.push_back(cut);
        longer.back().push_back(first);
      }
    cuts = std::move(longer);
  }
  return cuts;
}

LayerTie tie_of(std::int64_t owner, std::int64_t copy, std::int64_t bytes = 1000) {
  return {{owner, "weight"}, {copy, "weight"}, {bytes}};
}

bool goes(const TiedLayers& ties, const TieWay& way, const Cut& cut, std::size_t layers) {
  for (std::size_t stage = 0; stage < cut.size(); ++stage)
    for (auto layer = static_cast<std::size_t>(cut[stage]); layer < end_of(cut, stage, layers); ++layer)
      if (!ties.may_hold(way, stage, layer)) return false;
  return true;
}

TEST(Ties, TheWaysAreTheCutsThatKeepThemAndTheFastestOfThemIsFound) {
  std::mt19937 random(7);
  const std::vector<std::int32_t> v{0, 1, 1, 0};
  const std::vector<std::vector<LayerTie>> cases = {{tie_of(0, 8)},
                                                    {tie_of(2, 6)},
                                                    {tie_of(1, 4), tie_of(4, 7)},
                                                    {tie_of(5, 1), tie_of(2, 3)},
                                                    {tie_of(3, 4), tie_of(0, 8), tie_of(0, 7)}};
  for (const std::vector<LayerTie>& ties_of_case : cases) {
    const LayerCosts costs = random_network(random, 9);
    const LayersAtSize layers(costs, 2);
    const TiedLayers ties(ties_of_case, v, 9);
    DivisionProblem problem{&layers, std::vector<StagePlace>(4)};
    problem.ties = &ties;
    double fastest = no_cap;
    for (const Cut& cut : all_cuts(9, 4)) {
      const bool kept = ties.are_kept_by(cut);
      EXPECT_EQ(kept, std::any_of(ties.ways().begin(), ties.ways().end(),
                                  [&](const TieWay& way) { return goes(ties, way, cut, 9); }));
      if (!kept) continue;
      double slowest = 0;
      for (std::size_t stage = 0; stage < 4; ++stage)
        slowest = std::max(
            slowest, pace_of_stage(problem, stage, static_cast<std::size_t>(cut[stage]), end_of(cut, stage, 9), false));
      fastest = std::min(fastest, slowest);
    }
    const std::optional<Division> division = fastest_division(problem);
    ASSERT_EQ(division.has_value(), fastest < no_cap);
    if (!division) continue;
    EXPECT_TRUE(ties.are_kept_by(division->cut));
    double slowest = 0;
    for (std::size_t stage = 0; stage < 4; ++stage)
      slowest = std::max(slowest, pace_of_stage(problem, stage, static_cast<std::size_t>(division->cut[stage]),
                                                end_of(division->cut, stage, 9), false));
    EXPECT_DOUBLE_EQ(slowest, fastest);
    EXPECT_TRUE(ties.are_kept_by(leanest_division(problem).cut));
  }
}

TEST(Ties, ManyGroupsStayWithinStages) {
  std::vector<LayerTie> pairs;
  for (std::int64_t layer = 0; layer < 40; layer += 2) pairs.push_back(tie_of(layer, layer + 1));
  const TiedLayers ties(pairs, {0, 1, 2, 3}, 40);
  ASSERT_EQ(ties.ways().size(), 1);
  LayerCosts costs = even_network(40);
  costs.ties = pairs;
  PlanRequest request;
  request.ranks = 4;
  request.batch = 16;
  request.share_ties = true;
  request.schedules = {"1f1b"};
  const Plan best = make_plans(costs, request).plans.front();
  for (const std::int64_t first : best.cut) EXPECT_EQ(first % 2, 0);
}

Placement one_each(int ranks) { return loop_placement(ranks, ranks); }

Cost with_links(int ranks) {
  Cost cost;
  cost.stages.resize(static_cast<std::size_t>(ranks));
  cost.default_link = {{1}, 100};
  cost.links[{RankId{2}, RankId{0}}] = {{5}, 50};
  return cost;
}

TEST(Ties, TheExchangeIsThereAndBackOverTheLinksBetweenTheEnds) {
  std::vector<double> time(3, 0);
  add_tied_exchange({tie_of(0, 2)}, {0, 1, 2}, one_each(3), with_links(3), time);
  // 1000 bytes at 50, and the latency; back at 100.
  EXPECT_DOUBLE_EQ(time[0], 25);
  EXPECT_DOUBLE_EQ(time[1], 0);
  EXPECT_DOUBLE_EQ(time[2], 25 + 11);
  time = {0, 0, 0};
  add_tied_exchange({tie_of(0, 1)}, {0, 2, 3}, one_each(3), with_links(3), time);
  EXPECT_EQ(time, std::vector<double>({0, 0, 0})) << "both ends on one rank";
  // Two parameters share the link one after the other, and whoever is late is waited for.
  time = {0, 7, 0};
  add_tied_exchange({tie_of(0, 1), {{0, "bias"}, {1, "bias"}, {500}}}, {0, 1, 2}, one_each(3), with_links(3), time);
  EXPECT_DOUBLE_EQ(time[0], 7 + 15 + 1);
  EXPECT_DOUBLE_EQ(time[1], 7 + 10 + 1 + 10 + 5 + 1);
  // Of one parameter in three layers, two on one rank, each gradient goes there and one sum comes back.
  time = {0, 0, 0};
  add_tied_exchange({tie_of(0, 2), tie_of(0, 3)}, {0, 1, 2}, one_each(3), with_links(3), time);
  EXPECT_DOUBLE_EQ(time[0], 45);
  EXPECT_DOUBLE_EQ(time[2], 45 + 11);
}

TEST(Ties, WhoAddsUpHoldsTheSumBesideItsSummands) {
  Cost cost = with_links(3);
  for (StageCost& stage : cost.stages) stage.parameter = stage.gradient = stage.optimizer = {2000};
  std::vector<Bytes> memory(3, Bytes{6500});
  add_tied_memory({tie_of(0, 2)}, {0, 1, 2}, one_each(3), cost, memory);
  EXPECT_EQ(memory, std::vector<Bytes>({{8000}, {6500}, {6500}}));
  memory.assign(3, Bytes{6500});
  add_tied_memory({tie_of(0, 1)}, {0, 2, 3}, one_each(3), cost, memory);
  EXPECT_EQ(memory, std::vector<Bytes>({{7000}, {6500}, {6500}})) << "on one rank there is nothing that arrives";
  memory.assign(3, Bytes{9000});
  add_tied_memory({tie_of(0, 2)}, {0, 1, 2}, one_each(3), cost, memory);
  EXPECT_EQ(memory, std::vector<Bytes>(3, Bytes{9000}));
}

LayerCosts tied_network() {
  std::mt19937 random(11);
  LayerCosts costs = random_network(random, 10);
  for (const std::size_t end : {std::size_t{0}, std::size_t{9}}) {
    costs.layers[end].parameter = costs.layers[end].gradient = {2'000'000};
    costs.layers[end].optimizer = {4'000'000};
  }
  costs.ties = {{{0, "token.weight"}, {9, "output.weight"}, {2'000'000}}};
  return costs;
}

PlanRequest request_for(int ranks) {
  PlanRequest request;
  request.ranks = ranks;
  request.batch = 16;
  request.most_simulated_passes = 300'000;
  return request;
}

std::string refusal_of(const LayerCosts& costs, const PlanRequest& request) {
  try {
    static_cast<void>(make_plans(costs, request));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "";
}

TEST(Ties, APlanCountsTheirExchange) {
  LayerCosts costs = tied_network();
  PlanRequest request = request_for(2);
  request.schedules = {"1f1b"};
  request.microbatches = {8};
  const Plan tied = make_plans(costs, request).plans.front();
  EXPECT_EQ(tied.ties, costs.ties);
  EXPECT_DOUBLE_EQ(tied.prediction.exchange.count, 2 * (0.1 + 10)) << "2 MB at 200 kB/ms, there and back";
  EXPECT_NEAR(tied.prediction.step.count,
              (tied.prediction.pipeline + tied.prediction.exchange + tied.prediction.update).count, 1e-9);
  costs.ties.clear();
  const Plan untied = make_plans(costs, request).plans.front();
  EXPECT_EQ(untied.prediction.exchange.count, 0);
  EXPECT_EQ(tied.cut, untied.cut);
  // Both at the first rank's peak: it holds the standing part, what has arrived, and the sum beside its summands.
  const Cost cost = cost_of(untied, costs);
  const Bytes standing = cost.stages[0].parameter + cost.stages[0].gradient + cost.stages[0].optimizer;
  EXPECT_EQ(tied.prediction.memory[0], std::max(untied.prediction.memory[0], standing + Bytes{4'000'000}));
}

TEST(Ties, APlanForSharedOnesKeepsThemOnOneRankAndCountsThemOnce) {
  const LayerCosts costs = tied_network();
  PlanRequest request = request_for(2);
  request.share_ties = true;
  const PlanAnswer answer = make_plans(costs, request);
  EXPECT_THAT(answer.notes,
              testing::Contains(AllOf(HasSubstr("not looked at"),
                                      HasSubstr("token.weight of layer 0 and output.weight of layer 9 on one rank"))));
  request.memory = Bytes{64'000'000};
  for (const PlanAnswer& planned : {answer, make_plans(costs, request)}) {
    for (const Plan& plan : planned.plans) {
      const Placement placement = schedule_of(plan)->placement;
      EXPECT_EQ(rank_of_layer(plan.cut, placement, 0), rank_of_layer(plan.cut, placement, 9)) << plan.schedule;
      EXPECT_EQ(plan.prediction.exchange.count, 0);
      EXPECT_TRUE(plan.shared_ties);
      Plan apart = plan;
      apart.shared_ties = false;
      const Cost once = cost_of(plan, costs);
      const Cost twice = cost_of(apart, costs);
      EXPECT_EQ(once.stages.back().parameter + Bytes{2'000'000}, twice.stages.back().parameter);
      EXPECT_EQ(once.stages.back().optimizer + Bytes{4'000'000}, twice.stages.back().optimizer);
      EXPECT_EQ(once.stages.front().gradient + Bytes{2'000'000}, twice.stages.front().gradient);
      for (std::int32_t rank = 0; rank < 2; ++rank)
        EXPECT_EQ(peak_bytes(timeline_of(plan, costs), RankId{rank}),
                  plan.prediction.memory[static_cast<std::size_t>(rank)]);
    }
  }
}

TEST(Ties, WhereNoCutKeepsThemTheParametersAreNamed) {
  const LayerCosts costs = tied_network();
  for (int option = 0; option < 3; ++option) {
    PlanRequest request = request_for(2);
    request.share_ties = true;
    if (option == 0) request.schedules = {"1f1b", "gpipe"};
    if (option == 1) request.stages_per_rank = {1};
    if (option == 2) request.cut = Cut{0, 5};
    EXPECT_THAT(refusal_of(costs, request),
                HasSubstr("no plan keeps token.weight of layer 0 and output.weight of layer 9 on one rank"));
    request.share_ties = false;
    EXPECT_EQ(refusal_of(costs, request), "");
  }
}

TEST(Ties, APlanFileKeepsThem) {
  LayerCosts costs = tied_network();
  costs.ties.push_back({{0, "a \"name\""}, {3, "weight"}, {0}});
  PlanRequest request = request_for(2);
  request.cut = Cut{0, 2, 7, 8};
  request.schedules = {"zb-v"};
  for (const bool shared : {false, true}) {
    request.share_ties = shared;
    costs.ties.back().copy.layer = shared ? 1 : 3;
    const Plan plan = make_plans(costs, request).plans.front();
    const auto path = std::filesystem::path(testing::TempDir()) / "ties_test_plan.toml";
    save_plan(plan, path);
    const Plan loaded = load_plan(path);
    EXPECT_EQ(loaded.ties, costs.ties);
    EXPECT_EQ(loaded.shared_ties, shared);
    EXPECT_EQ(loaded, plan);
  }
}

}  // namespace
}  // namespace penstock
