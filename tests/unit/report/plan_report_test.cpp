#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "penstock/base/error.h"
#include "penstock/report/report.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

Plan plan_of(const std::string& schedule, int microbatches, double step, double utilisation) {
  Plan plan;
  plan.ranks = 2;
  plan.batch = 16;
  plan.microbatches = microbatches;
  plan.schedule = schedule;
  plan.layers = 8;
  plan.cut = {0, 3};
  plan.recomputed = {true, false};
  plan.prediction.step = {step};
  plan.prediction.utilisation = utilisation;
  plan.prediction.samples_per_second = 16'000 / step;
  plan.prediction.memory = {{1024}, {2048}};
  return plan;
}

PlanReport report() {
  PlanReport report;
  report.answer.plans = {plan_of("1f1b", 8, 100, 0.9), plan_of("gpipe", 8, 110, 0.8)};
  report.answer.configurations = 12;
  report.answer.notes = {"a note"};
  report.neighbours = {{"half as many microbatches", plan_of("1f1b", 4, 120, 0.75)},
                       {"twice as many microbatches", plan_of("1f1b", 16, 120, 0.95)}};
  report.other_circumstances = {{"twice the memory", plan_of("1f1b", 8, 100, 0.9)}};
  report.memory_caps = {Bytes{4096}, Bytes{4096}};
  return report;
}

TEST(PlanReport, SaysWhereTheEndsOfTiesAre) {
  PlanReport tied = report();
  EXPECT_THAT(to_text(tied), Not(HasSubstr("tied")));
  Plan& plan = tied.answer.plans.front();
  plan.ties = {{{0, "token.weight"}, {7, "output.weight"}, {2048}}, {{0, "bias"}, {2, "bias"}, {1024}}};
  EXPECT_THAT(to_text(tied),
              AllOf(HasSubstr("tied: token.weight of layer 0 and output.weight of layer 7, 2 KiB: rank 1 sends its "
                              "gradient to rank 0 and gets the sum\n"),
                    HasSubstr("tied: bias of layer 0 and bias of layer 2, 1 KiB: both on rank 0\n")));
  const auto json = nlohmann::json::parse(to_json(tied));
  EXPECT_EQ(json["plans"][0]["ties"][0]["copy"]["parameter"], "output.weight");
  EXPECT_EQ(json["plans"][0]["ties"][1]["bytes"], 1024);
  EXPECT_TRUE(json["plans"][1]["ties"].empty());
}

TEST(PlanReport, SaysWhyInWords) {
  EXPECT_THAT(to_text(report()),
              AllOf(HasSubstr(" 1  1f1b"), HasSubstr("1 stage"), HasSubstr("first layers of the stages: 0,3\n"),
                    HasSubstr("memory by rank, of 4 KiB each: 1 KiB, 2 KiB\n"),
                    HasSubstr("+20.0 %: a rank waits 20 ms longer, as the pipeline fills and drains in larger pieces"),
                    HasSubstr("+20.0 %: a rank computes 24 ms longer, as small microbatches are less efficient"),
                    HasSubstr("twice the memory: the same plan, +0.0 %"), HasSubstr("\na note\n")));
}

TEST(PlanReport, AFasterNeighbourIsSaidToBeFaster) {
  PlanReport faster = report();
  faster.neighbours = {{"half as many microbatches", plan_of("1f1b", 4, 61.4, 0.9)},
                       {"twice as many microbatches", plan_of("1f1b", 16, 100.01, 0.9)}};
  EXPECT_THAT(to_text(faster), AllOf(HasSubstr("-38.6 %: faster, as a rank computes 34.7 ms less\n"),
                                     HasSubstr("+0.0 %: no difference to speak of\n")));
}

