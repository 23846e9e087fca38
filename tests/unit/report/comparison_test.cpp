#include "penstock/report/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <regex>
#include <vector>

#include "unit/report/timelines.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A step of 8 ms as the simulator writes it.
Timeline predicted_step() {
  using enum ActionKind;
  return {{{drawn_event(Forward, 0, 0, 0, 2), drawn_event(Backward, 0, 0, 6, 8)},
           {drawn_event(Forward, 1, 0, 2, 4), drawn_event(Backward, 1, 0, 4, 6)}}};
}

/// The same as it is measured: on a clock that runs, with receives that wait, a little slower, 10 ms in all.
Timeline measured_step() {
  using enum ActionKind;
  return {{{drawn_event(Forward, 0, 0, 1000, 1002), drawn_event(SendForward, 0, 0, 1002, 1002.1),
            drawn_event(ReceiveBackward, 0, 0, 1002.1, 1007), drawn_event(Backward, 0, 0, 1007, 1010)},
           {drawn_event(ReceiveForward, 1, 0, 995, 1002.5), drawn_event(Forward, 1, 0, 1002.5, 1004.5),
            drawn_event(Backward, 1, 0, 1004.5, 1006.5), drawn_event(SendBackward, 1, 0, 1006.5, 1020)}}};
}

struct Box {
  double x = 0;
  double y = 0;
  double width = 0;
};

