#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"
#include "penstock/cost/layers_at_size.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* three_layers = R"({
  "model": {"name": "gpt", "width": 128},
  "machine": {"processor": "a \"fast\" one"},
  "layers": [
    {"name": "embedding", "parameter_bytes": 100, "optimizer_bytes": 200, "update_ms": 0.5, "sizes": [
      {"samples": 1, "forward_ms": 1, "forward_spread_ms": 0.25, "input_backward_ms": 0, "weight_backward_ms": 1,
       "activation_bytes": 10, "boundary_bytes": 8},
      {"samples": 4, "forward_ms": 2.5, "input_backward_ms": 0, "weight_backward_ms": 4,
       "activation_bytes": 40, "boundary_bytes": 32}]},
    {"name": "block", "parameter_bytes": 1000, "gradient_bytes": 500, "weight_activation_share": 0.5, "sizes": [
      {"samples": 1, "forward_ms": 2, "input_backward_ms": 2, "weight_backward_ms": 1, "backward_ms": 2.5,
       "activation_bytes": 100, "boundary_bytes": 8, "forward_workspace_bytes": 3, "backward_workspace_bytes": 7},
      {"samples": 2, "forward_ms": 3, "input_backward_ms": 3, "weight_backward_ms": 2, "backward_ms": 4,
       "activation_bytes": 200, "boundary_bytes": 16, "forward_workspace_bytes": 6, "backward_workspace_bytes": 14},
      {"samples": 4, "forward_ms": 5, "input_backward_ms": 5, "weight_backward_ms": 4, "backward_ms": 8,
       "activation_bytes": 400, "boundary_bytes": 32, "forward_workspace_bytes": 12, "backward_workspace_bytes": 28}]},
    {"name": "block 2", "like": "block"}
  ],
  "input_bytes_per_sample": 4,
  "action_overhead_ms": 0.125,
  "step_overhead_ms": 0.25,
  "link": {"latency_ms": 0.5, "bandwidth_bytes_per_ms": 100},
  "links": [{"from": 1, "to": 0, "latency_ms": 2}],
  "ranks": [{"speed": 1, "memory_cap_bytes": 4096}, {"speed": 0.5}]
})";

std::string refusal(const std::string& json) {
  try {
    static_cast<void>(parse_layer_costs(json, "cost.json"));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "";
}

TEST(LayerCost, TheJsonFormGivesItBack) {
  const LayerCosts costs = parse_layer_costs(three_layers);
  ASSERT_EQ(costs.layers.size(), 3);
  EXPECT_EQ(costs.model.at("width"), "128");
  EXPECT_EQ(costs.layers[2].like, 1U);
  EXPECT_EQ(costs.layers[2].sizes, costs.layers[1].sizes);
  EXPECT_EQ(costs.layers[0].gradient.count, 100);
  EXPECT_EQ(costs.ranks[1].memory_cap, std::nullopt);
  const std::string json = to_json(costs);
  EXPECT_EQ(parse_layer_costs(json), costs);
  EXPECT_THAT(json, HasSubstr("\"like\": \"block\""));
  const auto path = std::filesystem::path(testing::TempDir()) / "layer_cost_test.json";
  save_layer_costs(costs, path);
  EXPECT_EQ(load_layer_costs(path), costs);
}

std::string with_ties(const std::string& ties) {
  std::string json = three_layers;
  json.insert(json.rfind('}'), ",\n  \"ties\": " + ties);
  return json;
}

TEST(LayerCost, TheJsonFormGivesTiesBack) {
  const std::string json = with_ties(R"([
    {"owner": {"layer": 0, "parameter": "token.weight"}, "copy": {"layer": 2, "parameter": "output.weight"}, "bytes": 90},
    {"owner": {"layer": 0, "parameter": "token.weight"}, "copy": {"layer": 1, "parameter": "weight"}, "bytes": 90}])");
  const LayerCosts costs = parse_layer_costs(json);
  ASSERT_EQ(costs.ties.size(), 2);
  EXPECT_EQ(costs.ties[0], (LayerTie{{0, "token.weight"}, {2, "output.weight"}, {90}}));
  EXPECT_EQ(parse_layer_costs(to_json(costs)), costs);
  EXPECT_NE(parse_layer_costs(three_layers), costs);
  EXPECT_TRUE(parse_layer_costs(three_layers).ties.empty());
  EXPECT_EQ(to_string(costs.ties[0]), "token.weight of layer 0 and output.weight of layer 2");
  validate(costs);
}

