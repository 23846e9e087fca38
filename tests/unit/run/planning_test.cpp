#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>
#include <unistd.h>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/models/decoder.h"
#include "penstock/nn/freeze.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/plan.h"
#include "penstock/profile/profile.h"
#include "penstock/run/train.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

#include "drawn_cases.h"
#include "plan/planning_problem.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Planning : public testing::Test {
 protected:
  Planning()
      : folder_(std::filesystem::path(testing::TempDir()) / ("penstock_planning_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::string text;
    for (int line = 0; line < 400; ++line) text += "a pipeline has stages and bubbles\n";
    write_file_atomically(folder_ / "text.txt", text);
    settings_.data.paths = {(folder_ / "text.txt").string()};
    settings_.data.context = 8;
    settings_.model.layers = 3;
    settings_.model.width = 8;
    settings_.model.heads = 2;
    settings_.training.batch = 8;
    settings_.training.steps = 3;
    settings_.output.eval_samples = 4;
    settings_.planning.cost = (folder_ / "cost.json").string();
    settings_.output.folder = (folder_ / "run").string();
    request_.ranks = 2;
    request_.batch = 8;
  }
  ~Planning() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string refusal(const TrainSettings& settings, const PlanRequest& request) const {
    try {
      static_cast<void>(measured_costs(settings, request, {}));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
  TrainSettings settings_;
  PlanRequest request_;
};

TEST_F(Planning, CostsAreMeasuredOnceAndFoundAgain) {
  const MeasuredCosts first = measured_costs(settings_, request_, {});
  EXPECT_FALSE(first.reused);
  EXPECT_EQ(first.costs.model.at("name"), "gpt");
  EXPECT_EQ(measured_range(first.costs).most, 4);
  const MeasuredCosts second = measured_costs(settings_, request_, {});
  EXPECT_TRUE(second.reused);
  EXPECT_EQ(second.costs, first.costs);
  // Other sizes of the same network are measured anew.
  request_.batch = settings_.training.batch = 16;
  EXPECT_FALSE(measured_costs(settings_, request_, {}).reused);
}

TEST_F(Planning, CostsThatAreUsedAgainSayHowOldAndHowGoodTheyAre) {
  std::string told;
  const Note note = [&](const std::string& line) { told = line; };
  MeasuredCosts first = measured_costs(settings_, request_, note);
  ASSERT_TRUE(first.costs.measured);
  first.costs.measured->at -= std::chrono::days(9);
  first.costs.measured->spread = 0.013;
  save_layer_costs(first.costs, settings_.planning.cost);
  EXPECT_TRUE(measured_costs(settings_, request_, note).reused);
  EXPECT_THAT(told, AllOf(HasSubstr("9 days ago, median known to 1.3 %"), HasSubstr("cost.json; with remeasure")));
  settings_.planning.remeasure = true;
  const MeasuredCosts again = measured_costs(settings_, request_, note);
  EXPECT_FALSE(again.reused);
  EXPECT_GT(again.costs.measured->at, first.costs.measured->at + std::chrono::days(8));
  EXPECT_THAT(told, Not(HasSubstr("ago")));
  // Of a network that it is not of, it stays.
  settings_.model.width = 16;
  EXPECT_THAT(refusal(settings_, request_), HasSubstr("another model"));
}

TEST_F(Planning, CostsInTheCacheThatWereMeasuredOnABusyMachineAreMeasuredAgain) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread runs here.
  ASSERT_EQ(::setenv("XDG_CACHE_HOME", folder_.c_str(), 1), 0);
  settings_.planning.cost.clear();
  MeasuredCosts first = measured_costs(settings_, request_, {});
  EXPECT_EQ(first.file.parent_path(), folder_ / "penstock");
  first.costs.measured->spread = 2 * noisy_spread;
  save_layer_costs(first.costs, first.file);
  std::string told;
  EXPECT_FALSE(measured_costs(settings_, request_, [&](const std::string& line) { told += line; }).reused);
  EXPECT_THAT(told, HasSubstr("on a busy machine"));
  ASSERT_EQ(::unsetenv("XDG_CACHE_HOME"), 0);  // NOLINT(concurrency-mt-unsafe): as above
}

TEST_F(Planning, EachNumberOfRanksHasAPlanOfItsOwn) {
  const std::vector<PlanOnRanks> plans = plans_by_ranks(settings_, request_, {1, 2, 9}, {});
  ASSERT_EQ(plans.size(), 2) << "there are 5 layers";
  EXPECT_LE(plans[0].plan.prediction.step, plans[1].plan.prediction.step);
  EXPECT_EQ(plans[0].plan.ranks + plans[1].plan.ranks, 3);
  for (const PlanOnRanks& on : plans) {
    EXPECT_EQ(on.measured.file.filename(), fmt::format("cost-ranks-{}.json", on.plan.ranks));
    EXPECT_EQ(on.measured.costs.machine.at("ranks"), std::to_string(on.plan.ranks));
    EXPECT_EQ(on.plan.threads_per_rank, std::stoi(on.measured.costs.machine.at("threads_per_rank")));
  }
  EXPECT_FALSE(std::filesystem::exists(settings_.planning.cost));
  const auto alone = plan_on_one_rank(settings_, request_, {});
  ASSERT_TRUE(alone);
  EXPECT_EQ(alone->plan.ranks, 1);
  EXPECT_EQ(alone->plan.threads_per_rank, static_cast<int>(std::thread::hardware_concurrency()));
  request_.memory = Bytes{20'000};
  EXPECT_FALSE(plan_on_one_rank(settings_, request_, {})) << "it does not fit";
}

TEST_F(Planning, WhatABusyMachineHasMeasuredDoesNotChooseTheRanks) {
  static_cast<void>(plans_by_ranks(settings_, request_, {1, 2}, {}));
  // One rank is by far the faster.
  const auto known_to = [&](double spread_of_one, double spread_of_two) {
    for (const int ranks : {1, 2}) {
      const auto file = folder_ / fmt::format("cost-ranks-{}.json", ranks);
      LayerCosts costs = load_layer_costs(file);
      ASSERT_TRUE(costs.measured);
      costs.measured->spread = ranks == 1 ? spread_of_one : spread_of_two;
      for (LayerCost& layer : costs.layers)
        for (LayerAtSize& at : layer.sizes)
          for (MeasuredTime* time : {&at.forward, &at.input_backward, &at.weight_backward})
            time->median = {ranks == 1 ? 1.0 : 1000.0};
      save_layer_costs(costs, file);
    }
  };
  std::string told;
  const auto first_ranks = [&] {
    told.clear();
    const Note note = [&](const std::string& line) { told += line + "\n"; };
    return plans_by_ranks(settings_, request_, {1, 2}, note).front().plan.ranks;
  };
  known_to(0.1, 0.1);
  EXPECT_EQ(first_ranks(), 1);
  EXPECT_THAT(told, Not(HasSubstr("too busy")));
  for (const auto& [one, two] : {std::pair(0.2, 0.01), std::pair(0.01, 254.73)}) {
    known_to(one, two);
    EXPECT_EQ(first_ranks(), 2);
    EXPECT_THAT(told, HasSubstr("the machine is too busy to compare numbers of ranks: the plan is for all 2 ranks;"));
  }
}

TEST_F(Planning, ARunThatLeavesItsRanksToAPlanTrainsOnThem) {
  settings_.layout.ranks = automatic;
  settings_.layout.schedule = automatic;
  settings_.layout.cut = automatic;
  settings_.layout.microbatches = automatic;
  std::string told;
  TrainObserver observer;
  observer.on_note = [&](const std::string& line) { told += line + "\n"; };
  EXPECT_EQ(train(settings_, observer).step, 3);
  const TrainSettings resolved = settings_of_run(settings_.output.folder);
  const Plan plan = load_plan(std::filesystem::path(settings_.output.folder) / "plan.toml");
  EXPECT_EQ(resolved.layout.ranks, plan.ranks);
  EXPECT_EQ(resolved.layout.threads_per_rank, plan.threads_per_rank);
  EXPECT_GT(plan.threads_per_rank, 0);
  EXPECT_THAT(told, HasSubstr(fmt::format("planned: {} rank", plan.ranks)));
  if (std::thread::hardware_concurrency() > 1 && told.find("too busy to compare") == std::string::npos) {
    EXPECT_THAT(told, HasSubstr("a step would take"));
  }
}

TEST_F(Planning, CostsOfAnotherModelOrMachineAreRefusedByName) {
  static_cast<void>(measured_costs(settings_, request_, {}));
  TrainSettings wider = settings_;
  wider.model.width = 16;
  EXPECT_THAT(refusal(wider, request_), AllOf(HasSubstr("cost.json"), HasSubstr("another model, width \"8\""),
                                              HasSubstr("\"16\""), Not(HasSubstr("\n"))));
  PlanRequest three = request_;
  three.ranks = 3;
  EXPECT_THAT(refusal(settings_, three), AllOf(HasSubstr("another machine, ranks \"2\""), Not(HasSubstr("\n"))));
}

TEST_F(Planning, RefusesWhatCannotBePlannedBeforeItMeasures) {
  const auto with = [&](auto change) {
    PlanRequest request = request_;
    change(request);
    return refusal(settings_, request);
  };
  EXPECT_THAT(with([](PlanRequest& request) { request.ranks = 6; }), HasSubstr("`ranks` is 6; expected 1 to 5"));
  EXPECT_THAT(with([](PlanRequest& request) { request.ranks = 0; }), HasSubstr("`ranks` is 0"));
  EXPECT_THAT(with([](PlanRequest& request) { request.batch = 0; }), HasSubstr("`batch` is 0"));
  EXPECT_THAT(with([](PlanRequest& request) { request.microbatches = {9}; }), HasSubstr("`microbatches` is 9"));
  EXPECT_FALSE(std::filesystem::exists(settings_.planning.cost));
}

TEST_F(Planning, ARunWithAutoFollowsThePlanThatItMakes) {
  settings_.layout.schedule = automatic;
  settings_.layout.cut = automatic;
  settings_.layout.microbatches = automatic;
  settings_.layout.ranks = 2;
  std::string told;
  TrainObserver observer;
  observer.on_note = [&](const std::string& line) { told += line + "\n"; };
  const TrainResult result = train(settings_, observer);
  EXPECT_EQ(result.step, 3);
  EXPECT_THAT(told, AllOf(HasSubstr("measured in "), HasSubstr("planned: "), Not(HasSubstr("does not follow"))));
  EXPECT_THAT(result.planned, HasSubstr("the plan and what was measured"));
  const TrainSettings resolved = settings_of_run(settings_.output.folder);
  const Plan plan = load_plan(std::filesystem::path(settings_.output.folder) / "plan.toml");
  EXPECT_EQ(resolved.layout.microbatches, plan.microbatches);
  EXPECT_EQ(resolved.layout.stages, plan.stages());
  EXPECT_EQ(plan.prediction.stage_passes.size(), plan.cut.size());
  EXPECT_EQ(std::filesystem::path(plan.costs_file).filename(), "cost.json");
}

TEST_F(Planning, WhatIsNotAutomaticStays) {
  settings_.layout.schedule = automatic;
  settings_.layout.cut = "1,3";
  settings_.layout.microbatches = 2;
  settings_.layout.ranks = 3;
  const TrainSettings chosen = choose_automatic(settings_, {});
  EXPECT_EQ(chosen.layout.microbatches, 2);
  EXPECT_EQ(chosen.layout.cut, "1,3");
  EXPECT_EQ(chosen.layout.stages, 3);
  EXPECT_FALSE(chosen.layout.schedule.is_automatic());
}

TEST_F(Planning, AutoIsRefusedInOneLineWhereItCannotBe) {
  settings_.layout.schedule = automatic;
  const auto refused = [](const TrainSettings& settings) {
    try {
      check_settings(settings);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refused(settings_), HasSubstr("auto without `ranks`"));
  settings_.layout.stages = 2;
  EXPECT_EQ(refused(settings_), "");
  settings_.layout.stages = 1;
  settings_.layout.ranks = 2;
  EXPECT_EQ(refused(settings_), "");
  settings_.processes.count = 2;
  EXPECT_THAT(refused(settings_), AllOf(HasSubstr("with `plan`"), Not(HasSubstr("\n"))));
  settings_.processes.count = 1;
  settings_.layout.recompute = Recompute::Selected;
  EXPECT_THAT(refused(settings_), HasSubstr("`recompute` = selected with auto"));
}

TEST_F(Planning, APlanThatIsTriedHasAStepAndTheMemoryOfEveryRank) {
  const MeasuredCosts measured = measured_costs(settings_, request_, {});
  request_.schedules = {"chimera"};
  const Plan plan = make_plans(measured.costs, request_).plans.front();
  const MeasuredPlan tried = try_plan(settings_, plan, 2);
  EXPECT_GT(tried.step.count, 0);
  ASSERT_EQ(tried.memory.size(), 2);
  EXPECT_GT(tried.memory[0].count, 0);
  EXPECT_GT(tried.memory[1].count, 0);
}

// What a rank holds is counted, here and in a run, so that a prediction can be held against it without a clock.
struct MemoryCase {
  std::string name;
  Network network;
  std::function<Microbatch(std::int64_t)> microbatch;
  Precision type = Precision::Float32;  // of layers and weights
  bool has_all_schedules = true;        // of all schedules and microbatches, or of a few
};

std::vector<MemoryCase> memory_cases() {
  const auto images = [](std::int64_t samples) {
    return Microbatch{{at::rand({samples, 1, 16, 16})}, {at::randint(10, {samples}, at::kLong)}};
  };
  const auto tokens = [](std::int64_t samples) {
    const at::Tensor text = at::randint(64, {samples, 32}, at::kLong);
    return Microbatch{{text}, {text}};
  };
  const DecoderSettings llama{.vocabulary = 64,
                              .layers = 6,
                              .width = 32,
                              .heads = 2,
                              .key_value_heads = 2,
                              .head_size = 16,
                              .inner_width = 64,
                              .most_positions = 32};
  DecoderSettings with_adapters = llama;
  with_adapters.lora = LoraSettings{.rank = 4};
  const std::vector<bool> first_five(5, true);
  const Network gpt = make_gpt({.vocabulary = 64, .layers = 6, .width = 32, .heads = 2, .context = 32});
  return {{"gpt with frozen layers", with_frozen_layers(gpt, first_five), tokens, Precision::Float32, false},
          {"llama with adapters", make_decoder(with_adapters), tokens, Precision::Float32, false},
          {"llama", make_decoder(llama), tokens, Precision::Float32, false},
          {"gpt in bf16", gpt, tokens, Precision::BFloat16, false},
          {"gpt", make_gpt({.vocabulary = 64, .layers = 6, .width = 32, .heads = 2, .context = 32}), tokens},
          {"mlp", make_mlp({.inputs = 256, .layers = 6, .width = 64}), images},
          {"wide mlp", make_mlp({.inputs = 256, .layers = 4, .width = 256}), images},
          {"convnet", make_convnet({.rows = 16, .columns = 16, .layers = 6, .width = 8, .groups = 1}), images}};
}

struct MemoryRun {
  VerifiedSchedule schedule;
  Cut cut;
  bool recompute = false;
};

std::vector<Bytes> predicted_memory(const LayerCosts& costs, const MemoryRun& of, double samples) {
  CutRun run;
  run.split_backward = has_split_backward(of.schedule.get());
  run.recomputed.assign(of.cut.size(), of.recompute);
  for (const auto& holders : of.schedule->placement.holders) run.ranks.push_back(holders.front().value);
  const Timeline timeline = simulate(of.schedule, cost_of_cut(costs, of.cut, samples, run));
  std::vector<Bytes> peaks;
  peaks.reserve(static_cast<std::size_t>(of.schedule->ranks()));
  for (std::int32_t rank = 0; rank < of.schedule->ranks(); ++rank) peaks.push_back(peak_bytes(timeline, RankId{rank}));
  return peaks;
}

std::vector<Bytes> measured_memory(const MemoryCase& of, const MemoryRun& run, std::int64_t batch) {
  PipelineSettings settings;
  settings.cut = run.cut;
  settings.threads_per_rank = 1;
  settings.precision = settings.weights = of.type;
  if (run.recompute) settings.recompute.assign(of.network.layers.size(), true);
  Pipeline pipeline(of.network, run.schedule, settings);
  const Microbatch minibatch = of.microbatch(batch);
  const auto parts = split_minibatch({{{minibatch.inputs[0]}}, {{minibatch.targets[0]}}}, run.schedule->microbatches);
  for (int step = 0; step < 3; ++step) {
    pipeline.begin_accounting();
    pipeline.step(parts, {step, 1e-3});
  }
  return pipeline.peak_memory();
}

// How far off, as a share of what was measured, the rank is of which that is furthest.
void expect_memory_within(double most, const MemoryCase& of, const LayerCosts& costs, const MemoryRun& run) {
  constexpr std::int64_t batch = 32;
  const std::vector<Bytes> measured = measured_memory(of, run, batch);
  const std::vector<Bytes> predicted =
      predicted_memory(costs, run, static_cast<double>(batch) / run.schedule->microbatches);
  for (std::size_t rank = 0; rank < measured.size(); ++rank)
    EXPECT_NEAR(static_cast<double>(predicted[rank].count) / static_cast<double>(measured[rank].count), 1, most)
        << "rank " << rank << ": " << to_string(predicted[rank]) << " predicted, " << to_string(measured[rank]);
}

TEST(PlannedMemory, IsThatOfTheRun) {
  for (const MemoryCase& of : memory_cases()) {
    ProfileSettings settings;
    settings.ranks = 1;
    settings.sizes = {2, 4, 8, 16};
    settings.microbatch = of.microbatch;
    settings.optimizer = OptimizerSettings{};
    settings.precision = settings.weights = of.type;
    settings.budget = {0};
    const LayerCosts costs = profile_layers(of.network, settings);
    const std::vector<const char*> names = of.has_all_schedules
                                               ? std::vector{"gpipe", "1f1b", "zb-h1", "interleaved-1f1b", "zb-v"}
                                               : std::vector{"1f1b", "zb-v"};
    for (const char* name : names)
      for (const int microbatches : instrumented || !of.has_all_schedules ? std::vector{4} : std::vector{2, 4, 8, 16})
        for (const bool recompute : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << of.name << ", " << name << ", M = " << microbatches << (recompute ? ", recomputed" : ""));
          const VerifiedSchedule schedule = verify(make_schedule(name, 2, microbatches));
          const Cut cut = uniform_cut(std::ssize(of.network.layers), schedule->stages);
          expect_memory_within(0.03, of, costs, {schedule, cut, recompute});
        }
  }
}

}  // namespace
}  // namespace penstock
