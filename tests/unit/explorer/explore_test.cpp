#include "explore.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>

#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock::explorer {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;
using testing::StartsWith;

Json share() {
  return {{"forward_ms", 1}, {"input_backward_ms", 1}, {"weight_backward_ms", 1}, {"activation_bytes", 1 << 20}};
}

Json pipeline(const std::string& schedule, int ranks, int microbatches) {
  return {
      {"ask", "play"}, {"schedule", schedule}, {"ranks", ranks}, {"microbatches", microbatches}, {"share", share()}};
}

Json ask(const Json& request) { return Json::parse(explore(request.dump())); }

TEST(Explore, PlaysWhatTheSimulatorPlays) {
  const Json answer = ask(pipeline("1f1b", 3, 8));
  EXPECT_EQ(answer["answer"]["makespan_ms"], 30);
  EXPECT_EQ(answer["figures"]["makespan"], "30 ms");
  EXPECT_EQ(answer["figures"]["bubble_makespan"], "20.00 %");
  EXPECT_EQ(answer["figures"]["peak_activations"], 3);
  EXPECT_EQ(answer["figures"]["peak_memory"], "3 MiB");
  EXPECT_EQ(answer["formula"]["share_text"], "20.00 %");
  EXPECT_EQ(answer["formula"]["idle_text"], "6 ms");
  // Eight forwards and eight backwards on each rank, six numbers each.
  EXPECT_EQ(answer["timeline"]["ranks"].at(0).size(), 16U * 6U);
}

TEST(Explore, TheStagesOfARankDivideItsShare) {
  const Json answer = ask(pipeline("zb-v", 3, 8));
  EXPECT_EQ(answer["answer"]["stages"], 6);
  EXPECT_EQ(answer["stage_times"].at(0), "0.5 ms");
  EXPECT_EQ(answer["figures"]["makespan"], "25 ms");
}

TEST(Explore, AMicrobatchTakesItsSamplesAndAFixedCost) {
  Json request = pipeline("1f1b", 3, 16);
  request["batch"] = 64;
  request["fixed_samples"] = 2;
  // Of four samples: (4 + 2) for each of three parts; 16 + 2 of these.
  EXPECT_EQ(ask(request)["figures"]["makespan"], "324 ms");
}

TEST(Explore, ACommandWithShortTimesHasOptionsAndOneWithSizesAFile) {
  Json request = pipeline("interleaved-1f1b", 2, 4);
  EXPECT_EQ(ask(request)["command"],
            "penstock simulate interleaved-1f1b --ranks 2 --microbatches 4 --stages-per-rank 2 --cost cost.json");
  request["share"].erase("activation_bytes");
  EXPECT_EQ(ask(request)["command"],
            "penstock simulate interleaved-1f1b --ranks 2 --microbatches 4 --stages-per-rank 2 --forward 0.5 "
            "--input-backward 0.5 --weight-backward 0.5");
}

TEST(Explore, ComparesAndSaysWhatCannotBePlayed) {
  Json request = pipeline("1f1b", 3, 8);
  request["ask"] = "compare";
  const Json answer = ask(request);
  EXPECT_EQ(answer["schedules"].size(), 13U);
  EXPECT_EQ(answer["schedules"].back()["answer"]["schedule"], "naive");
  EXPECT_EQ(answer["refused"].at(0)["schedule"], "chimera");
  EXPECT_THAT(answer["refused"].at(0)["reason"].get<std::string>(), HasSubstr("an even number of ranks"));
}

TEST(Explore, SweepsTheDivisorsOfTheBatch) {
  Json request = pipeline("1f1b", 3, 1);
  request["ask"] = "sweep";
  request["batch"] = 64;
  request["fixed_samples"] = 2;
  request["schedules"] = {"1f1b"};
  const Json answer = ask(request);
  EXPECT_EQ(answer["points"].size(), 7U);
  EXPECT_THAT(answer["sentence"].get<std::string>(), StartsWith("use M = 8 (1f1b, 300 ms)"));
  request.erase("batch");
  EXPECT_THAT(ask(request)["error"].get<std::string>(), HasSubstr("without a number of samples"));
}

TEST(Explore, ACapLeavesOutWhatNeedsMore) {
  Json request = pipeline("gpipe", 2, 1);
  request["ask"] = "sweep";
  request["batch"] = 4;
  request["schedules"] = {"gpipe"};
  request["memory_cap_bytes"] = 1 << 20;
  const Json answer = ask(request);
  for (const Json& point : answer["points"]) EXPECT_FALSE(point["fits"]);
  EXPECT_EQ(answer["sentence"], "no number of microbatches fits into the memory");
}

TEST(Explore, SynthesisIsCountedAndSoTheSameAgain) {
  Json request = pipeline("1f1b", 3, 6);
  request["ask"] = "synthesise";
  request["evaluations"] = 50;
  const std::string first = explore(request.dump());
  EXPECT_EQ(first, explore(request.dump()));
  const Json answer = Json::parse(first);
  EXPECT_THAT(answer["found"].get<std::string>(), HasSubstr("the best published schedule"));
  EXPECT_LE(answer["answer"]["bubble_span"], 6.0 / 24);
  // What was found can be played again.
  Json again = pipeline("", 0, 0);
  again["csv"] = answer["csv"];
  EXPECT_EQ(ask(again)["answer"]["makespan_ms"], answer["answer"]["makespan_ms"]);
}