std::string with_measured(const std::string& measured) {
  std::string json = three_layers;
  json.insert(json.rfind('}'), ",\n  \"measured\": " + measured);
  return json;
}

TEST(LayerCost, TheJsonFormGivesBackHowItWasMeasured) {
  const LayerCosts costs =
      parse_layer_costs(with_measured(R"({"at": "2026-11-29T09:30:58.123Z", "rounds": 8, "spread": 0.0125})"));
  ASSERT_TRUE(costs.measured);
  EXPECT_EQ(to_string(costs.measured->at), "2026-11-29T09:30:58.123Z");
  EXPECT_EQ(costs.measured->rounds, 8);
  EXPECT_EQ(costs.measured->spread, 0.0125);
  EXPECT_EQ(parse_layer_costs(to_json(costs)), costs);
  EXPECT_EQ(parse_layer_costs(three_layers).measured, std::nullopt);
  for (const auto& [measured, words] :
       {std::pair{R"({"at": "yesterday", "rounds": 8, "spread": 0})", "measured.at is \"yesterday\""},
        std::pair{R"({"at": "2026-11-29T09:30:58Z", "rounds": 0, "spread": 0})", "measured.rounds is 0"},
        std::pair{R"({"at": "2026-11-29T09:30:58Z", "rounds": 8, "spread": -1})", "measured.spread is -1"},
        std::pair{R"({"at": "2026-11-29T09:30:58Z", "rounds": 8})", "measured.spread"}, std::pair{R"(3)", "measured"}})
    EXPECT_THAT(refusal(with_measured(measured)), HasSubstr(words)) << measured;
}

TEST(LayerCost, TiesThatCannotBeAreRefusedByTheirPlace) {
  for (const auto& [ties, words] :
       {std::pair{R"({})", "ties"},
        std::pair{R"([{"owner": {"layer": 0, "parameter": "a"}, "copy": {"layer": 1, "parameter": "a"}}])",
                  "ties[0].bytes"},
        std::pair{R"([{"owner": {"layer": 3, "parameter": "a"}, "copy": {"layer": 1, "parameter": "a"}, "bytes": 1}])",
                  "ties[0].owner.layer is 3"},
        std::pair{R"([{"owner": {"layer": 0, "parameter": ""}, "copy": {"layer": 1, "parameter": "a"}, "bytes": 1}])",
                  "ties[0].owner.parameter"},
        std::pair{R"([{"owner": {"layer": 0, "parameter": "a"}, "copy": {"layer": 1, "name": "a"}, "bytes": 1}])",
                  "ties[0].copy"},
        std::pair{R"([{"owner": {"layer": 0, "parameter": "a"}, "copy": {"layer": 1, "parameter": "a"}, "bytes": -1}])",
                  "ties[0].bytes is -1"}})
    EXPECT_THAT(refusal(with_ties(ties)), HasSubstr(words)) << ties;
  const LayerCosts good = parse_layer_costs(three_layers);
  for (const auto& [ties, words] :
       {std::pair{std::vector<LayerTie>{{{0, "a"}, {7, "a"}, {1}}}, "ties[0].copy.layer is 7"},
        std::pair{std::vector<LayerTie>{{{1, "a"}, {1, "b"}, {1}}}, "within layer 1"},
        std::pair{std::vector<LayerTie>{{{0, "a"}, {1, "b"}, {101}}}, "parameters have 100"},
        std::pair{std::vector<LayerTie>{{{0, "a"}, {1, "b"}, {-1}}}, "ties[0].bytes is -1"},
        std::pair{std::vector<LayerTie>{{{0, "a"}, {2, "a"}, {1}}, {{1, "a"}, {2, "a"}, {1}}},
                  "one owner of every copy"},
        std::pair{std::vector<LayerTie>{{{0, "a"}, {1, "a"}, {1}}, {{1, "a"}, {2, "a"}, {1}}},
                  "owners that are no copies"},
        std::pair{std::vector<LayerTie>{{{0, "a"}, {1, "a"}, {1}}, {{1, "a"}, {0, "a"}, {1}}},
                  "owners that are no copies"}}) {
    LayerCosts costs = good;
    costs.ties = ties;
    try {
      validate(costs);
      ADD_FAILURE() << words;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(words));
    }
  }
}

