// What stands in several places: ties and rules that do not fit, modules and memory that layers share.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "pipeline/shared_parameters.h"

namespace penstock::shared_test {
namespace {

using testing::StartsWith;
using testing::ThrowsMessage;

constexpr std::int64_t width = 4;

LayerSpec linear(std::int64_t inputs = width, std::int64_t outputs = width) {
  return layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(inputs, outputs));
}

Network linear_network(int layers) {
  Network network;
  for (int layer = 0; layer < layers; ++layer) network.layers.push_back(linear());
  network.loss = squared_error;
  return network;
}

PipelineSettings one_thread() {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  return settings;
}

Pipeline pipeline(const Network& network, int ranks, const PipelineSettings& settings = one_thread()) {
  return {network, verify(one_f_one_b_schedule(ranks, 2)), settings};
}

// In the same words on one rank and on several.
void expect_refused(const Network& network, const std::string& message,
                    const PipelineSettings& settings = one_thread()) {
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(ranks);
    try {
      static_cast<void>(pipeline(network, ranks, settings));
      FAIL() << "expected an Error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      EXPECT_THAT(std::string(error.what()), StartsWith(message));
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST(Ties, OfOtherShapesDtypesOrNamesAreRefusedBeforeTheFirstStep) {
  Network network = linear_network(6);
  network.layers[4] = linear(width, 2 * width);
  network.layers[5] = linear(2 * width, width);
  network.ties = {{{1, "weight"}, {4, "weight"}}};
  expect_refused(network,
                 "a tie of layer 1 weight, [4, 4] Float, with layer 4 weight, [8, 4] Float; expected "
                 "parameters of one shape and dtype");
  network = linear_network(6);
  network.layers[5].build = [] {
    auto module = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(width, width));
    module->to(at::kDouble);
    return Layer(module);
  };
  network.ties = {{{5, "bias"}, {0, "bias"}}};
  expect_refused(network, "a tie of layer 5 bias, [4] Double, with layer 0 bias, [4] Float; expected");
  network = linear_network(6);
  network.ties = {{{0, "weight"}, {5, "wieght"}}};
  expect_refused(network, "layer 5 wieght in a tie; expected a parameter of that layer; check");
  network.layers[5].build = [] {
    auto module = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(width, width));
    module->weight.set_requires_grad(false);
    return Layer(module);
  };
  network.ties = {{{0, "weight"}, {5, "weight"}}};
  expect_refused(network, "a tie of layer 0 weight with layer 5 weight, of which one takes a gradient; expected");
}

// Gradients and sums of ties go from rank to rank: each byte counts where it is.
TEST(Ties, WhatARankHoldsDoesNotDrift) {
  Network network = linear_network(6);
  network.ties = {{{2, "weight"}, {0, "weight"}}, {{2, "weight"}, {5, "weight"}}, {{4, "bias"}, {1, "bias"}}};
  Pipeline trained = pipeline(network, 3);
  const at::Tensor input = at::ones({2, width});
  std::vector<std::vector<Bytes>> peaks;
  for (int step = 0; step < 40; ++step) {
    trained.begin_accounting();
    static_cast<void>(trained.step(input, at::zeros({2, width}), step, 0.01));
    trained.begin_accounting();
    peaks.push_back(trained.peak_memory());
  }
  for (std::size_t step = 3; step < peaks.size(); ++step) EXPECT_EQ(peaks[step], peaks[2]) << "step " << step;
}

struct TwoNames : torch::nn::Module {
  TwoNames() : a(register_module("a", torch::nn::Linear(width, width))) { register_module("b", a); }
  at::Tensor forward(const at::Tensor& input) { return torch::tanh(a(torch::tanh(a(input)))); }
  torch::nn::Linear a;
};

TEST(Ties, OfTwoNamesOfOneTensorAreRefused) {
  Network network = linear_network(4);
  network.layers[1] = layer_of<TwoNames>("two names");
  network.ties = {{{1, "a.weight"}, {1, "b.weight"}}};
  expect_refused(network, "a tie of layer 1 a.weight with layer 1 b.weight, which are one already");
}

TEST(Shared, OneSubmoduleUnderTwoNamesTrainsAsOneAndCanBeTiedByEither) {
  std::vector<std::map<std::string, at::Tensor>> runs;
  std::vector<double> norms;
  for (const std::string name : {"a", "b"}) {
    Network network = linear_network(4);
    network.layers[1] = layer_of<TwoNames>("two names");
    network.ties = {{{3, "weight"}, {1, name + ".weight"}}};
    Pipeline trained = pipeline(network, 2);
    const at::Tensor input = at::ones({2, width});
    for (int step = 0; step < 3; ++step) norms.push_back(trained.step(input, input, step, 0.1).gradient_norm);
    const auto weights = trained.weights();
    runs.emplace_back(weights.begin(), weights.end());
    EXPECT_TRUE(at::equal(runs.back().at("layers.1.a.weight"), runs.back().at("layers.1.b.weight")));
    EXPECT_TRUE(at::equal(runs.back().at("layers.1.a.weight"), runs.back().at("layers.3.weight")));
    EXPECT_EQ(trained.report()[0].parameters, 2 * (width * width + width)) << "of layers 0 and 1";
  }
  EXPECT_EQ(norms[2], norms[5]);
  for (const auto& [name, tensor] : runs[0]) EXPECT_TRUE(at::equal(tensor, runs[1].at(name))) << name;
}

TEST(Shared, OneModuleInTwoLayersIsRefusedOnAnyNumberOfRanks) {
  const auto shared = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(width, width));
  Network network = linear_network(6);
  network.layers[1].build = network.layers[4].build = [shared] { return Layer(shared); };
  expect_refused(network,
                 "layer 1 weight and layer 4 weight share their memory; expected parameters of their own in every "
                 "place; let LayerSpec::build make a new module every time, and keep the two equal with Network::ties");
  // Of another process a layer is known by its description only.
  const std::vector<Layer> own{build_layer(network, 0, 0, at::kCPU), build_layer(network, 1, 0, at::kCPU)};
  EXPECT_TRUE(build_layer(network, 1, 0, at::kCPU).is_held_elsewhere());
  EXPECT_FALSE(build_layer(network, 0, 0, at::kCPU).is_held_elsewhere());
  refuse_shared_with_others(network, {{RankId{0}, 0, own.data()}, {RankId{0}, 1, &own[1]}});
  EXPECT_THAT([&] { refuse_shared_with_others(network, {{RankId{0}, 0, own.data()}, {RankId{0}, 1, &own[1], true}}); },
              ThrowsMessage<Error>(StartsWith("layer 1 weight and layer 4 weight share their memory")));
  // In one layer it is nobody else's.
  network = linear_network(6);
  network.layers[1].build = [shared] { return Layer(shared); };
  static_cast<void>(pipeline(network, 3));
  // But not of one pipeline alone.
  PipelineSettings settings = one_thread();
  settings.replicas = 2;
  const Schedule replica = one_f_one_b_schedule(2, 2);
  EXPECT_THAT([&] { Pipeline(network, verify(side_by_side({replica, replica})), settings); },
              ThrowsMessage<Error>(StartsWith("layer 1 weight is one tensor on ranks 0 and 2; expected a tensor of its "
                                              "own on every rank that holds the layer")));
}

