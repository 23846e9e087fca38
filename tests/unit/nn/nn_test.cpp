#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/dropout.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/networks.h"

namespace penstock {
namespace {

TEST(Layer, InitialWeightsDependOnSeedAndLayerAlone) {
  const Network network = make_gpt({32, 3, 16, 2, 8, 0, false});
  const auto weight = [&](std::int64_t layer, std::uint64_t seed) {
    return build_layer(network, layer, seed, at::kCPU).module().named_parameters()["attention.qkv.weight"].clone();
  };
  const at::Tensor first = weight(1, 5);
  torch::manual_seed(99);
  static_cast<void>(weight(2, 5));
  EXPECT_TRUE(at::equal(first, weight(1, 5)));
  EXPECT_FALSE(at::equal(first, weight(2, 5)));
  EXPECT_FALSE(at::equal(first, weight(1, 6)));
}

TEST(Layer, BuildingLeavesTheCallersGeneratorAsItWas) {
  const Network network = make_mlp({});
  torch::manual_seed(1);
  const at::Tensor expected = torch::rand({4});
  torch::manual_seed(1);
  static_cast<void>(build_layer(network, 0, 5, at::kCPU));
  EXPECT_TRUE(at::equal(expected, torch::rand({4})));
}

TEST(Layer, CountsParametersWithoutBuildingLayersOfOneKindTwice) {
  int built = 0;
  Network network;
  for (int layer = 0; layer < 3; ++layer)
    network.layers.push_back({"linear", "linear 4x4", [&built] {
                                ++built;
                                return Layer(std::make_shared<torch::nn::LinearImpl>(4, 4));
                              }});
  EXPECT_EQ(parameter_counts(network), (std::vector<std::int64_t>{20, 20, 20}));
  EXPECT_EQ(built, 1);
}

TEST(Layer, TakesModulesOfSeveralTensors) {
  struct Swap : torch::nn::Module {
    Tensors forward(const Tensors& inputs) { return {inputs.at(1), inputs.at(0)}; }
  };
  const Layer swap(std::make_shared<Swap>());
  const Tensors outputs = swap.forward({torch::zeros({1}), torch::ones({2})});
  EXPECT_EQ(outputs.at(0).size(0), 2);
  const Layer single(std::make_shared<torch::nn::LinearImpl>(2, 2));
  EXPECT_THROW(static_cast<void>(single.forward({torch::zeros({1, 2}), torch::zeros({1, 2})})), Error);
}

TEST(Dropout, DrawsTheSameMaskForTheSamePlaceAndAnotherForEveryOther) {
  Dropout dropout(0.5);
  const at::Tensor input = torch::ones({64});
  const auto draw = [&](const DrawPlace& place) {
    const DrawScope scope(place);
    return dropout.forward(input);
  };
  const at::Tensor mask = draw({1, 2, 3, 4});
  EXPECT_TRUE(at::equal(mask, draw({1, 2, 3, 4})));
  for (const DrawPlace& other : {DrawPlace{2, 2, 3, 4}, {1, 3, 3, 4}, {1, 2, 4, 4}, {1, 2, 3, 5}})
    EXPECT_FALSE(at::equal(mask, draw(other)));
  const DrawScope scope({1, 2, 3, 4});
  EXPECT_TRUE(at::equal(mask, dropout.forward(input)));
  EXPECT_FALSE(at::equal(mask, dropout.forward(input))) << "the second draw within a scope is another";
}

TEST(Dropout, KeepsTheMeanInTrainingAndPassesEverythingInEvaluation) {
  Dropout dropout(0.25);
  const DrawScope scope({1, 1, 1, 1});
  const at::Tensor input = torch::ones({100000});
  const at::Tensor dropped = dropout.forward(input);
  EXPECT_NEAR(dropped.mean().item<double>(), 1, 0.02);
  EXPECT_NEAR(dropped.eq(0).to(at::kFloat).mean().item<double>(), 0.25, 0.01);
  dropout.eval();
  EXPECT_TRUE(at::equal(dropout.forward(input), input));
}

TEST(Dropout, RefusesToDrawOutsideAScope) {
  const Dropout dropout(0.5);
  EXPECT_THROW(static_cast<void>(dropout.forward(torch::ones({1}))), Error);
  EXPECT_THROW(Dropout(1.0), Error);
  EXPECT_THROW(Dropout(-0.1), Error);
}

TEST(Loss, MaskedTargetsCountNeitherInSumNorInWeight) {
  torch::manual_seed(1);
  const at::Tensor logits = torch::randn({2, 3, 5});
  const at::Tensor target = torch::randint(5, {2, 3}, at::kLong);
  target[1][2] = -100;
  const Loss loss = cross_entropy({logits}, {target});
  EXPECT_EQ(loss.weight, 5);
  const at::Tensor expected = torch::nn::functional::cross_entropy(logits.view({6, 5}), target.view(6));
  EXPECT_NEAR(loss.sum.item<double>() / loss.weight, expected.item<double>(), 1e-6);
}

std::string refusal_of_loss(const LossFunction& loss, const at::Tensor& output, const at::Tensor& target) {
  try {
    static_cast<void>(loss({output}, {target}));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Loss, ATargetThatWouldBroadcastIsRefused) {
  // libtorch makes n × n pairs of these.
  const std::string told = refusal_of_loss(squared_error, torch::ones({4, 1}), torch::ones({4}));
  EXPECT_NE(told.find("an output of [4, 1] and a target of [4]"), std::string::npos) << told;
  EXPECT_NE(refusal_of_loss(squared_error, torch::ones({4}), torch::ones({4, 1})), "");
  EXPECT_NE(refusal_of_loss(squared_error, torch::ones({4, 3}), torch::ones({3})), "");
  EXPECT_NE(refusal_of_loss(squared_error, torch::ones({4}), torch::ones({})), "");
  EXPECT_EQ(refusal_of_loss(squared_error, torch::ones({4, 1}), torch::ones({4, 1})), "");
  const LossFunction classes = [](const Tensors& outputs, const Tensors& targets) {
    return cross_entropy(outputs, targets);
  };
  EXPECT_NE(refusal_of_loss(classes, torch::ones({2, 3, 5}), torch::zeros({2, 1}, at::kLong)), "");
  EXPECT_NE(refusal_of_loss(classes, torch::ones({2, 3, 5}), torch::zeros({2, 3, 5}, at::kLong)), "");
  EXPECT_EQ(refusal_of_loss(classes, torch::ones({2, 3, 5}), torch::zeros({2, 3}, at::kLong)), "");
}

TEST(Gpt, IsCausal) {
  torch::manual_seed(1);
  const Network network = make_gpt({32, 2, 16, 2, 8, 0, false});
  const auto logits = [&](const at::Tensor& tokens) {
    Tensors flow{tokens};
    for (std::size_t layer = 0; layer < network.layers.size(); ++layer)
      flow = build_layer(network, static_cast<std::int64_t>(layer), 1, at::kCPU).forward(flow);
    return flow.front();
  };
  const at::Tensor tokens = torch::randint(32, {1, 8}, at::kLong);
  const at::Tensor changed = tokens.clone();
  changed[0][5] = (changed[0][5] + 1) % 32;
  const at::Tensor before = logits(tokens);
  const at::Tensor after = logits(changed);
  EXPECT_EQ(before.sizes(), (std::vector<std::int64_t>{1, 8, 32}));
  EXPECT_TRUE(at::allclose(before.slice(1, 0, 5), after.slice(1, 0, 5), 1e-5, 1e-6));
  EXPECT_FALSE(at::allclose(before.slice(1, 5), after.slice(1, 5)));
}

TEST(Networks, RefuseSizesThatDoNotFit) {
  EXPECT_THROW(static_cast<void>(make_gpt({32, 2, 16, 3, 8, 0, false})), Error);
  EXPECT_THROW(static_cast<void>(make_gpt({32, 0, 16, 2, 8, 0, false})), Error);
  EXPECT_THROW(static_cast<void>(make_mlp({0, 1, 1, 1, 0})), Error);
  ConvnetSettings convnet;
  convnet.groups = 5;
  EXPECT_THROW(static_cast<void>(make_convnet(convnet)), Error);
}

}  // namespace
}  // namespace penstock
