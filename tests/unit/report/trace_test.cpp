#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "penstock/report/report.h"

#include "unit/report/timelines.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

std::vector<Json> events_of(const Json& trace, const std::string& phase) {
  std::vector<Json> found;
  for (const Json& event : trace["traceEvents"])
    if (event["ph"] == phase) found.push_back(event);
  return found;
}

TEST(Trace, EverySliceHasItsTrackNameCategoryAndMicroseconds) {
  const Json trace = Json::parse(to_chrome_trace(drawn_timeline()));
  const auto slices = events_of(trace, "X");
  ASSERT_EQ(slices.size(), 9);
  EXPECT_EQ(slices[3]["name"], "3B0");
  EXPECT_EQ(slices[3]["cat"], "backward");
  EXPECT_EQ(slices[3]["tid"], 0);
  EXPECT_EQ(slices[3]["ts"], 4000);
  EXPECT_EQ(slices[3]["dur"], 2000);
  EXPECT_EQ(slices[3]["args"], (Json{{"stage", 3}, {"microbatch", 0}}));
  EXPECT_EQ(slices[4]["cat"], "communication");
  EXPECT_EQ(slices[7]["cat"], "input_backward");
  EXPECT_EQ(slices[8]["cat"], "weight_backward");
  EXPECT_EQ(slices[8]["tid"], 1);
}

TEST(Trace, TracksAreNamedAndMemoryIsACounter) {
  const Json trace = Json::parse(to_chrome_trace(drawn_timeline(), "a \"measured\" step"));
  const auto names = events_of(trace, "M");
  EXPECT_EQ(names[0]["args"]["name"], "a \"measured\" step");
  EXPECT_EQ(names[1]["args"]["name"], "rank 0");
  EXPECT_EQ(names[3]["args"]["name"], "rank 1");
  const auto counters = events_of(trace, "C");
  ASSERT_EQ(counters.size(), 2);
  EXPECT_EQ(counters[1]["ts"], 1500);
  EXPECT_EQ(counters[1]["args"]["bytes"], 128);
}

TEST(Trace, AnEmptyTimelineIsStillATrace) { EXPECT_EQ(Json::parse(to_chrome_trace({}))["traceEvents"].size(), 1); }

}  // namespace
}  // namespace penstock
