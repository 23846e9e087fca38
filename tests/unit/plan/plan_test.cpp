#include "penstock/plan/plan.h"

#include <algorithm>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/settings/checks.h"

#include "unit/plan/networks.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

PlanRequest request_for(int ranks, std::int64_t batch) {
  PlanRequest request;
  request.ranks = ranks;
  request.batch = batch;
  request.most_simulated_passes = 300'000;
  return request;
}

std::string refusal(const LayerCosts& costs, const PlanRequest& request) {
  try {
    static_cast<void>(make_plans(costs, request));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "";
}

TEST(Plan, TheBestComeFirstAndAreWhatTheSimulatorSays) {
  std::mt19937 random(3);
  const LayerCosts costs = random_network(random, 10);
  const PlanAnswer answer = make_plans(costs, request_for(3, 24));
  ASSERT_EQ(answer.plans.size(), 5);
  for (std::size_t index = 0; index < answer.plans.size(); ++index) {
    const Plan& plan = answer.plans[index];
    const Timeline timeline = timeline_of(plan, costs);
    EXPECT_DOUBLE_EQ(makespan(timeline).count, plan.prediction.pipeline.count);
    for (std::int32_t rank = 0; rank < plan.ranks; ++rank)
      EXPECT_EQ(peak_bytes(timeline, RankId{rank}), plan.prediction.memory.at(static_cast<std::size_t>(rank)));
    EXPECT_GE(plan.prediction.step.count, answer.plans[index > 0 ? index - 1 : 0].prediction.step.count - 1e-6);
    EXPECT_NEAR(plan.prediction.samples_per_second, 24'000 / plan.prediction.step.count, 1e-6);
  }
  EXPECT_EQ(answer, make_plans(costs, request_for(3, 24))) << "not the same a second time";
}

/// Layers whose backward in one piece takes less than its two parts, as measured ones do.
LayerCosts with_whole_backwards(LayerCosts costs) {
  for (LayerCost& layer : costs.layers)
    for (LayerAtSize& at : layer.sizes)
      at.backward = {{0.8 * (at.input_backward.median.count + at.weight_backward.median.count)}};
  return costs;
}

TEST(Plan, DrawingTableAndSweepAreOneEvaluationForEverySchedule) {
  std::mt19937 random(19);
  for (const bool whole_backwards : {false, true}) {
    LayerCosts costs = random_network(random, 12);
    if (whole_backwards) costs = with_whole_backwards(costs);
    for (const ScheduleFamily& family : schedule_families())
      for (const int microbatches : {1, 2, 4, 6, 8, 16}) {
        if (family.name == "forward-only") continue;
        PlanRequest request = request_for(4, 16);
        request.schedules = {std::string(family.name)};
        request.microbatches = {microbatches};
        for (const Plan& plan : make_plans(costs, request).plans)
          EXPECT_NEAR(makespan(timeline_of(plan, costs)).count, plan.prediction.pipeline.count,
                      1e-9 * plan.prediction.pipeline.count)
              << plan.schedule << ", " << microbatches << " microbatches, whole backwards " << whole_backwards;
        for (const SweepPoint& point : sweep_plans(costs, request)) {
          // The sweep has the cut of the dynamic programming; with that cut the plan is the same.
          PlanRequest same = request;
          same.stages_per_rank = {point.stages_per_rank};
          EXPECT_GE(point.step.count, make_plans(costs, same).plans.front().prediction.step.count * (1 - 1e-9))
              << point.schedule << ", " << microbatches << " microbatches";
        }
      }
  }
}

TEST(Plan, NoOtherConfigurationIsFaster) {
  // With all layers alike, each configuration that a sweep plays is no better than the plan.
  const LayerCosts costs = even_network(8);
  const PlanRequest request = request_for(4, 16);
  const Plan best = make_plans(costs, request).plans.front();
  const auto points = sweep_plans(costs, request);
  ASSERT_GT(points.size(), 50);
  for (const SweepPoint& point : points)
    EXPECT_GE(point.step.count, best.prediction.step.count * (1 - 1e-12))
        << point.schedule << ", " << point.microbatches << " microbatches";
}

// Its bounds are those of ranks that are faster while others wait: none leaves out what would be better.
TEST(Plan, NoOtherConfigurationIsFasterWhereRanksContend) {
  std::mt19937 random(7);
  for (const double contention : {1.05, 1.5, 3.0}) {
    SCOPED_TRACE(contention);
    LayerCosts costs = random_network(random, 8);
    costs.contention = contention;
    const PlanRequest request = request_for(4, 16);
    const PlanAnswer answer = make_plans(costs, request);
    const Plan& best = answer.plans.front();
    const auto points = sweep_plans(costs, request);
    ASSERT_GT(points.size(), 50);
    for (const SweepPoint& point : points)
      EXPECT_GE(point.step.count, best.prediction.step.count * (1 - 1e-12))
          << point.schedule << ", " << point.microbatches << " microbatches";
    EXPECT_NEAR(makespan(timeline_of(best, costs)).count, best.prediction.pipeline.count,
                1e-9 * best.prediction.pipeline.count);
    EXPECT_THAT(answer.notes, testing::Contains(HasSubstr("the ranks share a machine")));
    LayerCosts uncontended = costs;
    uncontended.contention = 1;
    EXPECT_LT(best.prediction.step.count, make_plans(uncontended, request).plans.front().prediction.step.count);
  }
}

TEST(Plan, OfEquallyFastSchedulesTheOneThatHoldsLessIsTaken) {
  PlanRequest request = request_for(2, 16);
  for (const std::vector<std::string>& schedules : {std::vector<std::string>{"gpipe", "1f1b"}, {"1f1b", "gpipe"}}) {
    request.schedules = schedules;
    const PlanAnswer answer = make_plans(even_network(8), request);
    EXPECT_EQ(answer.plans.front().schedule, "1f1b");
  }
}

TEST(Plan, NoConfigurationPlannedByItselfIsFaster) {
  // Layers that differ: which configuration is best shows only when its cut has been refined.
  for (unsigned seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const LayerCosts costs = random_network(random, 9);
    PlanRequest request = request_for(3, 24);
    request.most_simulated_passes = 50'000'000;
    request.schedules = {"1f1b", "zb-h1", "zb-h2", "interleaved-1f1b"};
    request.microbatches = {3, 4, 6, 8, 12};
    request.most_plans = 1;
    const Plan best = make_plans(costs, request).plans.front();
    PlanRequest alone = request;
    for (const std::string& schedule : request.schedules)
      for (const int microbatches : request.microbatches) {
        alone.schedules = {schedule};
        alone.microbatches = {microbatches};
        EXPECT_GE(make_plans(costs, alone).plans.front().prediction.step.count,
                  best.prediction.step.count * (1 - 1e-12))
            << schedule << ", " << microbatches << " microbatches";
      }
  }
}

#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
constexpr int networks_under_caps = 4;
#else
constexpr int networks_under_caps = 10;
#endif

TEST(Plan, NeverTakesMoreThanTheMemory) {
  std::mt19937 random(5);
  int recomputing = 0;
  for (int draw = 0; draw < networks_under_caps; ++draw) {
    const LayerCosts costs = random_network(random, 9);
    PlanRequest request = request_for(3, 16);
    const Plan free = make_plans(costs, request).plans.front();
    const Bytes fullest = *std::max_element(free.prediction.memory.begin(), free.prediction.memory.end());
    for (const double share : {0.9, 0.6, 0.45}) {
      request.memory = Bytes{static_cast<std::int64_t>(static_cast<double>(fullest.count) * share)};
      try {
        for (const Plan& plan : make_plans(costs, request).plans) {
          EXPECT_THAT(plan.prediction.memory, Each(testing::Le(*request.memory)));
          for (std::int32_t rank = 0; rank < plan.ranks; ++rank)
            EXPECT_LE(peak_bytes(timeline_of(plan, costs), RankId{rank}), *request.memory) << plan.schedule;
          recomputing += std::count(plan.recomputed.begin(), plan.recomputed.end(), true) > 0 ? 1 : 0;
        }
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("no plan fits"));
      }
    }
  }
  EXPECT_TRUE(recomputing > 0 || networks_under_caps < 10) << "no case needed recomputation";
}

TEST(Plan, CapsOfEachRankHold) {
  LayerCosts costs = even_network(8);
  costs.ranks = {{1, Bytes{200'000}}, {1, Bytes{40'000}}};
  PlanRequest request = request_for(2, 16);
  request.schedules = {"gpipe", "1f1b", "zb-h1", "zb-v"};
  const Plan plan = make_plans(costs, request).plans.front();
  EXPECT_LE(plan.prediction.memory[0].count, 200'000);
  EXPECT_LE(plan.prediction.memory[1].count, 40'000);
}

TEST(Plan, AGivenCutRecomputesWhereItDoesNotFitOtherwise) {
  const LayerCosts costs = even_network(8);
  PlanRequest request = request_for(2, 16);
  request.schedules = {"gpipe"};
  request.microbatches = {8};
  request.cut = Cut{0, 3};
  const Plan free = make_plans(costs, request).plans.front();
  request.memory = Bytes{free.prediction.memory[1].count - 1};
  const Plan plan = make_plans(costs, request).plans.front();
  EXPECT_EQ(plan.cut, free.cut);
  EXPECT_EQ(plan.recomputed, (std::vector<bool>{false, true}));
}

TEST(Plan, AFastRankGetsMoreLayers) {
  LayerCosts costs = even_network(9);
  costs.ranks = {{2, {}}, {1, {}}};
  PlanRequest request = request_for(2, 32);
  request.schedules = {"1f1b"};
  const Plan plan = make_plans(costs, request).plans.front();
  EXPECT_EQ(plan.cut, (Cut{0, 6}));
}

TEST(Plan, WhereNothingFitsItSaysHowMuchIsMissingAndWhatComesNearest) {
  const LayerCosts costs = even_network(8);
  PlanRequest request = request_for(2, 16);
  request.memory = Bytes{17'000};
  const std::string message = refusal(costs, request);
  EXPECT_THAT(message, AllOf(HasSubstr("no plan fits"), HasSubstr("takes"), HasSubstr("raise `memory` to "),
                             HasSubstr("raise `ranks` to 4, with which it fits")));
  // What it says, in whole KiB, is enough, and a KiB less is not.
  const auto begin = message.find("raise `memory` to ") + 18;
  EXPECT_THAT(message.substr(begin), testing::MatchesRegex("[0-9]+KiB, .*"));
  request.memory = Bytes{std::stoll(message.substr(begin)) * 1024};
  EXPECT_EQ(refusal(costs, request), "");
  request.memory = Bytes{request.memory->count - 1024};
  EXPECT_THAT(refusal(costs, request), HasSubstr("no plan fits"));
  // A restriction that stands in the way is named.
  request = request_for(2, 16);
  request.memory = Bytes{30'000};
  request.microbatches = {1};
  EXPECT_THAT(refusal(costs, request), HasSubstr("leave `microbatches` out, with which it fits"));
}

TEST(Plan, ReplicasTakePartOfTheBatchAndExchangeGradients) {
  const LayerCosts costs = [] {
    LayerCosts even = even_network(4);
    even.default_link = {{0.5}, 1000};
    return even;
  }();
  PlanRequest request = request_for(4, 16);
  request.replicas = {2};
  request.schedules = {"1f1b"};
  const Plan plan = make_plans(costs, request).plans.front();
  EXPECT_EQ(plan.ranks, 2);
  EXPECT_EQ(plan.replicas, 2);
  // Two layers of 1000 bytes of gradients: two steps, half of it each.
  EXPECT_DOUBLE_EQ(plan.prediction.exchange.count, 2 * (0.5 + 1.0));
  request.replicas = {};
  EXPECT_LE(make_plans(costs, request).plans.front().prediction.step, plan.prediction.step);
}

TEST(Plan, AGradientTreeKeepsGradientsAndAllowsOnlyItsReplicas) {
  const LayerCosts costs = even_network(4);  // 1000 bytes of gradients each
  PlanRequest request = request_for(4, 24);
  request.schedules = {"1f1b"};
  request.microbatches = {8};
  const auto fullest = [&] {
    const Plan plan = make_plans(costs, request).plans.front();
    EXPECT_EQ(plan.gradient_tree, request.gradient_tree);
    EXPECT_EQ(plan.prediction.memory.front(), peak_bytes(timeline_of(plan, costs), RankId{0}));
    return std::ranges::max(plan.prediction.memory).count;
  };
  const std::int64_t row = fullest();
  request.gradient_tree = 8;
  EXPECT_EQ(fullest(), row + std::int64_t{3} * 1000);
  // Of eight runs each of two replicas has four, in stages of two layers.
  request.microbatches = {4};
  request.replicas = {2};
  const std::int64_t of_two = fullest();
  request.gradient_tree = 0;
  EXPECT_EQ(of_two, fullest() + std::int64_t{2} * 2000);
  request.gradient_tree = 4;
  request.microbatches = {};
  request.replicas = {};
  request.most_plans = 100;
  for (const Plan& plan : make_plans(costs, request).plans)
    EXPECT_TRUE(allows_gradient_tree(4, plan.replicas, std::int64_t{plan.replicas} * plan.microbatches))
        << to_toml(plan);
  request.gradient_tree = 3;
  EXPECT_THAT(refusal(costs, request), HasSubstr("`gradient_tree` is 3 for a batch of 24; expected 0, or a power of"));
}

TEST(Plan, SynthesisedSchedulesStandInTheirText) {
  std::mt19937 random(9);
  const LayerCosts costs = random_network(random, 6);
  PlanRequest request = request_for(3, 6);
  request.schedules = {"synthesised"};
  request.microbatches = {6};
  const Plan plan = make_plans(costs, request).plans.front();
  EXPECT_EQ(plan.schedule, "synthesised");
  EXPECT_EQ(to_csv(schedule_of(plan).get()), plan.schedule_csv);
  request.schedules = {"synthesised", "gpipe"};
  for (const Plan& listed : make_plans(costs, request).plans)
    EXPECT_THAT(listed.schedule, testing::AnyOf("synthesised", "gpipe"));
}

TEST(Plan, AFileGivesItBack) {
  std::mt19937 random(13);
  const LayerCosts costs = random_network(random, 8);
  PlanRequest request = request_for(2, 16);
  request.recomputation = Recomputation::Full;
  request.most_plans = 8;
  std::vector<Plan> plans = make_plans(costs, request).plans;
  request.recomputation = Recomputation::WhereNeeded;
  request.schedules = {"synthesised"};
  plans.push_back(make_plans(costs, request).plans.front());
  plans.back().recomputed.assign(plans.back().cut.size(), false);
  plans.back().recomputed.front() = true;
  request.schedules = {};
  request.replicas = {2};
  plans.push_back(make_plans(costs, request).plans.front());
  plans.back().threads_per_rank = 3;
  request.gradient_tree = 2;
  plans.push_back(make_plans(costs, request).plans.front());
  const auto path = std::filesystem::path(testing::TempDir()) / "plan_test.toml";
  const auto moved = std::filesystem::path(testing::TempDir()) / "plan_test_moved";
  std::filesystem::create_directories(moved);
  for (const Plan& plan : plans) {
    save_plan(plan, path);
    EXPECT_EQ(load_plan(path), plan) << read_file(path);
    for (const auto& file : {path, schedule_file_beside(path)}) {
      std::error_code none;
      std::filesystem::rename(file, moved / file.filename(), none);
    }
    EXPECT_EQ(load_plan(moved / path.filename()), plan) << read_file(moved / path.filename());
  }
  std::filesystem::remove_all(moved);
  write_file_atomically(path, "stages = 2\n");
  EXPECT_THROW(static_cast<void>(load_plan(path)), Error);
}

TEST(Plan, AFileKeepsNamesOfAnyCharacters) {
  std::mt19937 random(11);
  Plan plan = make_plans(random_network(random, 4), request_for(2, 8)).plans.front();
  std::string all;
  for (int code = 1; code < 128; ++code) all += static_cast<char>(code);
  plan.costs_file = all + "\u00e9\u2192";
  plan.ties = {{{0, "first\nsecond"}, {1, "\t\x1b[31m\x7f"}, {4}}};
  const auto path = std::filesystem::path(testing::TempDir()) / "plan_test_characters.toml";
  save_plan(plan, path);
  EXPECT_EQ(load_plan(path), plan) << read_file(path);
  for (const char letter : read_file(path))
    EXPECT_TRUE(letter == '\n' || (letter != '\x7f' && (letter < 0 || letter >= ' ')));
}

// As version 12fd677 wrote it.
TEST(Plan, AFileOfAnEarlierVersionIsRead) {
  const Plan plan = load_plan(std::filesystem::path(PENSTOCK_GOLDEN) / "settings" / "plan.toml");
  EXPECT_EQ(plan.cut, (Cut{0, 3}));
  EXPECT_EQ(plan.schedule, "chimera");
  EXPECT_EQ(plan.microbatches, 2);
  EXPECT_EQ(plan.recomputed, (std::vector<bool>{false, false}));
  EXPECT_EQ(plan.threads_per_rank, 1);
}

TEST(Plan, IsALayoutWithAllElseAsItWas) {
  Plan plan;
  plan.ranks = 2;
  plan.replicas = 2;
  plan.microbatches = 4;
  plan.gradient_tree = 8;
  plan.schedule = "zb-v";
  plan.stages_per_rank = 2;
  plan.layers = 8;
  plan.cut = {0, 2, 4, 6};
  plan.recomputed = {true, true, false, true};
  Layout before;
  before.devices = {"cpu"};
  before.zero = 1;
  before.threads_per_rank = 3;
  Layout expected = before;
  expected.stages = 4;
  expected.ranks = 4;
  expected.cut = "2,4,6";
  expected.schedule = "zb-v";
  expected.microbatches = 8;
  expected.replicas = 2;
  expected.gradient_tree = 8;
  expected.recompute = "0-3,6-7";
  EXPECT_EQ(with_plan(before, plan), expected);
  EXPECT_EQ(ranks_of(expected), 4);
  plan.threads_per_rank = 2;
  EXPECT_EQ(with_plan(before, plan).threads_per_rank, 2);
  plan.recomputed.assign(4, true);
  EXPECT_EQ(recompute_of(plan), Recompute::Full);
  plan.recomputed.clear();
  EXPECT_EQ(recompute_of(plan), Recompute::None);
  plan.stages_per_rank = 4;
  EXPECT_EQ(with_plan(before, plan, "own.csv").schedule, "own.csv") << "no name stands for so many stages a rank";
}

TEST(Plan, ChoosesRecomputationOfWholeStagesOnly) {
  EXPECT_EQ(recomputation_of(automatic), Recomputation::WhereNeeded);
  EXPECT_EQ(recomputation_of("full"), Recomputation::Full);
  EXPECT_EQ(recomputation_of("none"), Recomputation::None);
  for (const char* other : {"selected", "1-4"}) EXPECT_THROW(static_cast<void>(recomputation_of(other)), Error);
}

TEST(Plan, AFileThatNoRunCouldFollowIsRefused) {
  std::mt19937 random(13);
  const auto path = std::filesystem::path(testing::TempDir()) / "plan_test.toml";
  // With the file of its schedule, where that is one of its own.
  save_plan(make_plans(random_network(random, 8), request_for(2, 16)).plans.front(), path);
  const std::string text = read_file(path);
  const auto refused = [&](const std::string& key, const std::string& value) {
    const std::size_t line = text.find("\n" + key + " = ") + 1;
    write_file_atomically(path, text.substr(0, line) + key + " = " + value + text.substr(text.find('\n', line)));
    try {
      static_cast<void>(load_plan(path));
    } catch (const Error& error) {
      return std::string(error.what()).find(": " + key) != std::string::npos;
    }
    return false;
  };
  EXPECT_NO_THROW(static_cast<void>(load_plan(path)));
  EXPECT_FALSE(refused("replicas", "1"));
  for (const char* words : {"\"\"", "\"0-\"", "\"3-1\"", "\"0-8\"", "\"0;1\"", "\"some\""})
    EXPECT_TRUE(refused("recompute", words)) << words;
  for (const char* number : {"1e308", "-1.0", "nan"}) EXPECT_TRUE(refused("step-ms", number)) << number;
}

TEST(Plan, RefusesWhatCannotBePlanned) {
  const LayerCosts costs = even_network(4);
  const auto changed = [&](auto change) {
    PlanRequest request = request_for(2, 16);
    change(request);
    return refusal(costs, request);
  };
  EXPECT_THAT(changed([](PlanRequest& request) { request.ranks = 0; }), HasSubstr("`ranks` is 0"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.ranks = 5; }),
              HasSubstr("`ranks` is 5; expected at most 4, the number of layers"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.batch = 0; }), HasSubstr("`batch` is 0"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.batch = -3; }), HasSubstr("`batch` is -3"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.microbatches = {17}; }), HasSubstr("`microbatches` is 17"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.replicas = {3}; }), HasSubstr("`replicas` is 3"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.stages_per_rank = {3}; }),
              HasSubstr("`stages_per_rank` is 3"));
  EXPECT_THAT(changed([](PlanRequest& request) { request.schedules = {"zigzag"}; }), HasSubstr("no schedule 'zigzag'"));
  EXPECT_THAT(changed([](PlanRequest& request) {
                request.batch = 1000;
                request.microbatches = {2};
              }),
              AllOf(HasSubstr("microbatches of 1 to 32 samples"), HasSubstr("\"layer 0\" was measured")));
}

