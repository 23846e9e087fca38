// Layers get their inputs as values.
#include "exec/layer_inputs.h"

#include <gmock/gmock.h>
#include <memory>
#include <utility>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/exec/stage.h"

namespace penstock {
namespace {

constexpr MicrobatchId only{0};

struct RectifiesInPlace : torch::nn::Module {
  RectifiesInPlace() : norm(register_module("norm", torch::nn::BatchNorm1d(4))) {}
  at::Tensor forward(at::Tensor input) { return norm(torch::relu_(input)) * 2; }
  torch::nn::BatchNorm1d norm;
};

struct Rectifies : torch::nn::Module {
  Rectifies() : norm(register_module("norm", torch::nn::BatchNorm1d(4))) {}
  at::Tensor forward(const at::Tensor& input) { return norm(torch::relu(input)) * 2; }
  torch::nn::BatchNorm1d norm;
};

// Through a name of its own, which no counter of changes sees.
struct ChangesUnseen : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) {
    input.variable_data().mul_(2);
    return input + 1;
  }
};

struct ChangesSometimes : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) { return ++passes > 1 ? input.mul_(2) : input * 2; }
  int passes = 0;
};

struct ChangesItsWeightToo : torch::nn::Module {
  ChangesItsWeightToo() : weight(register_parameter("weight", torch::ones({4}))) {}
  at::Tensor forward(const at::Tensor& input) {
    {
      const torch::NoGradGuard no_graph;
      weight.clamp_(0, 1);
    }
    return input.relu_() * weight;
  }
  at::Tensor weight;
};

Stage stage_of(std::vector<Layer> layers, bool recompute = false) {
  StageParts parts;
  parts.stage = {1};
  parts.first_layer = 1;
  parts.recompute.assign(layers.size(), recompute);
  parts.layers = std::move(layers);
  return Stage(std::move(parts));
}

struct Passed {
  at::Tensor output;
  at::Tensor gradient;
};

Passed pass(Stage& stage, const at::Tensor& input) {
  stage.begin({});
  Passed passed;
  passed.output = stage.forward(only, {input.detach().requires_grad_()}, {}).at(0).detach();
  passed.gradient = stage.backward(only, {torch::ones_like(passed.output)}).at(0);
  return passed;
}

TEST(LayerInputs, ALayerThatRectifiesInPlaceComputesAsOneThatDoesNot) {
  for (const bool recompute : {false, true}) {
    torch::manual_seed(2);
    const at::Tensor input = torch::randn({6, 4});
    const at::Tensor before = input.clone();
    // A layer before it that keeps its own output for its backward pass.
    const auto tanh = [] { return Layer(std::make_shared<torch::nn::TanhImpl>()); };
    auto in_place = std::make_shared<RectifiesInPlace>();
    auto out_of_place = std::make_shared<Rectifies>();
    Stage stage = stage_of({Layer(in_place), tanh(), Layer(in_place)}, recompute);
    Stage expected = stage_of({Layer(out_of_place), tanh(), Layer(out_of_place)}, recompute);
    for (int turn = 0; turn < 3; ++turn) {
      const Passed got = pass(stage, input);
      const Passed wanted = pass(expected, input);
      EXPECT_TRUE(at::equal(got.output, wanted.output)) << turn;
      EXPECT_TRUE(at::equal(got.gradient, wanted.gradient)) << turn;
      EXPECT_TRUE(at::equal(input, before)) << turn;
      EXPECT_TRUE(at::equal(in_place->norm->running_mean, out_of_place->norm->running_mean)) << turn;
      EXPECT_EQ(in_place->norm->num_batches_tracked.item<std::int64_t>(),
                out_of_place->norm->num_batches_tracked.item<std::int64_t>());
    }
  }
}

TEST(LayerInputs, WhatIsChangedPastLibtorchsCountersIsSeenInTheFirstPass) {
  const at::Tensor input = torch::ones({2, 4});
  Stage stage = stage_of({Layer(std::make_shared<ChangesUnseen>())});
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_TRUE(at::equal(pass(stage, input).output, torch::full({2, 4}, 3)));
    EXPECT_TRUE(at::equal(input, torch::ones({2, 4})));
  }
}

TEST(LayerInputs, ALayerThatChangesAnInputOnlyLaterIsRefused) {
  Stage stage = stage_of({Layer(std::make_shared<ChangesSometimes>())});
  const at::Tensor input = torch::ones({2, 4});
  static_cast<void>(pass(stage, input));
  try {
    static_cast<void>(pass(stage, input));
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(),
                testing::HasSubstr("it changed its input 0 in place, which its first pass had left alone"));
  }
}

TEST(LayerInputs, ALayerThatChangesAnInputAndAParameterIsRefused) {
  Stage stage = stage_of({Layer(std::make_shared<ChangesItsWeightToo>())});
  try {
    static_cast<void>(pass(stage, torch::ones({2, 4})));
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(), testing::HasSubstr("it changes an input in place, and its parameter weight too"));
  }
}

// A module that keeps what it returned, and changes it when it is called again.
struct ChangesWhatItReturned : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) {
    const torch::NoGradGuard no_graph;
    if (last.defined()) last.mul_(2);
    {
      const torch::AutoGradMode graph(true);
      last = input * 1;
    }
    return last;
  }
  at::Tensor last;
};

TEST(LayerInputs, AnInputThatRecomputationKeepsAndThatWasChangedIsNamed) {
  Stage stage = [] {
    StageParts parts;
    parts.stage = {1};
    parts.first_layer = 1;
    parts.layers = {Layer(std::make_shared<ChangesWhatItReturned>()), Layer(std::make_shared<torch::nn::TanhImpl>())};
    parts.recompute = {false, true};
    return Stage(std::move(parts));
  }();
  stage.begin({.microbatches = 2});
  for (const std::int32_t microbatch : {0, 1})
    static_cast<void>(stage.forward({microbatch}, {torch::ones({2, 4}).requires_grad_()}, {}));
  try {
    static_cast<void>(stage.backward({0}, {torch::ones({2, 4})}));
    FAIL() << "it computed with a changed input";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::HasSubstr("an input that recomputation has kept was changed in place meanwhile"));
    EXPECT_EQ(stage.current_layer(), 2);
  }
}

TEST(Stage, ALossWithoutAGraphIsRefused) {
  StageParts parts;
  parts.layers.emplace_back(std::make_shared<torch::nn::LinearImpl>(4, 4));
  parts.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().detach().sum(), 1}; };
  Stage stage(std::move(parts));
  stage.begin({});
  try {
    static_cast<void>(stage.forward(only, {torch::zeros({1, 4})}, {}));
    FAIL() << "it trained nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(), testing::HasSubstr("a loss that no parameter leads to"));
  }
}

}  // namespace
}  // namespace penstock