TEST(PlanReport, ASweepShowsHowWellItIsKnown) {
  PlanReport known = report();
  known.sweep = {{"1f1b", 1, 4, {100}, true}, {"gpipe", 1, 4, {90}, true}, {"1f1b", 1, 8, {80}, true}};
  EXPECT_THAT(to_text(known), Not(HasSubstr("known to")));
  EXPECT_THAT(sweep_svg(known.sweep), Not(HasSubstr("bars: ")));
  known.spread = 0.05;
  EXPECT_THAT(to_text(known), HasSubstr("; times are known to 5.0 %\n"));
  EXPECT_EQ(nlohmann::json::parse(to_json(known))["spread"], 0.05);
  EXPECT_THAT(
      sweep_svg(known.sweep, {}, "", known.spread),
      AllOf(HasSubstr("bars: known to 5.0 %"), HasSubstr("M = 4: 85.5 to 94.5 ms"), HasSubstr("M = 8: 76 to 84 ms")));
}

TEST(PlanReport, SaysWhetherAPipelinePays) {
  PlanReport beside = report();
  EXPECT_THAT(to_text(beside), Not(HasSubstr("On other numbers of ranks")));
  for (Plan& plan : beside.answer.plans) plan.threads_per_rank = 1;
  const auto on = [](int ranks, int threads, double step) {
    Plan plan = plan_of("1f1b", 1, step, 1);
    plan.ranks = ranks;
    plan.threads_per_rank = threads;
    plan.cut = {0};
    plan.recomputed = {false};
    return PlanElsewhere{plan};
  };
  beside.on_other_ranks = {on(1, 2, 80), on(1, 2, 102), on(1, 2, 150), on(4, 1, 80)};
  EXPECT_THAT(
      to_text(beside),
      AllOf(HasSubstr("\nOn other numbers of ranks:\n  1 rank of 2 threads (1f1b, 1 microbatch): 80 ms a step; 1.25 "
                      "times as fast as the plan on 2 ranks of 1 thread: a pipeline does not pay here\n"),
            HasSubstr("102 ms a step; as fast as the plan on 2 ranks of 1 thread, within 3 %\n"),
            HasSubstr("150 ms a step; the plan on 2 ranks of 1 thread is 1.50 times as fast\n"),
            HasSubstr("  4 ranks of 1 thread (1f1b, 1 microbatch): 80 ms a step; 1.25 times as fast as the plan on 2 "
                      "ranks of 1 thread\n")));
  const auto json = nlohmann::json::parse(to_json(beside));
  EXPECT_EQ(json["on_other_ranks"].size(), 4);
  EXPECT_EQ(json["on_other_ranks"][3]["ranks"], 4);
  EXPECT_EQ(json["plans"][0]["threads_per_rank"], 1);
  EXPECT_FALSE(nlohmann::json::parse(to_json(report()))["plans"][0].contains("threads_per_rank"));
}

PlanElsewhere on_one_rank(double step, double spread) {
  Plan plan = plan_of("1f1b", 1, step, 1);
  plan.ranks = 1;
  plan.cut = {0};
  plan.recomputed = {false};
  return {plan, spread};
}

TEST(PlanReport, WhatABusyMachineHasMeasuredIsNotCompared) {
  const auto text = [](double spread, double elsewhere) {
    PlanReport beside = report();
    beside.spread = spread;
    beside.on_other_ranks = {on_one_rank(10, elsewhere)};
    return to_text(beside);
  };
  EXPECT_THAT(text(0.19, 0.19), HasSubstr("10.00 times as fast as the plan on 2 ranks: a pipeline does not pay here"));
  for (const auto& [spread, elsewhere] : {std::pair(0.2, 0.01), std::pair(0.01, 0.2)})
    EXPECT_THAT(text(spread, elsewhere),
                AllOf(HasSubstr("10 ms a step; the machine is too busy to compare it with the plan on 2 ranks"),
                      Not(HasSubstr("times as fast")), Not(HasSubstr("does not pay"))));
  EXPECT_THAT(text(0.01, 254.73), HasSubstr("the one are known to 25473.0 %, those of the other to 1.0 %\n"));
  PlanReport beside = report();
  beside.on_other_ranks = {on_one_rank(10, 0.5), on_one_rank(10, 0)};
  const auto json = nlohmann::json::parse(to_json(beside));
  EXPECT_EQ(json["on_other_ranks"][0]["spread"], 0.5);
  EXPECT_FALSE(json["on_other_ranks"][1].contains("spread"));
}