// Weights and optimizer state stay with the owner, the gradient with the last layer.
TEST(LayerCost, SharedTiesCountOnce) {
  LayerCosts costs = parse_layer_costs(three_layers);
  costs.ties = {{{0, "a"}, {2, "a"}, {50}}, {{0, "a"}, {1, "a"}, {50}}};
  costs.layers[2].optimizer = costs.layers[1].optimizer = {3000};
  const LayerCosts shared = with_shared_ties(costs);
  validate(shared);
  EXPECT_TRUE(shared.ties.empty());
  EXPECT_EQ(shared.layers[0].parameter.count, 100);
  EXPECT_EQ(shared.layers[0].optimizer.count, 200);
  EXPECT_EQ(shared.layers[0].gradient.count, 50);
  for (const std::size_t copy : {std::size_t{1}, std::size_t{2}}) {
    EXPECT_EQ(shared.layers[copy].parameter.count, 950);
    EXPECT_EQ(shared.layers[copy].optimizer.count, 2850);
  }
  EXPECT_EQ(shared.layers[1].gradient.count, 475) << "half a byte for each byte of a weight";
  EXPECT_EQ(shared.layers[2].gradient.count, 500);
}

TEST(LayerCost, TimesBetweenMeasuredSizesLieOnALine) {
  const LayerCosts costs = parse_layer_costs(three_layers);
  const LayersAtSize three(costs, 3);
  const StageCost both = three.stage(0, 2, {});
  EXPECT_DOUBLE_EQ(both.forward.count, 2 + 4 + 0.125);
  EXPECT_DOUBLE_EQ(both.input_backward.count, 4 + 0.125);
  EXPECT_DOUBLE_EQ(both.weight_backward.count, 3 + 3 + 0.125);
  EXPECT_EQ(both.activation.count, 30 + 300);
  EXPECT_EQ(both.boundary.count, 24);
  EXPECT_EQ(both.parameter.count, 1100);
  EXPECT_EQ(both.gradient.count, 600);
  EXPECT_EQ(both.forward_workspace.count, 9);
  EXPECT_DOUBLE_EQ(both.weight_activation_share, (30 + 150) / 330.0);
  EXPECT_DOUBLE_EQ(three.time(0, 2, {}).count, (both.forward + both.input_backward + both.weight_backward).count);
  EXPECT_DOUBLE_EQ(three.update(0, 3).count, 0.5);
  // Two microbatches of 2 and 3 samples take as long as two of 2.5; memory is that of 3.
  const LayersAtSize mean(costs, 2.5);
  const LayersAtSize two(costs, 2);
  EXPECT_DOUBLE_EQ(2 * mean.time(0, 3, {}).count, two.time(0, 3, {}).count + three.time(0, 3, {}).count);
  EXPECT_EQ(mean.stage(0, 3, {}).activation, three.stage(0, 3, {}).activation);
}

TEST(LayerCost, ABackwardInOnePieceHasItsOwnTime) {
  const LayersAtSize one(parse_layer_costs(three_layers), 1);
  const StageCost whole = one.stage(1, 2, {.split_backward = false});
  EXPECT_DOUBLE_EQ((whole.input_backward + whole.weight_backward).count, 2.5 + 0.125);
  EXPECT_DOUBLE_EQ(one.time(1, 2, {.split_backward = false}).count, 2 + 2.5 + 2 * 0.125);
}

// Two layers of one size: activations of 100 and 10, boundaries of 8.
LayerCosts two_layers() {
  LayerCosts costs;
  for (const std::int64_t activation : {100, 10}) {
    LayerCost layer;
    layer.name = std::to_string(activation);
    layer.sizes.push_back({.samples = 1,
                           .forward = {{1}},
                           .input_backward = {{1}},
                           .weight_backward = {{1}},
                           .activation = {activation},
                           .boundary = {8},
                           .forward_workspace = {50},
                           .backward_workspace = {60}});
    costs.layers.push_back(layer);
  }
  costs.layers.push_back(costs.layers.back());
  costs.layers.back().name = "the last";
  costs.layers.back().sizes.front().boundary = {0};
  return costs;
}

TEST(LayerCost, AWorkspaceCountsBesideWhatIsHeldAtThatMoment) {
  LayerCosts costs = two_layers();
  // While the first layer runs forward the second has kept nothing yet; while it runs back, let go, and its output's
  // gradient is there beside the one that has arrived.
  costs.layers[0].sizes[0].forward_workspace = {70};
  costs.layers[0].sizes[0].backward_workspace = {90};
  const StageRun whole{.split_backward = false};
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).forward_workspace.count, 70 - 10);
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).backward_workspace.count, 90 + 8 - 10);
  costs.layers[0].sizes[0].forward_workspace = costs.layers[0].sizes[0].backward_workspace = {5};
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).forward_workspace.count, 50) << "of the second layer";
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).backward_workspace.count, 60);
}

