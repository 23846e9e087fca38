#include "penstock/pipeline/pipeline.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/optim/optimizer.h"
#include "penstock/schedule/generators.h"

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
  torch::manual_seed(1);
  Pipeline one(linear_network(4), schedule(1, 1), {});
  Pipeline cut(linear_network(4), schedule(4, 3), {});
  for (const std::int64_t samples : {1, 2, 3, 7}) {
    const at::Tensor input = torch::randn({samples, 4});
    const Loss expected = one.evaluate(input, torch::zeros({samples, 4}));
    const Loss got = cut.evaluate(input, torch::zeros({samples, 4}));
    EXPECT_EQ(got.weight, static_cast<double>(4 * samples));
    EXPECT_NEAR(got.sum.item<double>(), expected.sum.item<double>(), 1e-5);
    // Fewer rows in one product round otherwise in the last bit.
    EXPECT_TRUE(at::allclose(one.forward(input).front(), cut.forward(input).front(), 1e-5, 1e-6));
  }
}

TEST(Pipeline, MasksGiveTheMinibatchsGradientWhereMicrobatchesAreMaskedUnequally) {
  torch::manual_seed(1);
  Network network = linear_network(2);
  network.loss = [](const Tensors& outputs, const Tensors& masks) {
    return Loss{(outputs.front().square().sum(1) * masks.front()).sum(), masks.front().sum().item<double>()};
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

// Returns what it is told to for each microbatch: another number of tensors, or another dtype.
struct Moody : torch::nn::Module {
  explicit Moody(std::function<Tensors(const at::Tensor&)> the_mood) : mood(std::move(the_mood)) {}
  Tensors forward(const Tensors& inputs) const { return mood(inputs.front()); }
  std::function<Tensors(const at::Tensor&)> mood;
};

Network moody_network(const std::function<Tensors(const at::Tensor&)>& mood) {
  Network network = linear_network(3);
  network.layers[1] = {"moody", "", [mood] { return Layer(std::make_shared<Moody>(mood)); }};
  return network;
}

at::Tensor with_a_negative_third_sample() {
  at::Tensor input = torch::ones({4, 4});
  input[2] = -1;
  return input;
}

TEST(Pipeline, ALayerThatReturnsMoreTensorsThanTheNextTakesIsNamed) {
  Pipeline pipeline(moody_network([](const at::Tensor& input) { return Tensors{input, input}; }), schedule(3, 4), {});
  EXPECT_THAT([&] { pipeline.step(torch::ones({4, 4}), torch::ones({4, 4}), 0, 0.1); },
              ThrowsMessage<Error>(
                  AllOf(HasSubstr("stage 2, microbatch 0, action 2F0, layer 2"), HasSubstr("was given 2 tensors"))));
}

TEST(Pipeline, DtypesOrNumbersOfTensorsThatChangeBetweenMicrobatchesAreRefused) {
  const auto third = [](const at::Tensor& input) { return input.numel() == 4 && (input < 0).all().item<bool>(); };
  Network network = moody_network(
      [third](const at::Tensor& input) { return third(input) ? Tensors{input.to(at::kDouble)} : Tensors{input}; });
  network.layers[0] = layer_of<Fussy>("scale");
  network.layers[0].build = [] {
    return Layer(std::make_shared<Moody>([](const at::Tensor& input) { return Tensors{input}; }));
  };
  Pipeline pipeline(network, schedule(3, 4), {});
  EXPECT_THAT([&] { pipeline.step(with_a_negative_third_sample(), torch::ones({4, 4}), 0, 0.1); },
              ThrowsMessage<Error>(AllOf(HasSubstr("stage 1, microbatch 2"), HasSubstr("1 tensors (Double)"),
                                         HasSubstr("1 tensors (Float) before"))));
}

TEST(Pipeline, SkipsThatCannotBeAreRefused) {
  for (const auto& [skip, words] :
       {std::pair{Skip{2, 1, 0}, "reads a skip that layer 2 writes later"}, std::pair{Skip{0, 7, 0}, "layers 0 to 2"},
        std::pair{Skip{0, 2, -1}, "an output from 0"}}) {
    Network network = linear_network(3);
    network.skips.push_back(skip);
    EXPECT_THAT([&] { Pipeline(network, schedule(3, 4), {}); }, ThrowsMessage<Error>(HasSubstr(words)));
  }
  Network network = linear_network(3);
  network.skips.push_back({0, 2, 1});
  Pipeline pipeline(network, schedule(3, 4), {});
  EXPECT_THAT([&] { pipeline.step(torch::ones({4, 4}), torch::ones({4, 4}), 0, 0.1); },
              ThrowsMessage<Error>(HasSubstr("layer 2 reads output 1 of layer 0, which returned 1 tensors")));
}

TEST(Pipeline, ALossWithoutSumOrWeightIsRefused) {
  for (const auto& [loss, words] : {std::pair{Loss{{}, 1}, "the loss returned no tensor"},
                                    std::pair{Loss{torch::ones({1}), 0}, "the weight of step 3's minibatch is 0"},
                                    std::pair{Loss{torch::ones({1}), NAN}, "the loss returned the weight nan"}}) {
    Network network = linear_network(2);
    network.loss = [loss](const Tensors& outputs, const Tensors&) {
      return Loss{loss.sum.defined() ? outputs.front().sum() : loss.sum, loss.weight};
    };
    Pipeline pipeline(network, schedule(2, 2), {});
    EXPECT_THAT([&] { pipeline.step(torch::ones({2, 4}), torch::ones({2, 4}), 3, 0.1); },
                ThrowsMessage<Error>(HasSubstr(words)));
  }
}

TEST(Pipeline, WhatIsNotFiniteIsNamedWhereItIsSearchedFor) {
  PipelineSettings settings;
  settings.check_finite = true;
  Network network = moody_network([](const at::Tensor& input) { return Tensors{input / input.relu()}; });
  network.layers[0] = layer_of<Fussy>("scale");
  network.layers[0].build = [] {
    return Layer(std::make_shared<Moody>([](const at::Tensor& input) { return Tensors{input}; }));
  };
  Pipeline pipeline(network, schedule(3, 4), settings);
  EXPECT_THAT([&] { pipeline.step(with_a_negative_third_sample(), torch::ones({4, 4}), 0, 0.1); },
              ThrowsMessage<Error>(AllOf(HasSubstr("stage 1, microbatch 2, action 1F2, layer 1"),
                                         HasSubstr("layer 1: it returned a number that is not finite"))));
  network = linear_network(2);
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum() * NAN, 1}; };
  Pipeline unlucky(network, schedule(2, 2), settings);
  EXPECT_THAT(
      [&] { unlucky.step(torch::ones({2, 4}), torch::ones({2, 4}), 0, 0.1); },
      ThrowsMessage<Error>(AllOf(HasSubstr("stage 1, microbatch 0"), HasSubstr("the loss after layer 1 is nan"))));
}

