// Networks whose layers draw, freeze parts of themselves or keep statistics: the same bits as one device, whatever the
// cut, the schedule and what is run again.
#include <cstddef>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/freeze.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

#include "random_kinds.h"

namespace penstock {
namespace {

constexpr std::int64_t width = 8;

// A linear layer, and one kind of draw that moves all its outputs.
struct Drawing : torch::nn::Module {
  explicit Drawing(std::size_t number) : kind(random_kinds().at(number)) { register_module("linear", linear); }
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor hidden = linear(input);
    const at::Tensor drawn = kind.second(hidden.mean(0).expand({3, 4, width}).contiguous());
    return input + (hidden * (1 + drawn.mean().tanh())).tanh();
  }
  RandomKind kind;
  torch::nn::Linear linear{width, width};
};

Loss drawn_error(const Tensors& outputs, const Tensors& targets) {
  const Loss plain = squared_error(outputs, targets);
  return {plain.sum * (1 + 0.1 * torch::rand({}).item<double>()), plain.weight};
}

bool is_recurrent(const std::string& kind) { return kind == "LSTM" || kind == "GRU" || kind == "RNN"; }

template <class Choice>
Network drawing_network(const Choice& takes) {
  Network network;
  const auto kinds = random_kinds();
  for (std::size_t kind = 0; kind < kinds.size(); ++kind)
    if (takes(kinds[kind].first)) network.layers.push_back(layer_of<Drawing>("drawing", kind));
  network.loss = drawn_error;
  return network;
}

Network drawing_network() {
  return drawing_network([](const std::string&) { return true; });
}

template <class Module>
Network network_of(int layers) {
  Network network;
  for (int layer = 0; layer < layers; ++layer) network.layers.push_back(layer_of<Module>("layer"));
  network.loss = squared_error;
  return network;
}

std::vector<Microbatch> minibatch_of(std::int64_t step, int microbatches) {
  std::vector<Microbatch> minibatch;
  for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
    at::Generator generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(100 * step + microbatch));
    minibatch.push_back({{at::randn({3, width}, generator)}, {at::randn({3, width}, generator)}});
  }
  return minibatch;
}

struct Case {
  std::string schedule = "1f1b";
  int ranks = 1;
  bool recompute = false;
  std::uint64_t seed = 5;
  int evaluations = 0;  // after each step
};

struct Trained {
  std::vector<double> losses;
  std::vector<std::pair<std::string, at::Tensor>> weights;  // and buffers
};

Trained train(const Network& network, const Case& how) {
  constexpr int microbatches = 4;
  PipelineSettings settings;
  settings.seed = how.seed;
  settings.threads_per_rank = 1;
  settings.optimizer.kind = OptimizerKind::Sgd;
  settings.optimizer.momentum = settings.optimizer.weight_decay = 0;
  settings.recompute.assign(network.layers.size(), how.recompute);
  Pipeline pipeline(network, verify(make_schedule(how.schedule, how.ranks, microbatches)), settings);
  Trained trained;
  for (std::int64_t step = 0; step < 3; ++step) {
    const StepResult result = pipeline.step(minibatch_of(step, microbatches), {step, 1e-2, false});
    for (const MicrobatchLoss& loss : result.losses) trained.losses.push_back(loss.sum);
    for (int evaluation = 0; evaluation < how.evaluations; ++evaluation)
      static_cast<void>(pipeline.evaluate({minibatch_of(50, microbatches)}));
  }
  trained.weights = pipeline.weights();
  return trained;
}

void expect_same(const Trained& expected, const Trained& got) {
  EXPECT_EQ(expected.losses, got.losses);
  ASSERT_EQ(expected.weights.size(), got.weights.size());
  for (std::size_t index = 0; index < expected.weights.size(); ++index)
    EXPECT_TRUE(at::equal(expected.weights[index].second, got.weights[index].second)) << expected.weights[index].first;
}

void expect_same_everywhere(const Network& network, const std::vector<std::string>& schedules) {
  const Trained one = train(network, {});
  for (const std::string& schedule : schedules) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(schedule + (recompute ? ", recomputed" : ""));
      expect_same(one, train(network, {schedule, 3, recompute}));
    }
  }
  expect_same(one, train(network, {"gpipe", 1, true}));
}

TEST(RandomLayers, OfEveryKindDrawTheSameUnderAnyCutAndWhenRunAgain) {
  expect_same_everywhere(drawing_network(), {"1f1b", "interleaved-1f1b"});
}