TEST(LayerCost, ABackwardInHalvesHoldsAllUntilItsEnd) {
  LayerCosts costs = two_layers();
  for (const std::size_t layer : {0, 1}) {
    LayerAtSize& size = costs.layers[layer].sizes[0];
    size.input_workspace = {40};
    size.inner_input_workspace = {45};
    size.deferred = {20};
    size.inner_deferred = {28};
    size.weight_workspace = {layer == 0 ? 5 : 3};
    costs.layers[layer].gradient = {7};
  }
  const StageCost both = LayersAtSize(costs, 1).stage(0, 2, {});
  // While the first layer passes its gradient back, the second has put aside what it needs, its output's gradient not
  // among that, as it came from another rank.
  EXPECT_EQ(both.input_workspace.count, 45 + 20);
  EXPECT_EQ(both.weight_workspace.count, 5);
  EXPECT_EQ(both.gradient_at_peak.count, 7) << "the second layer's, while the first one's weights get theirs";
  EXPECT_EQ(both.backward_workspace.count, 60) << "of schedules that have both";
  EXPECT_EQ(LayersAtSize(costs, 1).stage(1, 2, {}).input_workspace.count, 40);
}

TEST(LayerCost, TheFirstBackwardFindsTheGradientsOfTheLayersBehind) {
  LayerCosts costs = two_layers();
  costs.layers[0].gradient = {30};
  costs.layers[1].gradient = {40};
  const StageRun whole{.split_backward = false};
  // The second layer takes 60 while no gradient is there yet, the first one 60 + 8 - 10 beside the second one's 40.
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).backward_workspace.count, 60);
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, whole).gradient_at_peak.count, 58 + 40 - 60);
  costs.layers[0].sizes[0].backward_workspace = {120};
  const StageCost stage = LayersAtSize(costs, 1).stage(0, 2, whole);
  EXPECT_EQ(stage.backward_workspace.count, 120 + 8 - 10);
  EXPECT_EQ(stage.gradient_at_peak.count, 40);
}

TEST(LayerCost, WhereTheInputNeedsNoGradientTheFirstStagesWIsAWholeBackward) {
  LayerCosts costs = two_layers();
  costs.input_needs_gradient = false;
  EXPECT_EQ(parse_layer_costs(to_json(costs)), costs);
  const LayersAtSize one(costs, 1);
  const StageCost first = one.stage(0, 2, {});
  EXPECT_EQ(first.input_backward.count, 0);
  EXPECT_EQ(first.weight_backward.count, 4);
  EXPECT_NEAR(first.weight_activation_share * 110, 110 + 8, 1e-9) << "and the gradient that arrived";
  // Where the two halves take more than the whole, a stage with a layer more must not take less in a search.
  costs.layers[0].sizes[0].backward = MeasuredTime{{0.5}};
  EXPECT_EQ(LayersAtSize(costs, 1).stage(0, 2, {}).weight_backward.count, 2.5);
  EXPECT_GE(LayersAtSize(costs, 1).time(0, 2, {}), LayersAtSize(costs, 1).time(1, 2, {}));
  EXPECT_EQ(one.stage(1, 3, {}).input_backward.count, 2) << "a later stage passes a gradient back";
}