TEST(Explore, AWrongScheduleComesWithItsCellsAndThePlace) {
  const Json answer = ask({{"ask", "verify"}, {"csv", "0F0,0B0\n1B0,1F0\n"}});
  EXPECT_FALSE(answer["correct"]);
  EXPECT_THAT(answer["message"].get<std::string>(), HasSubstr("rank 1, position 0"));
  EXPECT_EQ(answer["cells"].at(1).at(0), "1B0");
  EXPECT_TRUE(ask({{"ask", "verify"}, {"csv", "0F0,0B0\n"}})["correct"]);
}

TEST(Explore, ATraceIsReadBackAndPredictedFromItsOwnTimes) {
  const VerifiedSchedule schedule = verify(one_f_one_b_schedule(3, 5));
  StageCost stage;
  stage.forward = {1};
  stage.input_backward = stage.weight_backward = {2};
  const std::string trace = to_chrome_trace(simulate(schedule, uniform_cost(3, stage)));
  const Json answer = ask({{"ask", "measured"}, {"trace", trace}});
  EXPECT_EQ(answer["measured"]["figures"]["makespan"], answer["predicted"]["figures"]["makespan"]);
  EXPECT_EQ(answer["measured"]["figures"]["makespan"], "35 ms");
  EXPECT_THAT(answer["comparison"].get<std::string>(), HasSubstr("measured"));
}

TEST(Explore, APlanIsPlayedWithTheTimesOfItsStages) {
  const std::string plan =
      "batch = 8\nstages = 2\ncut = \"2\"\nschedule = \"1f1b\"\nmicrobatches = 4\nrecompute = \"none\"\n[prediction]\n"
      "schedule = \"1f1b\"\nranks = 2\nstages-per-rank = 1\nreplicas = 1\nlayers = 4\nstep-ms = 15.0\npipeline-ms = "
      "15.0\nexchange-ms = 0.0\nupdate-ms = 0.0\nutilisation = 0.8\nsamples-per-second = 500.0\nmemory-bytes = [1, 1]\n"
      "stage-ms = [3.0, 3.0]\n";
  const Json answer = ask({{"ask", "plan"}, {"plan", plan}});
  EXPECT_EQ(answer["microbatches"], 4);
  const Json played = ask({{"ask", "play"}, {"csv", answer["csv"]}, {"cost", answer["cost"]}});
  EXPECT_EQ(played["figures"]["makespan"], "15 ms");
  EXPECT_THAT(ask({{"ask", "plan"}, {"plan", "batch = 0"}})["error"].get<std::string>(), StartsWith("plan.toml: "));
}

TEST(Explore, LayersAreCutSoThatTheSlowestStageIsFastest) {
  const std::string layers =
      R"({"layers": [{"name": "a", "sizes": [{"samples": 1, "forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1},
                                             {"samples": 8, "forward_ms": 8, "input_backward_ms": 8, "weight_backward_ms": 8}]},
                     {"name": "b", "like": "a"}, {"name": "c", "like": "a"}, {"name": "d", "like": "a"}]})";
  Json request = {{"ask", "play"},     {"schedule", "gpipe"}, {"ranks", 2},
                  {"microbatches", 4}, {"batch", 8},          {"layers", layers}};
  // Two layers a stage, two samples a microbatch: 12 ms for each of 4 + 1.
  EXPECT_EQ(ask(request)["figures"]["makespan"], "60 ms");
  request.erase("batch");
  EXPECT_THAT(ask(request)["error"].get<std::string>(), HasSubstr("batch"));
}

TEST(Explore, WhatCannotBeAnsweredIsOneLine) {
  EXPECT_THAT(Json::parse(explore("no json"))["error"].get<std::string>(), HasSubstr("no JSON object"));
  EXPECT_THAT(Json::parse(explore(std::string(50, '[')))["error"].get<std::string>(), HasSubstr("more values within"));
  EXPECT_THAT(ask({{"ask", "riddle"}})["error"].get<std::string>(), HasSubstr("ask is 'riddle'"));
  EXPECT_THAT(ask(pipeline("1f2b", 2, 2))["error"].get<std::string>(), HasSubstr("there is no schedule '1f2b'"));
  EXPECT_THAT(ask(pipeline("1f1b", 65, 2))["error"].get<std::string>(), HasSubstr("a whole number, 1 to 64"));
  Json negative = pipeline("1f1b", 2, 2);
  negative["share"]["forward_ms"] = -1;
  EXPECT_THAT(ask(negative)["error"].get<std::string>(), HasSubstr("forward_ms"));
  EXPECT_THAT(ask({{"ask", "measured"}, {"trace", "{}"}})["error"].get<std::string>(), HasSubstr("no traceEvents"));
}

}  // namespace
}  // namespace penstock::explorer