// The gradient of a sum over samples that are cut along another dimension, with an argument that all share.
TEST(Pipeline, CutsAnyDimensionAndReplicatesWhatHoldsForAll) {
  torch::manual_seed(1);
  Network network = linear_network(2);
  struct Scaled : torch::nn::Module {
    Scaled() : weight(register_parameter("weight", torch::ones({4}))) {}
    Tensors forward(const Tensors& inputs) const { return {(inputs[0].t() * weight) * inputs[1]}; }
    at::Tensor weight;
  };
  network.layers = {layer_of<Scaled>("scaled"),
                    layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(4, 4))};
  const at::Tensor input = torch::randn({4, 6});  // [features, samples]
  const at::Tensor scale = torch::tensor({1.0F, 2.0F, 3.0F, 4.0F});
  const Minibatch minibatch{{{input, -1}, {scale, std::nullopt}}, {{torch::zeros({6, 4})}}};
  Pipeline whole(network, schedule(1, 1), {});
  Pipeline cut(network, schedule(2, 4), {});
  const StepResult expected = whole.step(split_minibatch(minibatch, 1), {0, 0.1, true});
  const StepResult got = cut.step(split_minibatch(minibatch, 4), {0, 0.1, true});
  EXPECT_NEAR(got.loss / expected.loss, 1, 1e-5);
  EXPECT_NEAR(got.gradient_norm / expected.gradient_norm, 1, 1e-5);
  ASSERT_EQ(got.losses.size(), 4U);
  EXPECT_EQ(got.losses[0].weight, 8);
  EXPECT_EQ(got.losses[3].weight, 4);
  EXPECT_TRUE(at::allclose(merge_outputs(got.outputs).front(), expected.outputs.front().front(), 1e-5, 1e-6));
}

