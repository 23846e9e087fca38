#include "penstock/exec/stage.h"

#include <gtest/gtest.h>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"

namespace penstock {
namespace {

constexpr MicrobatchId first{0};

// Two gpt blocks between other stages, or with a loss at their end.
Stage make_stage(bool with_loss) {
  const Network network = make_gpt({32, 2, 16, 2, 8, 0, false});
  StageParts parts;
  parts.stage = {1};
  parts.first_layer = 1;
  for (const std::int64_t layer : {1, 2}) parts.layers.push_back(build_layer(network, layer, 3, at::kCPU));
  if (with_loss) parts.loss = squared_error;
  return Stage(std::move(parts));
}

// As it comes from the stage before.
at::Tensor leaf(const at::Tensor& tensor) { return tensor.detach().requires_grad_(); }

std::vector<at::Tensor> weight_gradients(Stage& stage) {
  std::vector<at::Tensor> gradients;
  for (const Layer& layer : stage.layers())
    for (const at::Tensor& parameter : layer.module().parameters())
      gradients.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
  return gradients;
}

class SplitBackward : public testing::TestWithParam<bool> {};

TEST_P(SplitBackward, IsTheWholeBackwardToTheBit) {
  torch::manual_seed(1);
  const at::Tensor input = torch::randn({2, 8, 16});
  const at::Tensor target = torch::randn({2, 8, 16});
  const Tensors gradient = GetParam() ? Tensors{} : Tensors{torch::randn({2, 8, 16})};
  Stage whole = make_stage(GetParam());
  Stage split = make_stage(GetParam());
  for (Stage* stage : {&whole, &split}) {
    stage->begin({});
    static_cast<void>(stage->forward(first, {leaf(input)}, {target}));
  }
  const Tensors from_whole = whole.backward(first, gradient);
  const Tensors from_split = split.input_backward(first, gradient);
  EXPECT_TRUE(at::equal(from_whole.at(0), from_split.at(0)));
  for (const at::Tensor& none : weight_gradients(split))
    EXPECT_FALSE(none.defined()) << "I computes no weight gradient";
  split.weight_backward(first);
  const auto expected = weight_gradients(whole);
  const auto got = weight_gradients(split);
  ASSERT_EQ(expected.size(), got.size());
  for (std::size_t index = 0; index < expected.size(); ++index) EXPECT_TRUE(at::equal(expected[index], got[index]));
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutLoss, SplitBackward, testing::Bool());

TEST(Stage, EvaluationKeepsNoGraphAndChangesNoGradient) {
  Stage stage = make_stage(false);
  stage.begin({.training = false});
  const Tensors outputs = stage.forward(first, {torch::randn({2, 8, 16})}, {});
  EXPECT_FALSE(outputs.at(0).requires_grad());
  for (const at::Tensor& gradient : weight_gradients(stage)) EXPECT_FALSE(gradient.defined());
}

TEST(Stage, ALossOfSeveralElementsIsRefused) {
  StageParts parts;
  parts.layers.emplace_back(std::make_shared<torch::nn::LinearImpl>(2, 2));
  parts.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front(), 1}; };
  Stage stage(std::move(parts));
  stage.begin({});
  EXPECT_THROW(static_cast<void>(stage.forward(first, {torch::zeros({1, 2})}, {torch::zeros({1})})), Error);
}

}  // namespace
}  // namespace penstock