TEST(LayerCost, FrozenLayersAtTheBeginningTakeAndGiveNoGradient) {
  LayerCosts costs = two_layers();
  costs.input_needs_gradient = false;
  costs.layers_without_gradient = 1;
  LayerAtSize& frozen = costs.layers[0].sizes[0];
  frozen.activation = frozen.backward_workspace = {0};
  frozen.input_backward = frozen.weight_backward = {{0}};
  costs.input_bytes_per_sample = 4;
  EXPECT_EQ(parse_layer_costs(to_json(costs)), costs);
  const LayersAtSize one(costs, 1);
  EXPECT_FALSE(one.stage(0, 1, {}).gradient_returns);
  EXPECT_TRUE(one.stage(0, 2, {}).gradient_returns);
  EXPECT_EQ(one.stage(0, 1, {}).input_backward.count + one.stage(0, 1, {}).weight_backward.count, 0);
  // The first stage that learns has a whole backward, wherever it begins.
  for (const std::size_t first : {0U, 1U}) {
    EXPECT_EQ(one.stage(first, 2, {}).input_backward.count, 0);
    EXPECT_EQ(one.stage(first, 2, {}).weight_backward.count, 2);
  }
  EXPECT_EQ(one.stage(2, 3, {}).input_backward.count, 1) << "a later stage passes a gradient back";
  // What leads to no gradient is neither kept nor run again.
  const StageRun again{.recomputed = true, .split_backward = false};
  EXPECT_EQ(one.stage(0, 1, again).activation.count, 0);
  EXPECT_EQ(one.stage(0, 2, again).activation.count, 8);
  const StageCost whole = one.stage(0, 2, again);
  EXPECT_EQ((whole.input_backward + whole.weight_backward).count, 2 + 1);
  EXPECT_EQ(one.time(0, 2, again).count, 2 + 1 + 2);
  costs.layers_without_gradient = 3;
  EXPECT_THROW(validate(costs), Error);
  costs.layers_without_gradient = 1;
  costs.input_needs_gradient = true;
  EXPECT_THROW(validate(costs), Error);
}

TEST(LayerCost, AnOutputThatALayerKeepsIsTheNextLayersInputOrHeldAtTheEnd) {
  LayerCosts costs = two_layers();
  for (LayerCost& layer : costs.layers) layer.sizes[0].kept_output = layer.sizes[0].boundary;
  const LayersAtSize one(costs, 1);
  EXPECT_EQ(one.stage(0, 2, {}).activation.count, 100 + 10 + 8);
  EXPECT_EQ(one.stage(0, 2, {.sent = false}).activation.count, 100 + 10) << "the next stage's input";
  EXPECT_EQ(one.stage(0, 3, {}).activation.count, 100 + 10 + 10) << "nothing is sent behind the last layer";
}

TEST(LayerCost, RecomputationKeepsInputsAndRunsTheForwardAgain) {
  const LayersAtSize one(parse_layer_costs(three_layers), 1);
  const StageRun again{.recomputed = true, .split_backward = false, .speed = 1};
  const StageCost stage = one.stage(0, 3, again);
  EXPECT_EQ(stage.activation.count, 4 + 8 + 8);
  EXPECT_DOUBLE_EQ((stage.input_backward + stage.weight_backward).count, (1 + 2.5 + 2.5) + (1 + 2 + 2) + 0.125);
  EXPECT_EQ(stage.backward_workspace.count, 107 - 8) << "a layer's activation is there again, its input was all along";
  EXPECT_DOUBLE_EQ(one.time(0, 3, again).count, (stage.forward + stage.input_backward + stage.weight_backward).count);
  // Between I and W the whole graph is there again.
  const StageCost split = one.stage(1, 3, {.recomputed = true});
  EXPECT_NEAR(static_cast<double>(split.activation.count) * split.weight_activation_share, 100, 1e-9);
}

TEST(LayerCost, ARecomputedLayerThatKeepsLessThanItsInputHasNoWorkspaceBelow0) {
  LayerCosts costs = two_layers();
  LayerAtSize& second = costs.layers[1].sizes[0];
  second.activation = {2};  // of an input of 8, which is there in any case
  second.input_workspace = {1};
  const StageCost stage = LayersAtSize(costs, 1).stage(1, 2, {.recomputed = true});
  EXPECT_EQ(stage.input_workspace.count, 0);
}

TEST(LayerCost, BeyondTheMeasuredSizesIsRefusedByName) {
  const LayerCosts costs = parse_layer_costs(three_layers);
  EXPECT_EQ(measured_range(costs), (SampleRange{1, 4, "embedding"}));
  for (const double samples : {0.5, 5.0, 1e300}) {
    try {
      const LayersAtSize beyond(costs, samples);
      FAIL() << samples;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("microbatches of"), HasSubstr("1 to 4"), HasSubstr("\"embedding\"")));
    }
  }
}

TEST(LayerCost, ACutHasTheSpeedsLinksAndCapsOfItsRanks) {
  const LayerCosts costs = parse_layer_costs(three_layers);
  const Cost cost = cost_of_cut(costs, {0, 2}, 1);
  ASSERT_EQ(cost.stages.size(), 2);
  EXPECT_DOUBLE_EQ(cost.stages[1].forward.count, 2 * (2 + 0.125));
  EXPECT_EQ(cost.default_link, costs.default_link);
  EXPECT_EQ(cost.links, costs.links);
  EXPECT_EQ(cost.memory_caps.front().count, 4096);
  EXPECT_EQ(cost_of_cut(costs, {0, 2}, 1, {.ranks = {1, 0}}).stages[1].forward.count, 2 + 0.125);
  for (const std::vector<std::int64_t>& cut : std::vector<std::vector<std::int64_t>>{{}, {1}, {0, 3}, {0, 2, 2}})
    EXPECT_THROW(static_cast<void>(cost_of_cut(costs, cut, 1)), Error);
}

