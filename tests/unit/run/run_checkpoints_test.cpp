// When a run's checkpoints are there, and what they hold.
#include "run/run_checkpoints.h"

#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"

namespace penstock::run_checkpoints_test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t width = 4;

Pipeline two_stages() {
  Network network;
  for (int layer = 0; layer < 4; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(width, width)));
  network.loss = squared_error;
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  return {std::move(network), verify(one_f_one_b_schedule(2, 2)), std::move(settings)};
}

void train(Pipeline& pipeline, std::int64_t step) {
  static_cast<void>(pipeline.step(at::ones({2, width}), at::zeros({2, width}), step, 0.1));
}

std::vector<std::int64_t> steps_in(const fs::path& folder) {
  std::vector<std::int64_t> steps;
  for (const CheckpointId& id : whole_checkpoints(folder)) steps.push_back(id.step);
  return steps;
}

class RunCheckpointsTest : public testing::TestWithParam<bool> {
 protected:
  RunCheckpointsTest() : folder_(fs::path(testing::TempDir()) / ("run_checkpoints_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
  }
  ~RunCheckpointsTest() override { fs::remove_all(folder_); }

  [[nodiscard]] RunCheckpointsSettings settings(int keep = 3) const {
    return {.folder = folder_, .background = GetParam(), .keep = keep};
  }

  fs::path folder_;
  SteadyClock clock_;
};

TEST_P(RunCheckpointsTest, IsThereWhenItIsFinishedAndNotBefore) {
  Pipeline pipeline = two_stages();
  RunCheckpoints checkpoints(settings(), clock_);
  EXPECT_EQ(checkpoints.saved_step(), -1);
  checkpoints.finish(pipeline);  // nothing is under way
  checkpoints.begin(pipeline, 7, "{\"notes\": 1}");
  EXPECT_TRUE(checkpoints.under_way());
  EXPECT_EQ(steps_in(folder_), std::vector<std::int64_t>{});
  EXPECT_EQ(checkpoints.saved_step(), -1);
  checkpoints.finish(pipeline);
  EXPECT_FALSE(checkpoints.under_way());
  EXPECT_FALSE(checkpoints.writing());
  EXPECT_EQ(steps_in(folder_), std::vector<std::int64_t>{7});
  EXPECT_EQ(checkpoints.saved_step(), 7);
  EXPECT_EQ(CheckpointReader(whole_checkpoints(folder_).front()).metadata(), "{\"notes\": 1}");
  EXPECT_EQ(checkpoints.times().checkpoints, 1);
}

TEST_P(RunCheckpointsTest, HoldsTheWeightsOfWhenItWasBegun) {
  Pipeline pipeline = two_stages();
  train(pipeline, 0);
  const auto weights = pipeline.weights();
  RunCheckpoints checkpoints(settings(), clock_);
  checkpoints.begin(pipeline, 1, "{}");
  train(pipeline, 1);
  train(pipeline, 2);
  checkpoints.finish(pipeline);
  const CheckpointReader reader(whole_checkpoints(folder_).front());
  ASSERT_EQ(weights.size(), 8U);
  for (const auto& [name, weight] : weights) EXPECT_TRUE(at::equal(reader.read(name), weight)) << name;
  EXPECT_FALSE(at::equal(pipeline.weights().front().second, weights.front().second)) << "it has learned since";
}

TEST_P(RunCheckpointsTest, TheNextOneFinishesTheOneBeforeAndTheOldestGo) {
  Pipeline pipeline = two_stages();
  RunCheckpoints checkpoints(settings(/*keep=*/2), clock_);
  for (const std::int64_t step : {1, 2, 3}) {
    checkpoints.begin(pipeline, step, "{}");
    EXPECT_EQ(checkpoints.saved_step(), step == 1 ? -1 : step - 1);
  }
  EXPECT_EQ(steps_in(folder_), (std::vector<std::int64_t>{2, 1}));
  checkpoints.finish(pipeline);
  EXPECT_EQ(steps_in(folder_), (std::vector<std::int64_t>{3, 2}));
}

TEST_P(RunCheckpointsTest, OneThatIsGivenUpLeavesNothing) {
  Pipeline pipeline = two_stages();
  {
    RunCheckpoints checkpoints(settings(), clock_);
    checkpoints.begin(pipeline, 1, "{}");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 0);
}

TEST_P(RunCheckpointsTest, AFailureToWriteIsThatOfFinish) {
  Pipeline pipeline = two_stages();
  RunCheckpoints checkpoints(settings(), clock_);
  checkpoints.begin(pipeline, 1, "{}");
  while (checkpoints.writing()) std::this_thread::yield();
  fs::remove_all(folder_);
  write_file_atomically(folder_, "a file in the way");
  EXPECT_THROW(checkpoints.finish(pipeline), Error);
  EXPECT_EQ(checkpoints.saved_step(), -1);
}

INSTANTIATE_TEST_SUITE_P(BehindAndBetweenSteps, RunCheckpointsTest, testing::Bool());

}  // namespace
}  // namespace penstock::run_checkpoints_test
