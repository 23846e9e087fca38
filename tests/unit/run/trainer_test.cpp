// A network of one's own, trained into a folder as the built-in ones are.
#include "penstock/run/trainer.h"

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/data/order.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"

namespace penstock::trainer_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;
namespace fs = std::filesystem;

constexpr std::int64_t width = 4;
constexpr std::int64_t rows = 40;

// Two tensors in, a tuple out: as people write modules.
struct Mixed : torch::nn::Module {
  Mixed() { linear = register_module("linear", torch::nn::Linear(width, width)); }
  std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& a, const at::Tensor& b) {
    return {torch::tanh(linear(a)) + b, b};
  }
  torch::nn::Linear linear{nullptr};
};

struct Joined : torch::nn::Module {
  Joined() { linear = register_module("linear", torch::nn::Linear(width, 1)); }
  at::Tensor forward(const at::Tensor& a, const at::Tensor& b) { return linear(a * b); }
  torch::nn::Linear linear{nullptr};
};

Network network_of_four() {
  Network network;
  for (int layer = 0; layer < 3; ++layer) network.layers.push_back(layer_of<Mixed>("mixed"));
  network.layers.push_back(layer_of<Joined>("joined"));
  network.loss = [](const Tensors& outputs, const Tensors& targets) {
    return Loss{(targets[1] * (outputs[0] - targets[0]).square()).sum(), targets[1].sum().item<double>()};
  };
  return network;
}

// Two inputs, a target and a weight.
std::shared_ptr<const Samples> samples(std::int64_t first, std::int64_t count) {
  const at::Tensor all = at::arange(rows * width, at::kFloat).reshape({rows, width}).slice(0, first, first + count);
  return samples_of({torch::sin(all), torch::cos(all)},
                    {torch::sin(all.select(1, 0) * 3).unsqueeze(1), torch::ones({count, 1})});
}

Training training() { return {network_of_four(), samples(0, 32), samples(32, 8)}; }