TEST(Pipeline, RefusesMinibatchesThatCannotBeCut) {
  const at::Tensor six = torch::ones({6, 4});
  EXPECT_THAT([&] { return split_minibatch({{{six}}, {{torch::ones({5})}}}, 2); },
              ThrowsMessage<Error>(HasSubstr("tensors of 6 and of 5 samples")));
  EXPECT_THAT([&] { return split_minibatch({{{six, 2}}, {}}, 2); },
              ThrowsMessage<Error>(HasSubstr("dimension 2 of a tensor of 2 dimensions")));
  EXPECT_THAT([&] { return split_minibatch({{{six}}, {}}, 7); },
              ThrowsMessage<Error>(HasSubstr("6 samples for 7 microbatches")));
  EXPECT_THAT([&] { return split_minibatch({{{six}}, {}}, 0); }, ThrowsMessage<Error>(HasSubstr("at least 1")));
  Pipeline pipeline(linear_network(2), schedule(2, 4), {});
  EXPECT_THAT([&] { pipeline.step(split_minibatch({{{six}}, {{six}}}, 3), {}); },
              ThrowsMessage<Error>(HasSubstr("a minibatch in 3 parts")));
}

TEST(Pipeline, EvaluatesSeveralMinibatchesInFlight) {
  torch::manual_seed(1);
  for (const char* name : {"1f1b", "zb-v", "interleaved-1f1b", "dualpipe"}) {
    SCOPED_TRACE(name);
    const Schedule training = make_schedule(name, 2, 4);
    Pipeline one(linear_network(4), schedule(1, 1), {});
    Pipeline cut(linear_network(4), verify(training), {});
    std::vector<std::vector<Microbatch>> minibatches;
    for (const int samples : {5, 1, 8})
      minibatches.push_back(
          split_minibatch({{{torch::randn({samples, 4})}}, {{torch::randn({samples, 4})}}}, std::min(samples, 3)));
    const std::vector<Loss> expected = one.evaluate(minibatches);
    const std::vector<Loss> got = cut.evaluate(minibatches);
    ASSERT_EQ(got.size(), 3U);
    for (std::size_t index = 0; index < got.size(); ++index) {
      EXPECT_EQ(got[index].weight, expected[index].weight);
      EXPECT_EQ(got[index].sum.item<double>(), expected[index].sum.item<double>());
    }
  }
}

TEST(Pipeline, SequencesThatGoOnHaveTheOutputsOfWholeOnes) {
  torch::manual_seed(1);
  const Network network = make_gpt({32, 3, 16, 2, 8, 0, false});
  Pipeline pipeline(network, schedule(2, 2), {});
  const at::Tensor tokens = torch::randint(32, {2, 8}, at::kLong);
  const std::vector<Tensors> whole = pipeline.forward({{{tokens[0].unsqueeze(0)}, {}}, {{tokens[1].unsqueeze(0)}, {}}});
  using enum Sequences;
  for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{3, 1, 1, 3}, {1, 7}, {4, 4}}) {
    std::int64_t first = 0;
    for (const std::int64_t count : cuts) {
      std::vector<Microbatch> parts;
      for (const int sequence : {0, 1}) parts.push_back({{tokens[sequence].narrow(0, first, count).unsqueeze(0)}, {}});
      const std::vector<Tensors> got = pipeline.forward(parts, first == 0 ? Begin : Continue);
      for (const std::size_t sequence : {0U, 1U})
        EXPECT_TRUE(at::allclose(got[sequence].front(), whole[sequence].front().narrow(1, first, count), 1e-4, 1e-5));
      first += count;
    }
  }
}