TEST(RandomLayers, DrawTheSameWithASplitBackward) {
  expect_same_everywhere(drawing_network([](const std::string& kind) { return !is_recurrent(kind); }),
                         {"zb-h1", "zb-v"});
}

TEST(RandomLayers, RecurrentOnesDrawTheSameWithASplitBackward) {
  expect_same_everywhere(drawing_network(is_recurrent), {"zb-h1"});
}

TEST(RandomLayers, DrawTheSameWithReplicasAndTwoCopiesOfAStage) {
  const Network network = drawing_network();
  // The sums over copies round differently, so the first step's losses are what can be equal.
  const auto first_losses = [](Trained trained) {
    trained.losses.resize(4);
    return trained.losses;
  };
  EXPECT_EQ(first_losses(train(network, {})), first_losses(train(network, {"dualpipe", 2})));
}

TEST(RandomLayers, DrawTheSameInPipelinesThatRunAtOnce) {
  const Network network = drawing_network();
  const Trained alone = train(network, {});
  std::vector<Trained> beside(3);
  std::vector<std::thread> threads(beside.size());
  for (std::size_t one = 0; one < beside.size(); ++one) {
    threads[one] = std::thread([&, one] { beside[one] = train(network, {"1f1b", 2}); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Trained& one : beside) expect_same(alone, one);
}

TEST(RandomLayers, DrawOtherNumbersForEverySeedStepMicrobatchAndLayer) {
  const Network network = drawing_network();
  EXPECT_NE(train(network, {"1f1b", 1, false, 5}).losses, train(network, {"1f1b", 1, false, 6}).losses);
  // The same samples and weights throughout: what differs is drawn.
  Network dropout;
  for (int layer = 0; layer < 2; ++layer) dropout.layers.push_back(layer_of<torch::nn::DropoutImpl>("dropout", 0.5));
  dropout.loss = [](const Tensors& outputs, const Tensors&) {
    const at::Tensor ones = torch::ones({1}, torch::requires_grad());
    return Loss{(outputs[0] * at::arange(64)).sum() * ones.sum(), 1};
  };
  Pipeline pipeline(dropout, verify(one_f_one_b_schedule(1, 2)), {});
  const std::vector<Microbatch> same(2, Microbatch{{at::ones({64})}, {}});
  std::set<double> sums;
  for (std::int64_t step = 0; step < 3; ++step)
    for (const MicrobatchLoss& loss : pipeline.step(same, {step, 0, false}).losses) sums.insert(loss.sum);
  EXPECT_EQ(sums.size(), 6U);
}

struct DrawsInItsBackward : torch::nn::Module {
  DrawsInItsBackward() { register_module("linear", linear); }
  at::Tensor forward(const at::Tensor& input) {
    at::Tensor hidden = linear(input);
    hidden.register_hook([](const at::Tensor& gradient) { return gradient + torch::randn_like(gradient); });
    return hidden;
  }
  torch::nn::Linear linear{width, width};
};

TEST(RandomLayers, ThatDrawInTheBackwardAreRefused) {
  for (const char* schedule : {"1f1b", "zb-h1"})
    EXPECT_THAT([&] { static_cast<void>(train(network_of<DrawsInItsBackward>(3), {schedule, 3})); },
                testing::ThrowsMessage<Error>(testing::HasSubstr("draws random numbers in a backward pass")));
}

// A part is frozen in the constructor, as when a network that was trained before is tuned.
struct Frozen : torch::nn::Module {
  Frozen() {
    register_module("linear", linear);
    register_module("norm", norm);
    register_module("dropout", dropout);
    norm->running_mean.fill_(0.25);
    norm->eval();
    dropout->eval();
  }
  at::Tensor forward(const at::Tensor& input) {
    return input + torch::dropout(dropout(norm(linear(input))), 0.25, is_training());
  }
  torch::nn::Linear linear{width, width};
  torch::nn::BatchNorm1d norm{width};
  torch::nn::Dropout dropout{0.5};
};

TEST(Modes, WhatIsFrozenStaysFrozenThroughEvaluations) {
  const Trained one = train(network_of<Frozen>(6), {});
  for (const auto& [name, tensor] : one.weights) {
    if (!name.ends_with("running_mean")) continue;
    EXPECT_TRUE(at::equal(tensor, at::full({width}, 0.25))) << name;
  }
  for (const int evaluations : {1, 2})
    for (const char* schedule : {"1f1b", "zb-h1"}) {
      expect_same(one, train(network_of<Frozen>(6), {schedule, 3, false, 5, evaluations}));
    }
}

TEST(Modes, StagesThatAreWhollyFrozenPassNothingBack) {
  const Network network = with_frozen_layers(network_of<Frozen>(6), {true, true, true, true});
  const Trained one = train(network, {});
  for (const char* schedule : {"gpipe", "1f1b", "zb-h1"}) {
    expect_same(one, train(network, {schedule, 3}));
    expect_same(one, train(network, {schedule, 6}));
  }
}

// Norms of libtorch's, and one of a user's own that moves its mean and computes with it in training.
struct Norms : torch::nn::Module {
  Norms() {
    register_module("linear", linear);
    register_module("batch", batch);
    register_module("instance", instance);
  }
  at::Tensor forward(const at::Tensor& input) {
    at::Tensor hidden = batch(linear(input));
    hidden = instance(hidden.view({-1, 2, width / 2})).reshape({-1, width});
    {
      const at::NoGradGuard no_graph;
      centre.mul_(0.75).add_(hidden.mean(0), 0.25);
      passes.add_(1);
    }
    return input + (hidden - centre).tanh() / (1 + 0.01 * passes.to(at::kFloat));
  }
  torch::nn::Linear linear{width, width};
  torch::nn::BatchNorm1d batch{width};
  torch::nn::InstanceNorm1d instance{torch::nn::InstanceNorm1dOptions(2).affine(true).track_running_stats(true)};
  at::Tensor centre = register_buffer("centre", at::zeros({width}));
  at::Tensor passes = register_buffer("passes", at::zeros({}, at::kLong));
};

TEST(Buffers, AreUpdatedOncePerMicrobatchAlsoWhereLayersRunAgain) {
  const Network network = network_of<Norms>(6);
  for (const auto& [name, tensor] : train(network, {"zb-h1", 3, true}).weights) {
    if (!name.ends_with("passes")) continue;
    EXPECT_EQ(tensor.item<std::int64_t>(), 12) << name;
  }
  expect_same_everywhere(network, {"1f1b", "zb-h1", "interleaved-1f1b", "zb-v"});
}

TEST(Buffers, AreThoseOfPlainLibtorchWithAsManyMicrobatches) {
  const Network network = network_of<Norms>(1);
  const Trained recomputed = train(network, {"1f1b", 1, true});
  const Layer plain = build_layer(network, 0, 5, at::kCPU);
  torch::optim::SGD optimizer(plain.module().parameters(), torch::optim::SGDOptions(1e-2));
  for (std::int64_t step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    double weight = 0;
    for (const Microbatch& microbatch : minibatch_of(step, 4)) {
      const Loss loss = squared_error(plain.forward(microbatch.inputs), microbatch.targets);
      loss.sum.backward();
      weight += loss.weight;
    }
    for (const at::Tensor& parameter : plain.module().parameters()) parameter.mutable_grad().div_(weight);
    optimizer.step();
  }
  const auto buffers = plain.module().named_buffers();
  for (const auto& [name, tensor] : recomputed.weights) {
    const auto* buffer = buffers.find(name.substr(std::string("layers.0.").size()));
    if (buffer == nullptr) continue;
    EXPECT_TRUE(at::allclose(tensor, *buffer, 1e-5, 1e-6)) << name;
  }
}

struct OwnNorm : torch::nn::Module {
  OwnNorm() { register_module("linear", linear); }
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor hidden = linear(input);
    if (is_training()) mean.data().mul_(0.9).add_(hidden.detach().mean(0), 0.1);
    return hidden - mean;
  }
  torch::nn::Linear linear{width, width};
  at::Tensor mean = register_buffer("mean", at::zeros({width}));
};

TEST(Buffers, ThatCopiesOfAStageWouldNotShareAreRefusedByName) {
  EXPECT_THAT([] { static_cast<void>(train(network_of<Norms>(6), {"dualpipe", 2})); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("BatchNorm1d")));
  EXPECT_THAT([] { static_cast<void>(train(network_of<OwnNorm>(6), {"dualpipe", 2})); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("changes its buffer mean")));
  EXPECT_NO_THROW(static_cast<void>(train(network_of<Frozen>(6), {"dualpipe", 2})));
}

}  // namespace
}  // namespace penstock