class OwnNetwork : public testing::Test {
 protected:
  void SetUp() override { fs::remove_all(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  TrainSettings settings(const std::string& out, int stages, std::int64_t steps = 6) const {
    TrainSettings settings;
    settings.layout.stages = stages;
    settings.layout.microbatches = 4;
    settings.training.batch = 8;
    settings.training.steps = steps;
    settings.training.warmup = 2;
    settings.output.eval_every = 2;
    settings.output.checkpoint_every = 3;
    settings.output.folder = (folder_ / out).string();
    return settings;
  }

  static std::vector<std::string> lines_of(const fs::path& file) {
    std::ifstream text(file);
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }

  const fs::path folder_ = fs::temp_directory_path() / ("penstock-trainer-" + std::to_string(::getpid()));
};

void expect_same_weights(Pipeline& one, Pipeline& other) {
  const auto expected = one.weights();
  const auto got = other.weights();
  ASSERT_EQ(expected.size(), got.size());
  ASSERT_FALSE(expected.empty());
  for (std::size_t index = 0; index < expected.size(); ++index) {
    EXPECT_EQ(expected[index].first, got[index].first);
    EXPECT_TRUE(at::equal(expected[index].second, got[index].second)) << expected[index].first;
  }
}

TEST_F(OwnNetwork, HasTheBitsOfALoopOverAPipeline) {
  const TrainSettings told = settings("run", 2);
  Training own = training();
  own.rules = {{"*.bias", 0.0, 0.5}};
  own.learning_rate = [](std::int64_t step) { return 0.01 / static_cast<double>(step + 1); };
  std::vector<StepMetrics> seen;
  TrainObserver observer;
  observer.on_step = [&](const StepMetrics& metrics) { seen.push_back(metrics); };
  const TrainResult result = train(own, told, observer);

  PipelineSettings by_hand;
  by_hand.seed = told.training.seed;
  by_hand.clip_norm = told.training.clip;
  by_hand.optimizer = {told.training.optimizer,
                       told.training.weight_decay,
                       told.training.momentum,
                       told.training.beta1,
                       told.training.beta2,
                       told.training.epsilon,
                       own.rules};
  Pipeline pipeline(network_of_four(), verify(one_f_one_b_schedule(1, 4)), by_hand);
  for (std::int64_t step = 0; step < 6; ++step) {
    const Minibatch minibatch = own.train->minibatch(samples_of_step(32, step, 8, told.training.seed));
    const StepResult by_loop = pipeline.step(split_minibatch(minibatch, 4), {step, own.learning_rate(step)});
    EXPECT_EQ(seen.at(static_cast<std::size_t>(step)).loss, by_loop.loss);
    EXPECT_EQ(seen.at(static_cast<std::size_t>(step)).learning_rate, own.learning_rate(step));
  }
  Pipeline trained = trained_pipeline(told.output.folder, network_of_four());
  expect_same_weights(pipeline, trained);
  EXPECT_EQ(result.step, 6);
  EXPECT_TRUE(seen.at(1).held_out_loss.has_value());
  EXPECT_EQ(result.held_out_loss, evaluate_run(told.output.folder, network_of_four(), *samples(32, 8)).loss);
  EXPECT_EQ(evaluate_run(told.output.folder, network_of_four(), *samples(32, 8), 3).samples, 3);
  EXPECT_EQ(lines_of(folder_ / "run" / "metrics.jsonl").size(), 6U);
  EXPECT_THAT(lines_of(folder_ / "run" / "config.toml"), testing::Contains(HasSubstr("model = \"own\"")));
}

TEST_F(OwnNetwork, GoesOnOnOtherStagesToTheSameBits) {
  static_cast<void>(train(training(), settings("whole", 1)));
  TrainObserver observer;
  int steps = 0;
  observer.on_step = [&](const StepMetrics&) { ++steps; };
  observer.stop_signal = [&] { return steps == 2 ? SIGTERM : 0; };
  TrainSettings told = settings("stopped", 2);
  told.output.resume = true;  // there is nothing to go on with yet
  const TrainResult stopped = train(training(), told, observer);
  EXPECT_EQ(stopped.stop_signal, SIGTERM);
  EXPECT_EQ(stopped.step, 3);
  told.layout.stages = 4;
  told.layout.schedule = "zb-h1";
  EXPECT_EQ(train(training(), told).step, 6);
  Pipeline one = trained_pipeline(folder_ / "whole", network_of_four());
  Pipeline other = trained_pipeline(folder_ / "stopped", network_of_four());
  expect_same_weights(one, other);
}

TEST_F(OwnNetwork, IsMeasuredAndPlannedWhereTheSettingsSayAuto) {
  TrainSettings told = settings("auto", 1, 2);
  told.layout.schedule = automatic;
  told.layout.cut = automatic;
  told.layout.microbatches = automatic;
  told.layout.ranks = 2;
  std::vector<std::string> notes;
  TrainObserver observer;
  observer.on_note = [&](const std::string& note) { notes.push_back(note); };
  const TrainResult result = train(training(), told, observer);
  EXPECT_EQ(result.step, 2);
  EXPECT_FALSE(result.planned.empty());
  EXPECT_TRUE(fs::exists(folder_ / "auto" / "plan.toml"));
  EXPECT_TRUE(fs::exists(folder_ / "auto" / "cost.json"));
  EXPECT_THAT(notes, testing::Contains(HasSubstr("planned: ")));
}

TEST_F(OwnNetwork, RecomputesWhatIsSelectedByItsSamples) {
  TrainSettings told = settings("selected", 2, 2);
  told.layout.recompute = Recompute::Selected;
  EXPECT_EQ(train(training(), told).step, 2);
}

TEST_F(OwnNetwork, IsRefusedWhereSettingsAreOfOthers) {
  const auto refused = [&](auto change) {
    return [this, change] {
      TrainSettings told = settings("refused", 2);
      change(told);
      static_cast<void>(train(training(), told));
    };
  };
  EXPECT_THAT(refused([](TrainSettings& told) { told.model.width = 64; }),
              ThrowsMessage<Error>(HasSubstr("setting width")));
  EXPECT_THAT(refused([](TrainSettings& told) { told.data.paths = {"x"}; }),
              ThrowsMessage<Error>(HasSubstr("setting data")));
  EXPECT_THAT(refused([](TrainSettings& told) { told.data.held_out = 0.2; }),
              ThrowsMessage<Error>(HasSubstr("setting held-out")));
  EXPECT_THAT(refused([](TrainSettings& told) { told.layout.stages = 9; }),
              ThrowsMessage<Error>(HasSubstr("9 stages")));
  EXPECT_THAT(refused([](TrainSettings& told) { told.output.folder = ""; }),
              ThrowsMessage<Error>(HasSubstr("a folder")));
  EXPECT_THAT([&] { train(Training{network_of_four(), nullptr}, settings("refused", 2)); },
              ThrowsMessage<Error>(HasSubstr("without samples")));
  EXPECT_FALSE(fs::exists(folder_ / "refused"));
}

TEST_F(OwnNetwork, IsToldFromOthers) {
  static_cast<void>(train(training(), settings("run", 2, 1)));
  Network longer = network_of_four();
  longer.layers.insert(longer.layers.begin(), layer_of<Mixed>("mixed"));
  EXPECT_THAT([&] { static_cast<void>(trained_pipeline(folder_ / "run", longer)); },
              ThrowsMessage<Error>(HasSubstr("`layers` is 5, the checkpoint's is 4")));
  Network other = network_of_four();
  other.layers[3] = layer_of<torch::nn::BilinearImpl>("other", torch::nn::BilinearOptions(width, width, 1));
  EXPECT_THAT([&] { static_cast<void>(trained_pipeline(folder_ / "run", other)); },
              ThrowsMessage<Error>(HasSubstr("layers.3.")));
  EXPECT_THAT([&] { static_cast<void>(evaluate_run(folder_ / "run", std::vector<std::string>{"x"}, 0)); },
              ThrowsMessage<Error>(HasSubstr("a program's own")));
  TrainSettings built_in;
  built_in.model.kind = ModelKind::Own;
  EXPECT_THAT([&] { check_settings(built_in); }, ThrowsMessage<Error>(HasSubstr("a program's own")));
}

TEST(SamplesOf, RowsComeInTheOrderOfTheirNumbers) {
  const auto rows_of = samples_of({at::arange(6).reshape({3, 2})}, {at::arange(3) * 10});
  const std::vector<std::int64_t> numbers{2, 0, 2};
  const Minibatch minibatch = rows_of->minibatch(numbers);
  EXPECT_EQ(rows_of->size(), 3);
  EXPECT_TRUE(at::equal(minibatch.inputs.at(0).tensor, at::tensor({4, 5, 0, 1, 4, 5}, at::kLong).reshape({3, 2})));
  EXPECT_TRUE(at::equal(minibatch.targets.at(0).tensor, at::tensor({20, 0, 20}, at::kLong)));
}

// As a user has one.
struct Squares : torch::data::datasets::Dataset<Squares> {
  torch::data::Example<> get(std::size_t index) override {
    const auto number = static_cast<float>(index);
    return {at::full({2}, number), at::full({1}, number * number)};
  }
  std::optional<std::size_t> size() const override { return 5; }
};

TEST(SamplesOf, ExamplesOfALibtorchDatasetAreStacked) {
  const auto squares = samples_of(Squares());
  const std::vector<std::int64_t> numbers{4, 1};
  const Minibatch minibatch = squares->minibatch(numbers);
  EXPECT_EQ(squares->size(), 5);
  EXPECT_TRUE(at::equal(minibatch.inputs.at(0).tensor, at::tensor({4.F, 4.F, 1.F, 1.F}).reshape({2, 2})));
  EXPECT_TRUE(at::equal(minibatch.targets.at(0).tensor, at::tensor({16.F, 1.F}).reshape({2, 1})));
}

TEST(SamplesOf, FilesAreOpenedInTwoSplits) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "open_samples.txt";
  std::ofstream(file) << std::string(80, 'a') + std::string(20, 'b');
  TrainSettings::Data data;
  data.paths = {file.string()};
  data.kind = DataKind::Text;
  data.context = 4;
  data.held_out = 0.2;
  const FileSamples samples = open_samples(data);
  EXPECT_EQ(samples.classes, 256);
  ASSERT_NE(samples.held_out, nullptr);
  const std::vector<std::int64_t> numbers{0};
  const Minibatch trained = samples.train->minibatch(numbers);
  const Minibatch held_out = samples.held_out->minibatch(numbers);
  EXPECT_TRUE(at::equal(trained.inputs.at(0).tensor, at::full({1, 4}, 'a', at::kLong)));
  EXPECT_TRUE(at::equal(held_out.targets.at(0).tensor, at::full({1, 4}, 'b', at::kLong)));
  data.held_out = 0;
  EXPECT_EQ(open_samples(data).held_out, nullptr);
}

TEST(SamplesOf, WhatHasNoRowsIsRefused) {
  EXPECT_THAT([] { static_cast<void>(samples_of(Tensors{}, {})); },
              ThrowsMessage<Error>(HasSubstr("without an input")));
  EXPECT_THAT([] { static_cast<void>(samples_of({at::ones({3, 1})}, {at::ones({4})})); },
              ThrowsMessage<Error>(AllOf(HasSubstr("3 rows"), HasSubstr("4 in another"))));
  EXPECT_THAT([] { static_cast<void>(samples_of({at::ones({})}, {})); }, ThrowsMessage<Error>(HasSubstr("rows")));
  EXPECT_THAT([] { static_cast<void>(samples_of(0, [](auto) { return Minibatch{}; })); },
              ThrowsMessage<Error>(HasSubstr("0 samples")));
}

// A module whose forward is of the wrong kind is no layer; `Layer` says so in words.
struct TakesANumber : torch::nn::Module {
  at::Tensor forward(int number) { return at::ones({number}); }
};
struct ChangesItsArgument : torch::nn::Module {
  at::Tensor forward(at::Tensor& input) { return input; }
};
struct ReturnsText : torch::nn::Module {
  std::string forward(const at::Tensor& input) { return input.toString(); }
};
static_assert(LayerModule<Mixed> && LayerModule<torch::nn::LSTMImpl> && LayerModule<torch::nn::MultiheadAttentionImpl>);
static_assert(!LayerModule<TakesANumber> && !LayerModule<ChangesItsArgument> && !LayerModule<ReturnsText>);

TEST(LayerForms, TensorsGoToTheirPlacesAndTuplesComeBackInOrder) {
  const at::Tensor a = at::ones({1, width});
  const at::Tensor b = at::full({1, width}, 2.0);
  const Tensors mixed = Layer(std::make_shared<Mixed>()).forward({a, b});
  ASSERT_EQ(mixed.size(), 2U);
  EXPECT_TRUE(at::equal(mixed[1], b));
  // Output, hidden state and cell state.
  EXPECT_EQ(Layer(std::make_shared<torch::nn::LSTMImpl>(width, width)).forward({at::ones({3, 1, width})}).size(), 3U);
  EXPECT_THAT([&] { static_cast<void>(Layer(std::make_shared<Mixed>()).forward({a, b, a})); },
              ThrowsMessage<Error>(HasSubstr("given 3 tensors")));
}

}  // namespace
}  // namespace penstock::trainer_test