/// The boxes of an action in the order of the picture: the predicted one, then the measured one.
std::vector<Box> boxes_of(const std::string& svg, const std::string& action) {
  const std::regex box("<title>" + action + R"re(:[^<]*</title><rect x="([^"]*)" y="([^"]*)" width="([^"]*)")re");
  std::vector<Box> boxes;
  for (std::sregex_iterator found(svg.begin(), svg.end(), box), end; found != end; ++found)
    boxes.push_back({std::stod((*found)[1]), std::stod((*found)[2]), std::stod((*found)[3])});
  return boxes;
}

TEST(ComparisonSvg, EachRankIsMeasuredBelowItsPredictionOnOneScaleFromTheFirstStart) {
  const std::string svg = comparison_svg(predicted_step(), measured_step(), {.title = "a < b"});
  EXPECT_EQ(count_of(svg, "<g><title>"), 8) << "sends and receives are no boxes";
  EXPECT_EQ(count_of(svg, "</svg>"), 1);
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  const auto first = boxes_of(svg, "0F0");
  const auto last = boxes_of(svg, "0B0");
  const auto second_rank = boxes_of(svg, "1F0");
  ASSERT_EQ(first.size(), 2);
  EXPECT_DOUBLE_EQ(first[0].x, first[1].x) << "both begin at 0, whatever the clock said and whoever waited before";
  EXPECT_DOUBLE_EQ(first[0].width, first[1].width);
  EXPECT_NEAR(last[1].width + 1.2, 1.5 * (last[0].width + 1.2), 0.05);
  EXPECT_LT(first[0].y, first[1].y);
  EXPECT_LT(first[1].y, second_rank[0].y);
  EXPECT_THAT(svg, HasSubstr("0B0: backward of stage 0, microbatch 0, 7 to 10 ms"));
}

TEST(ComparisonSvg, NamesRowsAndSaysTheFigures) {
  const std::string svg = comparison_svg(predicted_step(), measured_step());
  for (const char* text : {">rank 0<", ">rank 1<", ">predicted<", ">measured<", ">8.000 ms<", ">10.00 ms<", ">+25.0 %<",
                           ">50.0 %<", ">45.0 %<", ">55.0 %<", ">−5.0 points<", ">+5.0 points<", ">forward<"})
    EXPECT_THAT(svg, HasSubstr(text));
}

TEST(ComparisonSvg, PeakMemoryStandsWhereItWasCounted) {
  Timeline predicted = predicted_step();
  Timeline measured = measured_step();
  EXPECT_THAT(comparison_svg(predicted, measured), Not(HasSubstr("activations")));
  predicted.memory = {{{{0}, {0}}}, {{{0}, {0}}}};
  EXPECT_THAT(comparison_svg(predicted, measured), Not(HasSubstr("activations"))) << "costs without sizes count 0";
  predicted.memory[1].push_back({{2}, {3 << 20}});
  measured.memory = {{}, {{{1004.5}, {5 << 20}}}};
  EXPECT_THAT(comparison_svg(predicted, measured), AllOf(HasSubstr("activations"), Not(HasSubstr("peak memory")),
                                                         HasSubstr(">3 MiB<"), HasSubstr(">5 MiB<")));
  EXPECT_THAT(comparison_text(predicted, measured), AllOf(HasSubstr("\nrank 0               0 B              \n"),
                                                          HasSubstr("\nrank 1             3 MiB         5 MiB\n")));
}

double width_of(const std::string& svg) {
  std::smatch match;
  return std::regex_search(svg, match, std::regex(R"(^<svg [^>]*width="(\d+)\")")) ? std::stod(match[1]) : -1;
}

/// One rank, `count` microbatches, each F and B of `duration`, and the I of no length that a first stage has.
Timeline long_step(int count, double duration) {
  Timeline timeline{{{}}};
  for (int index = 0; index < count; ++index) {
    timeline.ranks[0].push_back(
        drawn_event(ActionKind::Forward, 0, index, 2 * index * duration, (2 * index + 1) * duration));
    timeline.ranks[0].push_back(drawn_event(ActionKind::InputBackward, 0, index, (2 * index + 1) * duration,
                                            (2 * index + 1) * duration + 1e-6));
    timeline.ranks[0].push_back(drawn_event(ActionKind::WeightBackward, 0, index, (2 * index + 1) * duration + 1e-6,
                                            (2 * index + 2) * duration));
  }
  return timeline;
}

TEST(ComparisonSvg, IsAsWideAsAPageForShortAndLongAndFineSteps) {
  for (const Timeline& step : {long_step(8, 2), long_step(8, 500), long_step(5000, 2), long_step(1, 1e-3)}) {
    const double width = width_of(comparison_svg(step, step));
    EXPECT_GT(width, 900);
    EXPECT_LT(width, 1900);
  }
}

TEST(ComparisonSvg, NumbersStandInAllBoxesOfTheirWidthOrInNone) {
  const auto numbers = [](int count) {
    const Timeline step = long_step(count, 2);
    return count_of(comparison_svg(step, step), "class=\"number");
  };
  EXPECT_EQ(numbers(8), 32);
  EXPECT_EQ(numbers(36), 144);
  EXPECT_EQ(numbers(60), 0) << "the boxes have room for 0 to 9 and not for 10 to 59";
}

TEST(ComparisonSvg, NothingAndUnequalRanksAreStillPictures) {
  EXPECT_THAT(comparison_svg({}, {}), AllOf(HasSubstr("</svg>"), HasSubstr(">–<"), Not(HasSubstr("nan"))));
  Timeline one = predicted_step();
  one.ranks.pop_back();
  EXPECT_THAT(comparison_svg(one, measured_step()), HasSubstr(">rank 1<"));
  EXPECT_THAT(comparison_svg(measured_step(), one), HasSubstr(">rank 1<"));
}

TEST(ComparisonText, IsATableOfTheFigures) {
  EXPECT_EQ(comparison_text(predicted_step(), measured_step(), "units"),
            "                    step   utilisation        bubble\n"
            "predicted    8.000 units        50.0 %        50.0 %\n"
            "measured     10.00 units        45.0 %        55.0 %\n"
            "difference       +25.0 %   −5.0 points   +5.0 points\n");
}

TEST(ComparisonHtml, HoldsBothStepsFromZeroRankByRankWithTheFigures) {
  const std::string page = comparison_html(predicted_step(), measured_step(), {.title = "both"});
  const std::string begin = R"(<script type="application/json" id="data">)";
  const std::size_t from = page.find(begin) + begin.size();
  const auto data = nlohmann::json::parse(page.substr(from, page.find("</script>", from) - from));
  EXPECT_EQ(data["rank_by_rank"], true);
  EXPECT_EQ(data["only_activations"], true) << "the page would say peak memory";
  EXPECT_EQ(data["first"], 0);
  EXPECT_EQ(data["last"], 10);
  EXPECT_EQ(data["timelines"][1]["name"], "measured");
  EXPECT_EQ(data["timelines"][1]["ranks"][0]["events"][0], 0);
  EXPECT_EQ(data["figures"][3], (nlohmann::json{"difference", "+25.0 %", "−5.0 points", "+5.0 points"}));
  EXPECT_THAT(page, HasSubstr("<title>both</title>"));
}

}  // namespace
}  // namespace penstock
