#include "penstock/cost/cost.h"

#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string refusal_of(const std::string& json) {
  try {
    static_cast<void>(parse_cost(json, "cost.json"));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << json;
  return "";
}

/// A cost with one stage whose text holds `fields` besides the three times.
std::string with_stage(const std::string& fields) {
  return R"({"stages": [{"forward_ms": 1, "input_backward_ms": 2, "weight_backward_ms": 3)" + fields + "}]}";
}

Cost uneven_cost() {
  Cost cost = uniform_cost(2, {{1.1}, {2.2}, {0.3}, {100}, {10}, {1000}, {900}, {2000}}, {{0.5}, 12.5});
  cost.stages[1].forward = {0.1};
  cost.links[{RankId{1}, RankId{0}}] = {{0.25}, 3};
  cost.links[{RankId{0}, RankId{1}}] = {};
  cost.memory_caps = {{1 << 30}, {1LL << 50}};
  cost.contention = 1.25;
  return cost;
}

TEST(Cost, TextAndValueGoBothWays) {
  const Cost cost = uneven_cost();
  EXPECT_EQ(parse_cost(to_json(cost)), cost);
  const Cost plain = uniform_cost(3, {{1}, {1}, {1}, {}, {}, {}, {}, {}});
  EXPECT_EQ(parse_cost(to_json(plain)), plain);
}

TEST(Cost, MoreMayBeHeldAfterIThanBefore) {
  const Cost cost = parse_cost(with_stage(R"(, "activation_bytes": 100, "weight_activation_share": 1.75)"));
  EXPECT_EQ(cost.stages.at(0).weight_activation_share, 1.75);
  EXPECT_EQ(parse_cost(to_json(cost)), cost);
  EXPECT_NO_THROW(validate(cost));
}

TEST(Cost, WorkspacesGoBothWays) {
  Cost cost = uniform_cost(1, {{1}, {1}, {1}, {}, {}, {}, {}, {}});
  EXPECT_THAT(to_json(cost), testing::Not(testing::HasSubstr("workspace")));
  cost.stages[0].forward_workspace = {7};
  cost.stages[0].backward_workspace = {9};
  cost.stages[0].input_workspace = {10};
  cost.stages[0].weight_workspace = {11};
  cost.stages[0].gradient_at_peak = {13};
  EXPECT_EQ(parse_cost(to_json(cost)), cost);
  cost.stages[0].backward_workspace = {-9};
  EXPECT_THROW(validate(cost), Error);
}

TEST(Cost, FilesGoBothWays) {
  const auto path = std::filesystem::path(testing::TempDir()) / "cost_test.json";
  save_cost(uneven_cost(), path);
  EXPECT_EQ(load_cost(path), uneven_cost());
}

TEST(Cost, WhatIsLeftOutIsNothingAndGradientsAreAsLargeAsParameters) {
  const Cost cost = parse_cost(with_stage(R"(, "parameter_bytes": 64)"));
  EXPECT_EQ(cost.stages.at(0), (StageCost{{1}, {2}, {3}, {}, {}, {64}, {64}, {}}));
  EXPECT_EQ(cost.default_link, LinkCost{});
  EXPECT_TRUE(std::isinf(cost.default_link.bytes_per_millisecond));
  EXPECT_TRUE(cost.memory_caps.empty());
}

TEST(Cost, LinksAreDirectedAndFallBackToTheDefault) {
  const Cost cost = uneven_cost();
  EXPECT_EQ(link_between(cost, RankId{1}, RankId{0}).latency.count, 0.25);
  EXPECT_EQ(link_between(cost, RankId{0}, RankId{1}).latency.count, 0);
  EXPECT_EQ(link_between(cost, RankId{0}, RankId{5}).latency.count, 0.5);
}