struct Scaled : torch::nn::Module {
  explicit Scaled(const at::Tensor& view, bool trained = true) {
    weight = register_parameter("weight", view.detach(), trained);
  }
  at::Tensor forward(const at::Tensor& input) { return input * weight; }
  at::Tensor weight;
};

LayerSpec scaled(const at::Tensor& view) {
  return {"scaled", "", [view] { return Layer(std::make_shared<Scaled>(view)); }};
}

TEST(Shared, ViewsOfOneStorageAreRefusedWhereTheyMeetAndTrainWhereTheyDoNot) {
  const at::Tensor flat = at::ones({4, 2 * width});
  Network network = linear_network(6);
  network.layers[2] = scaled(flat[0].slice(0, 0, width));
  network.layers[5] = scaled(flat[0].slice(0, width - 1, 2 * width - 1));
  expect_refused(network, "layer 2 weight and layer 5 weight share their memory");
  // Interleaved, with no element in common.
  network.layers[2] = scaled(flat[1].slice(0, 0, 2 * width, 2));
  network.layers[5] = scaled(flat[1].slice(0, 1, 2 * width, 2));
  Pipeline trained = pipeline(network, 3);
  static_cast<void>(trained.step(at::ones({2, width}), at::zeros({2, width}), 0, 0.1));
  EXPECT_FALSE(at::equal(flat[1], at::ones({2 * width})));
  EXPECT_TRUE(at::equal(flat[0], at::ones({2 * width})));
}