TEST(Pipeline, ASequenceThatBeginsAnewIsThatOfOneThatIsAlone) {
  const Network network = make_gpt({32, 3, 16, 2, 8, 0, false});
  Pipeline together(network, schedule(2, 2), {});
  Pipeline alone(network, schedule(2, 2), {});
  const at::Tensor tokens = (at::arange(16) * 7).remainder(32).view({2, 8});
  const auto part = [&](std::int64_t sequence, std::int64_t first, std::int64_t count) {
    return Microbatch{{tokens[sequence].narrow(0, first, count).unsqueeze(0)}, {}};
  };
  using enum Sequences;
  static_cast<void>(together.forward({part(0, 0, 5), part(1, 0, 3)}, Begin));
  const std::vector<Tensors> got = together.forward({part(0, 2, 6), part(1, 3, 1)}, Continue, {true, false});
  EXPECT_TRUE(at::equal(got[0].front(), alone.forward({part(0, 2, 6)}, Begin).front().front()));
  static_cast<void>(alone.forward({part(1, 0, 3)}, Begin));
  EXPECT_TRUE(at::equal(got[1].front(), alone.forward({part(1, 3, 1)}, Continue).front().front()));
}

TEST(Pipeline, SequencesThatNobodyHasBegunDoNotGoOn) {
  Pipeline pipeline(make_gpt({32, 3, 16, 2, 8, 0, false}), schedule(2, 2), {});
  const std::vector<Microbatch> tokens(2, {{torch::zeros({1, 2}, at::kLong)}, {}});
  using enum Sequences;
  const auto go_on = [&] { return pipeline.forward(tokens, Continue); };
  EXPECT_THAT(go_on, ThrowsMessage<Error>(HasSubstr("2 sequences to go on with, of 0 that are remembered")));
  static_cast<void>(pipeline.forward(tokens, Begin));
  EXPECT_EQ(go_on().size(), 2U);
  static_cast<void>(pipeline.forward(tokens));
  EXPECT_THAT(go_on, ThrowsMessage<Error>(HasSubstr("of 0 that are remembered")));
}

// The reason to exist: what does not fit on one device is trained on four.
TEST(Pipeline, UnderAMemoryLimitANetworkThatFailsOnOneRankTrainsOnFour) {
  torch::manual_seed(1);
  const Network network = make_gpt({64, 6, 64, 2, 32, 0, false});
  const at::Tensor tokens = torch::randint(64, {8, 32}, at::kLong);
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.memory_limit = {5'000'000};
  EXPECT_THAT(
      [&] {
        Pipeline one(network, schedule(1, 8), settings);
        one.step(tokens, tokens, 0, 1e-3);
      },
      ThrowsMessage<Error>(HasSubstr("the memory limit of")));
  Pipeline four(network, schedule(4, 8), settings);
  const double before = four.step(tokens, tokens, 0, 1e-3).loss;
  EXPECT_LT(four.step(tokens, tokens, 1, 1e-3).loss, before);
  for (const StageReport& stage : four.report()) EXPECT_LE(stage.peak_memory, settings.memory_limit);
}

TEST(Pipeline, TheShortestScheduleOnSixtyFourRanksEndsTwoHundredTimes) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.optimizer.kind = OptimizerKind::Sgd;
  Pipeline pipeline(linear_network(64), schedule(64, 1), settings);
  const at::Tensor sample = torch::ones({1, 4});
  double loss = 0;
  for (int step = 0; step < 200; ++step) loss = pipeline.step(sample, sample, step, 1e-3).loss;
  EXPECT_TRUE(std::isfinite(loss));
}

TEST(Pipeline, CopiesOfTheStateStayAsTheyWereTaken) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  Pipeline pipeline(linear_network(3), schedule(3, 2), settings);
  const at::Tensor sample = torch::ones({2, 4});
  static_cast<void>(pipeline.step(sample, sample, 0, 0.1));
  const auto before = pipeline.weights();
  pipeline.begin_accounting();
  const Bytes held = pipeline.report()[1].peak_memory;
  std::vector<SavedStage> copies;
  pipeline.copy_state(copies);
  EXPECT_EQ(pipeline.report()[1].peak_memory, held) << "a copy is no rank's memory";
  const void* room = copies[1].tensors[0].tensor.const_data_ptr();
  static_cast<void>(pipeline.step(sample, sample, 1, 0.1));

  std::map<std::string, at::Tensor> by_name;
  for (const SavedStage& stage : copies)
    for (const NamedTensor& named : stage.tensors) by_name[named.name] = named.tensor;
  EXPECT_EQ(by_name.size(), 4 * before.size()) << "weights, two moments and a count of updates of each";
  for (const auto& [name, weight] : before) EXPECT_TRUE(at::equal(by_name.at(name), weight)) << name;

  pipeline.copy_state(copies);
  EXPECT_EQ(copies[1].tensors[0].tensor.const_data_ptr(), room) << "written over, not allocated anew";
  const auto after = pipeline.weights();
  EXPECT_FALSE(at::equal(after.front().second, before.front().second));
  EXPECT_TRUE(at::equal(copies[0].tensors[0].tensor, after.front().second) ||
              at::equal(copies[0].tensors[1].tensor, after.front().second));
}