TEST(Cost, RefusalsNameTheJsonPathInOneLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "cost.json is not JSON from byte"},
      {"[1, 2]", "cost.json is [1,2]; expected an object"},
      {"{}", "cost.json: stages is missing"},
      {R"({"stages": []})", "cost.json: stages is []"},
      {R"({"stages": [3]})", "cost.json: stages[0] is 3; expected an object"},
      {R"({"stages": [{"forward_ms": 1, "input_backward_ms": 2}]})", "stages[0].weight_backward_ms is missing"},
      {R"({"stages": [{"forward_ms": -1, "input_backward_ms": 2, "weight_backward_ms": 3}]})",
       "stages[0].forward_ms is -1"},
      {R"({"stages": [{"forward_ms": "1", "input_backward_ms": 2, "weight_backward_ms": 3}]})", "forward_ms is \"1\""},
      {R"({"stages": [{"forward_ms": null, "input_backward_ms": 2, "weight_backward_ms": 3}]})", "forward_ms is null"},
      {with_stage(R"(, "forward_ms": 2)"), "the key forward_ms twice"},
      {with_stage(R"(, "activation_bytes": 1.5)"), "stages[0].activation_bytes is 1.5"},
      {with_stage(R"(, "activation_bytes": 1e300)"), "stages[0].activation_bytes is 1e+300"},
      {with_stage(R"(, "weight_activation_share": -0.5)"), "weight_activation_share is -0.5; expected a share from 0"},
      {with_stage(R"(, "weight_activation_share": 1001)"), "weight_activation_share is 1001"},
      {with_stage(R"(, "activations": 1)"), "stages[0].activations is not known; expected one of forward_ms"},
      {R"({"stages": [{"forward_ms": 1e999, "input_backward_ms": 2, "weight_backward_ms": 3}]})",
       "number that is too large"},
  };
  for (const auto& [json, expected] : cases)
    EXPECT_THAT(refusal_of(json), AllOf(HasSubstr(expected), Not(HasSubstr("\n")))) << json;
}

TEST(Cost, RefusesBadLinksAndCaps) {
  const std::string stages = R"({"stages": [{"forward_ms": 1, "input_backward_ms": 2, "weight_backward_ms": 3}], )";
  EXPECT_THAT(refusal_of(stages + R"("link": {"latency_ms": -0.5}})"), HasSubstr("link.latency_ms is -0.5"));
  EXPECT_THAT(refusal_of(stages + R"("link": {"bandwidth_bytes_per_ms": 0}})"),
              HasSubstr("link.bandwidth_bytes_per_ms is 0"));
  EXPECT_THAT(refusal_of(stages + R"("links": [{"from": 0}]})"), HasSubstr("links[0].to is missing"));
  EXPECT_THAT(refusal_of(stages + R"("links": [{"from": -1, "to": 0}]})"), HasSubstr("links[0].from is -1"));
  EXPECT_THAT(refusal_of(stages + R"("links": [{"from": 0, "to": 1}, {"from": 0, "to": 1}]})"),
              HasSubstr("links[1] is the second link from 0 to 1"));
  EXPECT_THAT(refusal_of(stages + R"("memory_cap_bytes": [1, -1]})"), HasSubstr("memory_cap_bytes[1] is -1"));
  for (const char* contention : {"0.99", "0", "1001", "true"})
    EXPECT_THAT(refusal_of(fmt::format("{}\"contention\": {}}}", stages, contention)),
                HasSubstr(fmt::format("contention is {}; expected a number from 1 to 1000", contention)));
  Cost cost = uneven_cost();
  cost.contention = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(validate(cost), Error);
}

TEST(Cost, TenMegabytesOfNoiseAreRefused) {
  const std::string noise(10 << 20, '{');
  EXPECT_THAT(refusal_of(noise), HasSubstr("at most 16 levels"));
  std::string nested = "{\"stages\": ";
  nested += std::string(1 << 20, '[');
  EXPECT_THAT(refusal_of(nested), HasSubstr("at most 16 levels"));
  EXPECT_THAT(refusal_of(std::string(10 << 20, 'x')), HasSubstr("not JSON"));
}

TEST(Cost, NumbersThatOverflowWhatIsComputedOfThemAreRefused) {
  const std::string rest = R"("input_backward_ms": 2, "weight_backward_ms": 3)";
  EXPECT_THAT(refusal_of(R"({"stages": [{"forward_ms": 1e308, )" + rest + "}]}"), HasSubstr("stages[0].forward_ms is"));
  EXPECT_THAT(refusal_of(R"({"stages": [{"forward_ms": 1, "activation_bytes": 1e15, )" + rest + "}]}"),
              HasSubstr("stages[0].activation_bytes is"));
  EXPECT_THAT(
      refusal_of(R"({"stages": [{"forward_ms": 1, )" + rest + R"(}], "link": {"bandwidth_bytes_per_ms": 1e-300}})"),
      HasSubstr("link.bandwidth_bytes_per_ms is"));
}

TEST(Cost, ValidationNamesTheValueOfACostThatWasMadeInCode) {
  EXPECT_THROW(static_cast<void>(uniform_cost(0, {})), Error);
  Cost cost = uneven_cost();
  cost.stages[1].weight_backward = {std::nan("")};
  try {
    validate(cost);
    FAIL() << "accepted a time that is no number";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("stages[1].weight_backward_ms is nan"));
  }
  cost = uneven_cost();
  for (const double share : {-0.1, 1001.0, std::nan("")}) {
    cost.stages[1].weight_activation_share = share;
    EXPECT_THROW(validate(cost), Error) << share;
  }
}

}  // namespace
}  // namespace penstock