TEST(Plan, WhatWasNotMeasuredIsNotPlannedButSaid) {
  const LayerCosts costs = even_network(4);
  const PlanAnswer answer = make_plans(costs, request_for(2, 128));
  for (const Plan& plan : answer.plans) EXPECT_LE(plan.samples(), 32);
  EXPECT_THAT(answer.notes, testing::Contains(HasSubstr("only microbatches of 1 to 32 samples")));
}

TEST(Plan, ABatchWithoutDivisorsIsPlannedToo) {
  EXPECT_GT(make_plans(even_network(4), request_for(2, 10'007)).plans.front().microbatches, 10'007 / 33);
  EXPECT_THAT(refusal(even_network(4), request_for(2, 2'000'000'000)), HasSubstr("million passes"));
}

TEST(Plan, OtherCircumstancesAreNeverWorse) {
  std::mt19937 random(17);
  const LayerCosts costs = random_network(random, 8);
  PlanRequest request = request_for(3, 16);
  request.most_simulated_passes = 5'000'000;
  const PlanAnswer free = make_plans(costs, request);
  const auto& memory = free.plans.front().prediction.memory;
  request.memory = Bytes{std::max_element(memory.begin(), memory.end())->count * 3 / 4};
  const PlanAnswer answer = make_plans(costs, request);
  const auto others = other_circumstances(costs, request, answer);
  ASSERT_EQ(others.size(), 3);
  for (const Alternative& other : others)
    EXPECT_GE(other.plan.prediction.samples_per_second, answer.plans.front().prediction.samples_per_second * 0.99)
        << other.what;
  for (const Alternative& other : neighbours(costs, request, answer))
    EXPECT_GE(other.plan.prediction.step.count, answer.plans.front().prediction.step.count * 0.999) << other.what;
}

}  // namespace
}  // namespace penstock