TEST(Pipeline, ThatSomeProcessStillWritesIsKnownToAll) {
  Pipeline pipeline(linear_network(2), schedule(2, 2), {});
  const std::vector<Microbatch> minibatch = pipeline.cut(torch::ones({2, 4}), torch::ones({2, 4}));
  for (const bool saving : {true, false}) {
    UpdateSettings update;
    update.saving = saving;
    const StepResult result = pipeline.step(minibatch, update);
    EXPECT_EQ(result.saving, saving);
    EXPECT_EQ(result.stop_signal, 0);
  }
}

TEST(Pipeline, WhichSignalAsksForTheEndIsKnownToAll) {
  Pipeline pipeline(linear_network(2), schedule(2, 2), {});
  const std::vector<Microbatch> minibatch = pipeline.cut(torch::ones({2, 4}), torch::ones({2, 4}));
  for (const int signal : {0, 1, 2, 15}) {
    UpdateSettings update;
    update.stop_signal = signal;
    update.saving = signal == 2;
    const StepResult result = pipeline.step(minibatch, update);
    EXPECT_EQ(result.stop_signal, signal);
    EXPECT_EQ(result.saving, signal == 2);
  }
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

TEST(Optimizer, OfSgdWithoutMomentumTakesTheGradientAsItIs) {
  at::Tensor vector = torch::ones({2}, torch::requires_grad());
  OptimizerSettings settings;
  settings.kind = OptimizerKind::Sgd;
  settings.momentum = 0;
  Optimizer optimizer(settings, {{"vector", vector}});
  for (int update = 0; update < 2; ++update) {
    vector.mutable_grad() = torch::ones({2});
    optimizer.update(0.25);
  }
  EXPECT_EQ(vector[0].item<double>(), 0.5);
}

TEST(Optimizer, DecaysMatricesAndLeavesVectorsAlone) {
  for (const OptimizerKind kind : {OptimizerKind::AdamW, OptimizerKind::Sgd}) {
    at::Tensor matrix = torch::ones({2, 2}, torch::requires_grad());
    at::Tensor vector = torch::ones({2}, torch::requires_grad());
    OptimizerSettings settings;
    settings.kind = kind;
    Optimizer optimizer(settings, {{"matrix", matrix}, {"vector", vector}});
    matrix.mutable_grad() = torch::zeros({2, 2});
    vector.mutable_grad() = torch::zeros({2});
    optimizer.update(0.5);
    EXPECT_NEAR(matrix[0][0].item<double>(), 0.95, 1e-6) << word_of(kind);
    EXPECT_EQ(vector[0].item<double>(), 1) << word_of(kind);
  }
}

// A ReLU at a stage's end keeps what is sent: the sender's graph and the receiver let go of it in either order.
TEST(Pipeline, WhatARankHoldsDoesNotDriftWhereAGraphKeepsWhatIsSent) {
  for (const char* name : {"1f1b", "zb-h1", "gpipe"}) {
    PipelineSettings settings;
    settings.threads_per_rank = 1;
    Pipeline pipeline(make_mlp({.inputs = 16, .layers = 5, .width = 64}), verify(make_schedule(name, 3, 6)), settings);
    const at::Tensor input = torch::rand({48, 16});
    const at::Tensor target = torch::zeros({48}, torch::kLong);
    std::vector<std::vector<Bytes>> peaks;
    for (int step = 0; step < 8; ++step) {
      pipeline.begin_accounting();
      static_cast<void>(pipeline.step(input, target, step, 1e-3));
      peaks.push_back(pipeline.peak_memory());
    }
    for (std::size_t step = 3; step < peaks.size(); ++step)
      EXPECT_EQ(peaks[step], peaks[2]) << name << ", step " << step;
  }
}

}  // namespace
}  // namespace penstock