TEST(Shared, TheUpdateOfARankIsNoChangeOfWhatAnotherHasSaved) {
  const at::Tensor flat = at::ones({2 * width});
  Network network = linear_network(3);
  network.layers[0] = scaled(flat.slice(0, 0, width));
  network.layers[1] = scaled(flat.slice(0, width, 2 * width));
  std::vector<Layer> built;
  built.reserve(3);
  for (std::int64_t layer = 0; layer < 3; ++layer) built.push_back(build_layer(network, layer, 0, at::kCPU));
  const auto weight = [&](std::size_t layer) { return built[layer].module().named_parameters()["weight"]; };
  const auto changes_alone = [&] {
    const torch::NoGradGuard guard;
    const std::uint32_t before = weight(0)._version();
    weight(1).add_(1);
    return weight(0)._version() == before;
  };
  const RankId first{0};
  count_versions_apart({{first, 0, built.data()}, {first, 1, &built[1]}, {RankId{1}, 2, &built[2]}});
  EXPECT_FALSE(changes_alone()) << "of one rank they stay one";
  count_versions_apart({{first, 0, built.data()}, {RankId{1}, 1, &built[1]}, {RankId{1}, 2, &built[2]}});
  EXPECT_TRUE(changes_alone());
}

TEST(Shared, AParameterWhoseElementsAreOneIsRefused) {
  Network network = linear_network(3);
  network.layers[1] = scaled(at::ones({1}).expand({width}));
  expect_refused(network, "layer 1 weight has elements that share their memory");
}

struct Normed : torch::nn::Module {
  explicit Normed(std::shared_ptr<torch::nn::BatchNorm1dImpl> the_norm)
      : norm(register_module("norm", std::move(the_norm))) {}
  at::Tensor forward(const at::Tensor& input) { return norm->forward(input); }
  std::shared_ptr<torch::nn::BatchNorm1dImpl> norm;
};

TEST(Shared, AModuleWithBuffersInTwoLayersIsRefused) {
  const auto norm = std::make_shared<torch::nn::BatchNorm1dImpl>(torch::nn::BatchNorm1dOptions(width).affine(false));
  Network network = linear_network(6);
  network.layers[0] = network.layers[3] =
      LayerSpec{"normed", "", [norm] { return Layer(std::make_shared<Normed>(norm)); }};
  expect_refused(network, "layers 0 and 3 hold one torch::nn::BatchNorm1dImpl with its buffers; expected");
}

TEST(UpdateRules, ThatMatchNoParameterAreRefusedAndTiedOnesGoByTheirOwner) {
  PipelineSettings settings = one_thread();
  settings.optimizer.rules = {{"layers.2.*", {}, 0}, {"*.wieght", {}, 0}};
  expect_refused(linear_network(6), "an optimizer's rule for \"*.wieght\", which is the name of no parameter",
                 settings);
  Network network = linear_network(6);
  network.ties = {{{2, "weight"}, {0, "weight"}}, {{0, "weight"}, {5, "weight"}}};
  settings.optimizer.rules = {{"layers.2.*", {}, 0}};
  Pipeline trained = pipeline(network, 3, settings);
  const auto before = trained.weights();
  static_cast<void>(trained.step(at::ones({2, width}), at::zeros({2, width}), 0, 0.1));
  const auto after = trained.weights();
  for (std::size_t index = 0; index < before.size(); ++index) {
    const std::string& name = before[index].first;
    const bool stays = name == "layers.0.weight" || name.starts_with("layers.2.") || name == "layers.5.weight";
    EXPECT_EQ(at::equal(before[index].second, after[index].second), stays) << name;
  }
}

}  // namespace
}  // namespace penstock::shared_test
