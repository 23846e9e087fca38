#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>
#include <sstream>

#include "penstock/report/report.h"

#include "unit/report/timelines.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Grid, BoxesStandAtTheirTimesAndAreAsWideAsTheyTake) {
  EXPECT_EQ(to_grid(drawn_timeline()),
            "rank 0  0F0 0F1     3F0 3B0----\n"
            "rank 1      1F0 2F0             2I0 2W0\n");
}

TEST(Grid, ColoursStandInForLettersAndShadesForStages) {
  const std::string grid = to_grid(drawn_timeline(), {.colour = true});
  EXPECT_THAT(grid, HasSubstr("rank 0  \x1b[38;5;16;48;5;153m0\x1b[0m \x1b[38;5;16;48;5;153m1\x1b[0m   "
                              "\x1b[38;5;16;48;5;74m0\x1b[0m \x1b[38;5;16;48;5;214m 0 \x1b[0m\n"));
  EXPECT_THAT(grid, HasSubstr("forward"));
  EXPECT_THAT(grid, HasSubstr("weight backward   numbers: microbatches   lighter: the earlier of a rank's stages\n"));
  EXPECT_THAT(to_grid(drawn_timeline()), Not(HasSubstr("\x1b")));
}

TEST(Grid, WhatDoesNotFitIsLeftOutAndSaid) {
  const std::string grid = to_grid(drawn_timeline(), {.width = 24});
  EXPECT_EQ(grid,
            "rank 0  0F0 0F1     3F0\n"
            "rank 1      1F0 2F0\n"
            "… 4 of 8 columns; a wider terminal, svg or html show all\n");
}

TEST(Grid, UnequalTimesAreRoundedToColumnsOfTheShortestAction) {
  using enum ActionKind;
  const Timeline timeline{{{drawn_event(Forward, 0, 0, 10, 12.1), drawn_event(Backward, 0, 0, 12.1, 13.1)}}};
  EXPECT_EQ(to_grid(timeline), "rank 0  0F0---- 0B0\n");
}

TEST(Grid, NothingToDrawAndNoTimeAtAll) {
  EXPECT_EQ(to_grid({}), "");
  EXPECT_EQ(to_grid(Timeline{{{}, {}}}), "rank 0\nrank 1\n");
  EXPECT_EQ(to_grid(Timeline{{{drawn_event(ActionKind::Forward, 0, 0, 1, 1)}}}), "rank 0\n");
}

TEST(Svg, ABoxForEachComputeActionWithItsTitleAndNumber) {
  const std::string svg = to_svg(drawn_timeline(), {.title = "A <step> & more", .time_unit = "units"});
  EXPECT_EQ(count_of(svg, "<g><title>"), 8);
  EXPECT_THAT(svg, HasSubstr("<title>3B0: backward of stage 3, microbatch 0, 4 to 6 units</title>"));
  EXPECT_THAT(svg, HasSubstr("A &lt;step&gt; &amp; more"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(svg, HasSubstr("lighter: the earlier of a rank's 2 stages"));
  EXPECT_EQ(count_of(svg, "</svg>"), 1);
}

TEST(Svg, ABoxTwiceAsLongIsTwiceAsWideButForTheHairline) {
  const std::string svg = to_svg(drawn_timeline());
  const auto width_of = [&](const std::string& action) {
    std::smatch match;
    const std::regex box("<title>" + action + R"(:[^<]*</title><rect x="[^"]*" y="[^"]*" width="([^"]*)\")");
    return std::regex_search(svg, match, box) ? std::stod(match[1]) : -1;
  };
  EXPECT_GT(width_of("0F0"), 20);
  EXPECT_NEAR(width_of("3B0") + 1.2, 2 * (width_of("0F0") + 1.2), 0.02);
}

TEST(Svg, AnOverlappedPairIsUnderlinedAsOne) {
  Timeline timeline{{{drawn_event(ActionKind::Forward, 0, 1, 0, 1), drawn_event(ActionKind::Backward, 0, 0, 1, 3)}}};
  EXPECT_EQ(count_of(to_svg(timeline), "class=\"pair\""), 0);
  EXPECT_THAT(to_svg(timeline), Not(HasSubstr("run together")));
  timeline.ranks[0][0].action.overlaps_next = true;
  EXPECT_EQ(count_of(to_svg(timeline), "class=\"pair\""), 1);
  EXPECT_THAT(to_svg(timeline), HasSubstr("underlined: run together"));
}

TEST(Svg, AnEmptyTimelineIsStillAPicture) {
  EXPECT_THAT(to_svg({}), HasSubstr("</svg>"));
  EXPECT_THAT(to_svg(Timeline{{{}, {}}}), HasSubstr("rank 1"));
}

TEST(Svg, NumbersStandInAllBoxesOfTheirWidthOrInNone) {
  const auto numbers = [](int count) {
    Timeline timeline{{{}}};
    for (int index = 0; index < count; ++index)
      timeline.ranks[0].push_back(drawn_event(ActionKind::Forward, 0, index, index, index + 1));
    const std::string svg = to_svg(timeline);
    int found = 0;
    for (auto at = svg.find("class=\"number"); at != std::string::npos; at = svg.find("class=\"number", at + 1))
      ++found;
    return found;
  };
  EXPECT_EQ(numbers(60), 60);
  EXPECT_EQ(numbers(150), 0) << "the boxes have room for 0 to 9 and not for 100 to 149";
}

TEST(Svg, AStepOfManyActionsStaysNarrowEnoughForABrowser) {
  Timeline timeline{{{}}};
  for (int index = 0; index < 5000; ++index)
    timeline.ranks[0].push_back(drawn_event(ActionKind::Forward, 0, index, index, index + 1));
  std::smatch match;
  const std::string svg = to_svg(timeline);
  ASSERT_TRUE(std::regex_search(svg, match, std::regex(R"(^<svg [^>]*width="(\d+)\")")));
  EXPECT_LT(std::stoi(match[1]), 2'200) << "about a screen";
}

}  // namespace
}  // namespace penstock
