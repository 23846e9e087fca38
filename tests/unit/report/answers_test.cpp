#include "penstock/report/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::json;

SimulationAnswer answer_of(const std::string& schedule, double bubble, int activations) {
  return {schedule, 2, 8, {{100}, bubble, bubble / 2, {{{75}, activations, {1 << 20}}, {{50}, 1, {0}}}}};
}

TEST(Answers, ASimulationHasEveryFigureUnderItsName) {
  SimulationAnswer answer = answer_of("1f1b", 0.375, 4);
  answer.memory_caps = {{1 << 19}, {1 << 19}};
  const Json json = Json::parse(to_json(answer));
  EXPECT_EQ(json, Json::parse(R"({"schedule": "1f1b", "microbatches": 8, "stages": 2, "makespan_ms": 100.0,
    "bubble_makespan": 0.375, "bubble_span": 0.1875, "ranks": [
      {"rank": 0, "busy_ms": 75.0, "peak_activations": 4, "peak_bytes": 1048576, "memory_cap_bytes": 524288},
      {"rank": 1, "busy_ms": 50.0, "peak_activations": 1, "peak_bytes": 0, "memory_cap_bytes": 524288}]})"));
  const std::string text = to_text(answer);
  EXPECT_THAT(text, HasSubstr("makespan 100 ms, bubble 37.50 % of the makespan, 18.75 % of the longest span"));
  EXPECT_THAT(text, HasSubstr("rank 0 needs 1 MiB, above its cap of 512 KiB\n"));
  EXPECT_THAT(text, Not(HasSubstr("rank 1 needs")));
}

TEST(Answers, WithoutSizesNobodyKnowsThePeaks) {
  SimulationAnswer answer = answer_of("1f1b", 0.375, 4);
  for (RankSummary& rank : answer.summary.ranks) rank.peak_bytes = {};
  const Json json = Json::parse(to_json(answer));
  EXPECT_TRUE(json["ranks"][0]["peak_bytes"].is_null());
  EXPECT_TRUE(json["ranks"][1]["peak_bytes"].is_null());
}

TEST(Answers, AComparisonIsSortedBestFirst) {
  ComparisonAnswer comparison{{answer_of("b", 0.25, 9), answer_of("a", 0.5, 1), answer_of("c", 0.25, 4)},
                              {{"d", "is not for two ranks"}}};
  sort_by_bubble(comparison);
  EXPECT_EQ(comparison.answers[0].schedule, "c");
  EXPECT_EQ(comparison.answers[1].schedule, "b");
  EXPECT_EQ(comparison.answers[2].schedule, "a");
  const Json json = Json::parse(to_json(comparison));
  EXPECT_EQ(json["schedules"][1]["bubble_makespan"], 0.25);
  EXPECT_EQ(json["refused"][0]["schedule"], "d");
  EXPECT_EQ(to_text(comparison),
            "schedule  stages  makespan (ms)  bubble/makespan  bubble/span  peak activations  peak memory\n"
            "c              2            100          25.00 %      12.50 %                 4        1 MiB\n"
            "b              2            100          25.00 %      12.50 %                 9        1 MiB\n"
            "a              2            100          50.00 %      25.00 %                 1        1 MiB\n"
            "d: is not for two ranks\n");
}

TEST(Answers, BytesThatAreNoTextStillMakeJson) {
  EXPECT_EQ(Json::parse(to_json(answer_of("\xff.csv", 0, 1)))["schedule"], "\xef\xbf\xbd.csv");
}

}  // namespace
}  // namespace penstock