TEST(PlanReport, RanksAreThoseOfAllReplicas) {
  PlanReport beside = report();
  Plan& best = beside.answer.plans.front();
  best.ranks = 1;
  best.replicas = 2;
  best.threads_per_rank = 1;
  beside.on_other_ranks = {on_one_rank(200, 0), on_one_rank(50, 0)};
  EXPECT_THAT(to_text(beside),
              AllOf(HasSubstr("the plan on 2 ranks of 1 thread is 2.00 times as fast"),
                    HasSubstr("2.00 times as fast as the plan on 2 ranks of 1 thread: replicas do not pay here")));
}

TEST(PlanReport, IsJsonToo) {
  const auto json = nlohmann::json::parse(to_json(report()));
  EXPECT_EQ(json["plans"][0]["recompute"], "0-2");
  EXPECT_EQ(json["plans"][1]["step_ms"], 110);
  EXPECT_EQ(json["neighbours"].size(), 2);
  EXPECT_EQ(json["other_circumstances"][0]["what"], "twice the memory");
}

TEST(PlanReport, ASweepSaysItsAnswerInASentence) {
  const std::vector<SweepPoint> points{{"1f1b", 1, 2, {90}, true},  {"1f1b", 1, 4, {82}, true},
                                       {"1f1b", 1, 8, {80}, true},  {"zb-v", 2, 8, {95}, true},
                                       {"zb-v", 2, 16, {81}, true}, {"zb-v", 2, 32, {99}, true},
                                       {"zb-v", 2, 64, {81}, true}, {"gpipe", 1, 8, {70}, false}};
  EXPECT_EQ(sweep_sentence(points), "use M = 8 (1f1b, 80 ms); M of 4 to 16 are within 3 %")
      << "M of 64 lies behind a gap, and gpipe does not fit";
  EXPECT_EQ(sweep_sentence({{"1f1b", 1, 2, {90}, true}, {"1f1b", 1, 4, {80}, true}}),
            "use M = 4 (1f1b, 80 ms); the numbers next to it are not within 3 %");
  EXPECT_EQ(sweep_sentence({{"1f1b", 1, 2, {90}, false}}), "nothing fits into the memory");
  EXPECT_THAT(sweep_svg(points), AllOf(HasSubstr("use M = 8 (1f1b, 80 ms)"), HasSubstr("the best: 1f1b, M = 8")));
  PlanReport swept = report();
  swept.sweep = points;
  EXPECT_THAT(to_text(swept), HasSubstr("sweep over the microbatches: use M = 8 (1f1b, 80 ms)"));
}

TEST(PlanReport, ASweepHasThePlansOfTheTable) {
  std::vector<SweepPoint> points{{"1f1b", 1, 8, {120}, true}, {"gpipe", 1, 8, {100}, true}};
  include_plans(points, report().answer.plans);
  EXPECT_THAT(points,
              testing::ElementsAre(SweepPoint{"1f1b", 1, 8, {100}, true}, SweepPoint{"gpipe", 1, 8, {100}, true}));
}

TEST(PlanReport, ASweepDrawsALineASchedule) {
  const std::vector<SweepPoint> points{{"1f1b", 1, 2, {9}, true},    {"1f1b", 1, 4, {8}, true},
                                       {"1f1b", 1, 8, {10}, false},  {"zb-v", 2, 2, {7}, true},
                                       {"hanayo", 4, 2, {90}, true}, {"hanayo", 2, 2, {60}, true}};
  const std::string svg = sweep_svg(points, {{"1f1b", 1, 4, {8.5}}, {"unknown", 1, 4, {1}}}, "Steps & more");
  EXPECT_THAT(svg, AllOf(StartsWith("<svg"), HasSubstr("Steps &amp; more"), HasSubstr("1f1b, M = 4: measured 8.5 ms"),
                         HasSubstr("M = 8: 10 ms, does not fit"), HasSubstr("hanayo, 2 stages a rank"),
                         Not(HasSubstr("hanayo, 4 stages a rank")), Not(HasSubstr("nan"))));
  EXPECT_THAT(sweep_svg({{"1f1b", 1, 1, {0}, true}}), Not(HasSubstr("nan")));
  EXPECT_THROW(static_cast<void>(sweep_svg({})), Error);
}

}  // namespace
}  // namespace penstock
