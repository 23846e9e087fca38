#include "penstock/train/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/train/optimizer.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Passes everything until it sees a negative number in training.
struct Fussy : torch::nn::Module {
  Fussy() : weight(register_parameter("weight", torch::ones({1}))) {}
  at::Tensor forward(const at::Tensor& input) {
    if (input.min().item<double>() < 0) throw std::runtime_error("a negative number");
    return input * weight;
  }
  at::Tensor weight;
};

Network linear_network(int layers) {
  Network network;
  for (int layer = 0; layer < layers; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(4, 4)));
  network.loss = squared_error;
  return network;
}

VerifiedSchedule schedule(int stages, int microbatches) { return verify(one_f_one_b_schedule(stages, microbatches)); }

TEST(Pipeline, AFailureNamesRankStageMicrobatchAndActionAndStopsEveryRank) {
  Network network = linear_network(1);
  for (int layer = 0; layer < 3; ++layer) network.layers.push_back(layer_of<Fussy>("fussy"));
  network.layers[0] = layer_of<Fussy>("fussy");
  Pipeline pipeline(network, schedule(4, 4), {});
  at::Tensor input = torch::ones({4, 4});
  static_cast<void>(pipeline.step(input, input, 0, 0.1));
  input[2] = -1;
  EXPECT_THAT([&] { pipeline.step(input, input, 1, 0.1); },
              ThrowsMessage<Error>(
                  AllOf(HasSubstr("rank 0, stage 0, microbatch 2, action 0F2"), HasSubstr("a negative number"))));
  EXPECT_THAT([&] { pipeline.step(input, input, 1, 0.1); }, ThrowsMessage<Error>(HasSubstr("has failed before")));
}

TEST(Pipeline, ALayersOwnErrorIsOneLineWithoutBacktrace) {
  const Network network = linear_network(2);
  Pipeline pipeline(network, schedule(2, 1), {});
  try {
    pipeline.step(torch::ones({1, 3}), torch::ones({1, 4}), 0, 0.1);
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::RunFailed);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

TEST(Pipeline, ALossThatIsNotFiniteStopsTheRun) {
  Pipeline pipeline(linear_network(2), schedule(2, 2), {});
  EXPECT_THAT([&] { pipeline.step(torch::full({2, 4}, 1e30), torch::zeros({2, 4}), 7, 0.1); },
              ThrowsMessage<Error>(AllOf(HasSubstr("step 7"), HasSubstr("inf"))));
}

TEST(Pipeline, AFailureWhileBuildingStopsEveryRank) {
  Network network = linear_network(3);
  network.layers[1].build = []() -> Layer { throw std::runtime_error("no weights to be had"); };
  EXPECT_THAT([&] { Pipeline(network, schedule(3, 2), {}); }, ThrowsMessage<std::exception>(HasSubstr("no weights")));
}

TEST(Pipeline, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Pipeline(linear_network(2), schedule(3, 2), {}), Error);
  PipelineSettings settings;
  settings.cut = {0, 2, 1};
  EXPECT_THROW(Pipeline(linear_network(4), schedule(3, 2), settings), Error);
  Network network = linear_network(2);
  network.loss = nullptr;
  EXPECT_THROW(Pipeline(network, schedule(2, 2), {}), Error);
  network = linear_network(2);
  network.ties.push_back({{0, "weight"}, {1, "wieght"}});
  EXPECT_THROW(Pipeline(network, schedule(2, 2), {}), Error);
  Pipeline pipeline(linear_network(2), schedule(2, 4), {});
  EXPECT_THROW(pipeline.step(torch::ones({3, 4}), torch::ones({3, 4}), 0, 0.1), Error);
}

TEST(Pipeline, EvaluatesAndForwardsAnyNumberOfSamples) {
  Pipeline one(linear_network(4), schedule(1, 1), {});
  Pipeline cut(linear_network(4), schedule(4, 3), {});
  for (const std::int64_t samples : {1, 2, 3, 7}) {
    const at::Tensor input = torch::randn({samples, 4});
    const Loss expected = one.evaluate(input, torch::zeros({samples, 4}));
    const Loss got = cut.evaluate(input, torch::zeros({samples, 4}));
    EXPECT_EQ(got.weight, static_cast<double>(samples));
    EXPECT_NEAR(got.sum.item<double>(), expected.sum.item<double>(), 1e-5);
    EXPECT_TRUE(at::allclose(one.forward(input).front(), cut.forward(input).front()));
  }
}