TEST(LayerCost, AnotherModelOrMachineIsRefusedByName) {
  const LayerCosts costs = parse_layer_costs(three_layers);
  require_description(costs.model, {{"name", "gpt"}, {"width", "128"}}, "model", "cost.json");
  const auto message = [&](const Description& expected) -> std::string {
    try {
      require_description(costs.model, expected, "model", "cost.json");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message({{"width", "256"}}), HasSubstr("cost.json is of another model, width \"128\"; expected width "
                                                     "\"256\""));
  EXPECT_THAT(message({{"heads", "4"}}), HasSubstr("cost.json does not say the heads of its model"));
}

TEST(LayerCost, RefusesByPath) {
  const std::string size = R"({"samples": 1, "forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1)";
  const auto with_size = [](const std::string& text) {
    return R"({"layers": [{"name": "a", "sizes": [)" + text + "]}]}";
  };
  EXPECT_EQ(refusal(with_size(size + "}")), "");
  EXPECT_THAT(refusal("{}"), HasSubstr("cost.json: layers is missing"));
  EXPECT_THAT(refusal(R"({"layers": []})"), HasSubstr("cost.json: layers is []"));
  EXPECT_THAT(refusal(R"({"stages": []})"), HasSubstr("cost.json holds the costs of stages"));
  EXPECT_THAT(refusal(with_size(size + R"(, "activation": 1})")),
              HasSubstr("layers[0].sizes[0].activation is not known"));
  EXPECT_THAT(refusal(with_size(size + R"(, "activation_bytes": -1})")), HasSubstr("activation_bytes is -1"));
  EXPECT_THAT(refusal(with_size(size + "}," + size + "}")), HasSubstr("layers[0].sizes[1].samples is 1"));
  for (const std::string time : {"0", "-1", "\"fast\"", "null"})
    EXPECT_THAT(refusal(with_size(R"({"samples": 1, "input_backward_ms": 1, "weight_backward_ms": 1, "forward_ms": )" +
                                  time + "}")),
                HasSubstr("layers[0].sizes[0].forward_ms is " + time));
  EXPECT_THAT(refusal(with_size(R"({"samples": 0, "forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1})")),
              HasSubstr("samples is 0"));
  EXPECT_THAT(refusal(R"({"layers": [{"name": "a", "like": "b"}]})"), HasSubstr("the name of an earlier layer"));
  EXPECT_THAT(refusal(R"({"layers": [{"name": "", "sizes": [)" + size + "}]}]}"), HasSubstr("layers[0].name is \"\""));
  EXPECT_THAT(refusal(R"({"ranks": [{"speed": 0}], "layers": [{"name": "a", "sizes": [)" + size + "}]}]}"),
              HasSubstr("ranks[0].speed is 0"));
}

TEST(LayerCost, ValidateRefusesWhatJsonCannotHold) {
  LayerCosts costs = parse_layer_costs(three_layers);
  costs.layers[2].parameter.count += 1;
  EXPECT_THROW(validate(costs), Error) << "like another, and not equal";
  costs = parse_layer_costs(three_layers);
  costs.layers[1].sizes[0].forward.median.count = -1;
  EXPECT_THROW(validate(costs), Error);
  costs = parse_layer_costs(three_layers);
  costs.contention = 0.5;
  EXPECT_THROW(validate(costs), Error);
  costs = {};
  EXPECT_THROW(validate(costs), Error);
}

TEST(LayerCost, ContentionGoesBothWaysAndIntoACut) {
  LayerCosts costs = parse_layer_costs(three_layers);
  EXPECT_EQ(costs.contention, 1);
  EXPECT_THAT(to_json(costs), Not(HasSubstr("contention")));
  costs.contention = 1.375;
  EXPECT_EQ(parse_layer_costs(to_json(costs)), costs);
  EXPECT_EQ(cost_of_cut(costs, {0, 1}, 1).contention, 1.375);
  EXPECT_EQ(with_shared_ties(costs).contention, 1.375);
}

}  // namespace
}  // namespace penstock
