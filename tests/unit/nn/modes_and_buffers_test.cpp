#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/buffers.h"
#include "penstock/nn/modes.h"

namespace penstock {
namespace {

// Counts how often it was told a mode.
struct Told : torch::nn::Module {
  void train(bool on) override {
    ++times;
    torch::nn::Module::train(on && !frozen);
  }
  at::Tensor forward(const at::Tensor& input) { return input; }
  bool frozen = false;
  int times = 0;
};

struct Nested : torch::nn::Module {
  Nested() {
    register_module("norm", norm);
    register_module("told", told);
    register_module("inner", inner);
    norm->eval();
    told->frozen = true;
    told->eval();
    told->times = 0;
  }
  at::Tensor forward(const at::Tensor& input) { return inner->forward(norm(input)); }
  torch::nn::BatchNorm1d norm{4};
  torch::nn::Sequential inner{torch::nn::Dropout(0.5), torch::nn::Dropout(0.5)};
  std::shared_ptr<Told> told = std::make_shared<Told>();
};

TEST(EvaluationScope, GivesEachModuleItsOwnModeBack) {
  const auto module = std::make_shared<Nested>();
  module->inner->children().front()->eval();
  const std::vector<Layer> layers{Layer(module)};
  {
    const EvaluationScope evaluation(layers);
    for (const auto& part : module->modules()) EXPECT_FALSE(part->is_training());
    module->norm->train();  // by the module itself: it does not outlive the evaluation
  }
  EXPECT_TRUE(module->is_training());
  EXPECT_FALSE(module->norm->is_training());
  EXPECT_FALSE(module->told->is_training());
  EXPECT_TRUE(module->inner->is_training());
  EXPECT_FALSE(module->inner->children().front()->is_training());
  EXPECT_TRUE(module->inner->children().back()->is_training());
}

TEST(EvaluationScope, ReachesModulesInTrainingBelowAFrozenOne) {
  const auto module = std::make_shared<Nested>();
  module->eval();
  module->inner->train();
  const std::vector<Layer> layers{Layer(module)};
  {
    const EvaluationScope evaluation(layers);
    EXPECT_FALSE(module->inner->is_training());
  }
  EXPECT_FALSE(module->is_training());
  EXPECT_TRUE(module->inner->is_training());
}

// A norm of one's own: moves its mean first, and then computes with it.
struct Centred : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) {
    {
      const at::NoGradGuard no_graph;
      if (by_data)
        mean.data().mul_(0.5).add_(input.mean(), 0.5);
      else
        mean.mul_(0.5).add_(input.mean(), 0.5);
    }
    if (replaces) mean.set_data(mean.repeat({2}).slice(0, 0, 2).clone());
    return input - mean[0];
  }
  bool by_data = false;
  bool replaces = false;
  at::Tensor mean = register_buffer("mean", at::zeros({1}));
  at::Tensor mask = register_buffer("mask", at::full({2}, std::numeric_limits<float>::quiet_NaN()));
};

at::Tensor pass(LayerBuffers& buffers, const Layer& layer, std::int64_t microbatch, const at::Tensor& input) {
  buffers.begin_pass(microbatch);
  at::Tensor output = layer.forward({input}).front();
  buffers.end_pass();
  return output;
}

at::Tensor input_of(std::int64_t microbatch) { return at::arange(8).to(at::kFloat).view({2, 4}) + 10 * microbatch; }

template <class Module>
void expect_second_runs_to_change_nothing(const std::shared_ptr<Module>& module) {
  const Layer layer(module);
  LayerBuffers buffers(layer, 0, {.recomputed = true, .copied = false});
  buffers.begin_step();
  std::vector<at::Tensor> outputs;
  outputs.reserve(3);
  for (std::int64_t microbatch = 0; microbatch < 3; ++microbatch)
    outputs.push_back(pass(buffers, layer, microbatch, input_of(microbatch)).detach());
  std::vector<at::Tensor> before;
  for (const at::Tensor& buffer : module->buffers()) before.push_back(buffer.clone());
  for (const std::int64_t microbatch : {0, 2, 1}) {
    const RecomputeScope again;
    const at::Tensor input = input_of(microbatch).requires_grad_();
    const at::Tensor output = pass(buffers, layer, microbatch, input);
    EXPECT_TRUE(at::equal(output, outputs[static_cast<std::size_t>(microbatch)]));
    output.square().sum().backward();  // what the graph keeps is whole
    EXPECT_TRUE(input.grad().defined());
    for (std::size_t index = 0; index < before.size(); ++index)
      EXPECT_TRUE(at::allclose(module->buffers()[index], before[index], 0, 0, /*equal_nan=*/true));
  }
}