TEST(Pipeline, MasksGiveTheMinibatchsGradientWhereMicrobatchesAreMaskedUnequally) {
  Network network = linear_network(2);
  network.loss = [](const Tensors& outputs, const at::Tensor& mask) {
    return Loss{(outputs.front().square().sum(1) * mask).sum(), mask.sum().item<double>()};
  };
  const at::Tensor input = torch::randn({4, 4});
  const at::Tensor mask = torch::tensor({1.0, 0.0, 0.0, 0.0});
  Pipeline whole(network, schedule(1, 1), {});
  Pipeline cut(network, schedule(2, 4), {});
  const StepResult expected = whole.step(input, mask, 0, 0.1);
  const StepResult got = cut.step(input, mask, 0, 0.1);
  EXPECT_EQ(got.weight, 1);
  EXPECT_NEAR(got.loss / expected.loss, 1, 1e-5);
  EXPECT_NEAR(got.gradient_norm / expected.gradient_norm, 1, 1e-5);
}

TEST(Pipeline, ReportsAndTimelinesCoverEveryStageAndAction) {
  Pipeline pipeline(linear_network(3), schedule(3, 5), {});
  const StepResult result = pipeline.step(torch::ones({5, 4}), torch::ones({5, 4}), 0, 0.1);
  ASSERT_EQ(result.timeline.ranks.size(), 3U);
  for (const auto& events : result.timeline.ranks) {
    EXPECT_EQ(
        std::count_if(events.begin(), events.end(), [](const Event& event) { return is_compute(event.action.kind); }),
        10);
    for (std::size_t index = 0; index + 1 < events.size(); ++index)
      EXPECT_LE(events[index].end.count, events[index + 1].start.count);
  }
  const auto reports = pipeline.report();
  for (int stage = 0; stage < 3; ++stage) {
    EXPECT_EQ(reports[static_cast<std::size_t>(stage)].stage, stage);
    EXPECT_EQ(reports[static_cast<std::size_t>(stage)].parameters, 20);
    EXPECT_GT(reports[static_cast<std::size_t>(stage)].peak_memory.count, 0);
  }
  EXPECT_EQ(reports[0].sent.count, 5 * 4 * 4);
  EXPECT_EQ(reports[1].sent.count, 2 * 5 * 4 * 4);
}

TEST(LearningRate, WarmsUpLinearlyAndEndsAtItsShare) {
  const LearningRate rate{1, 10, 110, 0.1};
  EXPECT_DOUBLE_EQ(rate.at(0), 0.1);
  EXPECT_DOUBLE_EQ(rate.at(9), 1);
  EXPECT_DOUBLE_EQ(rate.at(10), 1);
  EXPECT_NEAR(rate.at(60), 0.55, 1e-12);
  EXPECT_NEAR(rate.at(110), 0.1, 1e-12);
  EXPECT_NEAR(rate.at(1000), 0.1, 1e-12);
}

TEST(Optimizer, DecaysMatricesAndLeavesVectorsAlone) {
  for (const char* kind : {"adamw", "sgd"}) {
    at::Tensor matrix = torch::ones({2, 2}, torch::requires_grad());
    at::Tensor vector = torch::ones({2}, torch::requires_grad());
    OptimizerSettings settings;
    settings.kind = kind;
    Optimizer optimizer(settings, {{"matrix", matrix}, {"vector", vector}});
    matrix.mutable_grad() = torch::zeros({2, 2});
    vector.mutable_grad() = torch::zeros({2});
    optimizer.update(0.5);
    EXPECT_NEAR(matrix[0][0].item<double>(), 0.95, 1e-6) << kind;
    EXPECT_EQ(vector[0].item<double>(), 1) << kind;
  }
}

}  // namespace
}  // namespace penstock
