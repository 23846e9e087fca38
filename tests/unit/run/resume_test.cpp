// Checkpoints of what the optimizer counts: resumed on another number of stages, with and without shards.
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <unistd.h>

#include <torch/torch.h>

#include "penstock/checkpoint/checkpoint.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace penstock::resume_test {
namespace {

constexpr std::int64_t width = 4;
using Weights = std::map<std::string, at::Tensor>;

// One matrix takes part where its input is large.
struct Sometimes : torch::nn::Module {
  Sometimes()
      : always(register_parameter("always", at::randn({width, width}) * 0.5)),
        sometimes(register_parameter("sometimes", at::randn({width, width}).t() * 0.5)) {}
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor hidden = torch::tanh(at::matmul(input, always));
    return input.abs().max().item<double>() > 2 ? hidden + at::matmul(input, sometimes) : hidden;
  }
  at::Tensor always;
  at::Tensor sometimes;
};

Network network_of_four() {
  Network network;
  network.layers = {layer_of<Sometimes>("sometimes"),
                    layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(width, width)),
                    layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(width, width)),
                    layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(width, width))};
  network.loss = squared_error;
  return network;
}

Pipeline pipeline(const std::string& schedule, int ranks, bool shard = false) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.shard_optimizer = shard;
  return {network_of_four(), verify(make_schedule(schedule, ranks, 2)), settings};
}

// Every other step is large enough.
void train(Pipeline& pipeline, int from, int to) {
  for (int step = from; step < to; ++step) {
    const at::Tensor input = at::full({2, width}, step % 2 == 0 ? 1.0 : 3.0);
    static_cast<void>(pipeline.step(input, at::ones({2, width}), step, 0.05));
  }
}

Weights weights_of(Pipeline& pipeline) {
  const auto weights = pipeline.weights();
  return {weights.begin(), weights.end()};
}

void expect_same(const Weights& expected, const Weights& got) {
  ASSERT_EQ(expected.size(), got.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(tensor, got.at(name))) << name;
}

class Resume : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // `with_counts` false: as checkpoints were before each parameter had a count.
  CheckpointReader written_by(Pipeline& pipeline, bool with_counts = true) {
    CheckpointWriter writer(folder_, ++checkpoints_);
    CheckpointPart& part = writer.own_part();
    std::vector<SavedStage> stages;
    pipeline.copy_state(stages);
    for (SavedStage& stage : stages) {
      if (!with_counts)
        std::erase_if(stage.tensors,
                      [](const NamedTensor& named) { return named.name.starts_with("optimizer.updates."); });
      part.write_stage(stage.stage, stage.tensors, stage.shard);
    }
    writer.commit("{}");
    return CheckpointReader(whole_checkpoints(folder_).front());
  }

 private:
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("penstock-resume-" + std::to_string(::getpid()));
  std::int64_t checkpoints_ = 0;
};

TEST_F(Resume, EachParameterGoesOnWithItsOwnCountOnAnyNumberOfStages) {
  Pipeline whole = pipeline("1f1b", 1);
  train(whole, 0, 6);
  const Weights expected = weights_of(whole);
  for (const auto& [before, after] : {std::pair{1, 3}, {3, 1}, {2, 4}}) {
    Pipeline first = pipeline("1f1b", before);
    train(first, 0, 3);
    const CheckpointReader reader = written_by(first);
    EXPECT_EQ(reader.read("optimizer.updates.layers.0.sometimes").item<std::int64_t>(), 1);
    EXPECT_EQ(reader.read("optimizer.updates.layers.0.always").item<std::int64_t>(), 3);
    Pipeline second = pipeline("1f1b", after);
    second.load(reader, 3);
    train(second, 3, 6);
    expect_same(expected, weights_of(second));
  }
}

TEST_F(Resume, ShardsKeepTheCountsOfTheirParameters) {
  Pipeline uninterrupted = pipeline("chimera", 2);
  train(uninterrupted, 0, 6);
  const Weights expected = weights_of(uninterrupted);
  for (const bool sharded : {false, true}) {
    Pipeline first = pipeline("chimera", 2, sharded);
    train(first, 0, 3);
    Pipeline second = pipeline("chimera", 2, !sharded);
    second.load(written_by(first), 3);
    train(second, 3, 6);
    expect_same(expected, weights_of(second));
  }
}

TEST_F(Resume, CheckpointsFromBeforeTheCountsAreRead) {
  const auto always = [](Pipeline& pipeline, int from, int to) {
    for (int step = from; step < to; ++step)
      static_cast<void>(pipeline.step(at::full({2, width}, 3.0), at::ones({2, width}), step, 0.05));
  };
  Pipeline whole = pipeline("1f1b", 2);
  always(whole, 0, 6);
  Pipeline first = pipeline("1f1b", 2);
  always(first, 0, 3);
  const CheckpointReader reader = written_by(first, /*with_counts=*/false);
  EXPECT_FALSE(reader.contains("optimizer.updates.layers.0.always"));
  Pipeline second = pipeline("1f1b", 1);
  second.load(reader, 3);
  always(second, 3, 6);
  expect_same(weights_of(whole), weights_of(second));
}

}  // namespace
}  // namespace penstock::resume_test