TEST(LayerBuffers, ASecondRunSeesWhatItsFirstOneSawAndLeavesNothing) {
  expect_second_runs_to_change_nothing(std::make_shared<Centred>());
  const auto by_data = std::make_shared<Centred>();
  by_data->by_data = true;  // of which autograd hears nothing
  expect_second_runs_to_change_nothing(by_data);
  expect_second_runs_to_change_nothing(std::make_shared<torch::nn::BatchNorm1dImpl>(4));
}

TEST(LayerBuffers, RefuseAChangeThatCopiesWouldNotShare) {
  for (const bool by_data : {false, true}) {
    const auto module = std::make_shared<Centred>();
    module->by_data = by_data;
    const Layer layer(module);
    LayerBuffers buffers(layer, 3, {.recomputed = false, .copied = true});
    buffers.begin_step();
    EXPECT_THAT([&] { static_cast<void>(pass(buffers, layer, 0, input_of(0))); },
                testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("layer 3 changes its buffer mean"),
                                                             testing::HasSubstr("DeferredBatchNorm"))));
  }
}

TEST(LayerBuffers, LetBuffersBeThatNothingChanges) {
  const auto norm = std::make_shared<torch::nn::BatchNorm1dImpl>(4);
  norm->eval();
  const Layer layer(norm);
  LayerBuffers buffers(layer, 3, {.recomputed = true, .copied = true});
  buffers.begin_step();
  for (const std::int64_t microbatch : {0, 2, 1})
    EXPECT_NO_THROW(static_cast<void>(pass(buffers, layer, microbatch, input_of(microbatch))));
  EXPECT_NO_THROW(check_copied(layer, 3));
  norm->train();
  EXPECT_THAT([&] { check_copied(layer, 3); }, testing::ThrowsMessage<Error>(testing::HasSubstr("BatchNorm1d")));
}

TEST(LayerBuffers, RefuseMicrobatchesInAnotherOrderWhereTheyChangeABuffer) {
  const Layer layer(std::make_shared<Centred>());
  LayerBuffers buffers(layer, 3, {});
  buffers.begin_step();
  static_cast<void>(pass(buffers, layer, 1, input_of(1)));
  EXPECT_THAT([&] { static_cast<void>(pass(buffers, layer, 0, input_of(0))); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("order")));
  buffers.begin_step();
  EXPECT_NO_THROW(static_cast<void>(pass(buffers, layer, 0, input_of(0))));
}

TEST(LayerBuffers, RefuseAnotherTensorInPlaceOfABufferWhereAPassIsToRunAgain) {
  const auto module = std::make_shared<Centred>();
  module->replaces = true;
  const Layer layer(module);
  LayerBuffers buffers(layer, 3, {.recomputed = true, .copied = false});
  buffers.begin_step();
  EXPECT_THAT([&] { static_cast<void>(pass(buffers, layer, 0, input_of(0))); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("in place of its buffer mean")));
}

TEST(LayerBuffers, RefuseAParameterThatAPassChangesWhereItIsToRunAgainOrCopied) {
  // It scales the rows that it looks up, in place.
  const Layer layer(std::make_shared<torch::nn::EmbeddingImpl>(torch::nn::EmbeddingOptions(8, 4).max_norm(0.1)));
  const at::Tensor tokens = at::arange(4);
  for (const BufferUse& use : {BufferUse{true, false}, BufferUse{false, true}}) {
    const at::NoGradGuard no_graph;
    layer.module().parameters().front().fill_(1);
    LayerBuffers buffers(layer, 3, use);
    buffers.begin_step();
    EXPECT_THAT([&] { static_cast<void>(pass(buffers, layer, 0, tokens)); },
                testing::ThrowsMessage<Error>(testing::HasSubstr("layer 3 changes its parameter weight")));
  }
  LayerBuffers buffers(layer, 3, {});
  EXPECT_NO_THROW(static_cast<void>(pass(buffers, layer, 0, tokens)));
}

}  // namespace
}  // namespace penstock
