// Data parallel: the numbers of one replica with the same minibatch, within rounding, because gradients are added in
// another order; and the same bits from run to run, in buckets of any size, with the optimizer's state sharded or not.
#include "penstock/schedule/replicas.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <map>
#include <string>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"

#include "drawn_cases.h"
#include "parity/small_networks.h"

namespace penstock {
namespace {

struct Feature {
  const char* name;
  void (*set)(TraceSettings&);
  bool close = true;  // whether the numbers are also held against one replica's
};

TraceSettings with(const Feature& feature) {
  TraceSettings settings;
  settings.network = "gpt";
  settings.optimizer = "sgd";
  settings.steps = 3;
  settings.samples = 9;  // which the microbatches do not divide
  feature.set(settings);
  return settings;
}

TraceSettings replicated(TraceSettings settings, int replicas = 2, int stages = 2) {
  settings.replicas = replicas;
  settings.stages = stages;
  return settings;
}

class Replicas : public testing::TestWithParam<Feature> {};

TEST_P(Replicas, HaveTheNumbersOfOneAndTheirOwnBits) {
  const TraceSettings one = with(GetParam());
  TraceSettings two = replicated(one);
  const Trace trace = train_small(two);
  if (GetParam().close) {
    TraceSettings judge = one;
    judge.schedule = "1f1b";
    expect_close(train_small(judge), trace);
  }
  expect_same_bits(trace, train_small(two));
  two.bucket = {1};
  expect_same_bits(trace, train_small(two));
  two.bucket = {600};
  two.shard = true;
  expect_same_bits(trace, train_small(two));
}

INSTANTIATE_TEST_SUITE_P(
    Features, Replicas,
    testing::Values(Feature{"plain", [](TraceSettings&) {}},
                    Feature{"unclipped", [](TraceSettings& settings) { settings.clip = 0; }},
                    Feature{"tied", [](TraceSettings& settings) { settings.network = "tied gpt"; }},
                    Feature{"masked",
                            [](TraceSettings& settings) {
                              settings.network = "tied gpt";
                              settings.masked = true;
                            }},
                    Feature{"lengths", [](TraceSettings& settings) { settings.lengths = true; }},
                    Feature{"convnet", [](TraceSettings& settings) { settings.network = "convnet"; }},
                    Feature{"skips", [](TraceSettings& settings) { settings.network = "skips"; }},
                    // A second step through batch norms of two samples makes much of the last bits.
                    Feature{"batch_norm",
                            [](TraceSettings& settings) {
                              settings.network = "batch norm";
                              settings.samples = 16;
                              settings.steps = 1;
                            }},
                    Feature{"recompute",
                            [](TraceSettings& settings) { settings.recompute = std::vector<bool>(8, true); }},
                    Feature{"uneven_shares", [](TraceSettings& settings) { settings.microbatches = 5; }},
                    Feature{"split_backward", [](TraceSettings& settings) { settings.schedule = "zb-h1"; }},
                    Feature{"two_copies",
                            [](TraceSettings& settings) {
                              settings.network = "tied gpt";
                              settings.schedule = "dualpipe";
                              settings.microbatches = 8;
                            }},
                    Feature{"chimera",
                            [](TraceSettings& settings) {
                              settings.schedule = "chimera";
                              settings.microbatches = 8;
                            }},
                    Feature{"post_validation", [](TraceSettings& settings) { settings.post_validation = true; }},
                    // AdamW divides by what may be next to nothing, and half precision has few bits: both make much of
                    // the last ones.
                    Feature{"adamw", [](TraceSettings& settings) { settings.optimizer = "adamw"; }, /*close=*/false},
                    Feature{"adamw_tied",
                            [](TraceSettings& settings) {
                              settings.network = "tied gpt";
                              settings.optimizer = "adamw";
                              settings.post_validation = true;
                            },
                            /*close=*/false},
                    Feature{"half_precision",
                            [](TraceSettings& settings) {
                              settings.network = "mlp";
                              settings.precision = Precision::Float16;
                              settings.loss_factor = 1000;
                              settings.steps = 8;
                            },
                            /*close=*/false}),
    [](const auto& instance) { return instance.param.name; });

TEST(ReplicasOfAdamW, HaveTheLossesOfOne) {
  TraceSettings one;
  one.steps = 10;
  expect_close_losses(train_small(one), train_small(replicated(one)));
}

TEST(ReplicasAndSkippedSteps, AreSkippedTogether) {
  TraceSettings settings;
  settings.network = "mlp";
  settings.precision = Precision::Float16;
  settings.loss_factor = 1000;
  settings.steps = 12;
  const Trace one = train_small(settings);
  ASSERT_GT(one.skipped, 0);
  const Trace two = train_small(replicated(settings));
  EXPECT_EQ(two.skipped, one.skipped);
}

TEST(ReplicasWithoutStages, HaveTheNumbersOfOne) {
  TraceSettings one;
  one.optimizer = "sgd";
  one.steps = 3;
  one.microbatches = 6;
  for (const int replicas : {2, 3, 6}) expect_close(train_small(one), train_small(replicated(one, replicas, 1)));
}

PipelineSettings small_settings() {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.seed = 3;
  return settings;
}

Pipeline pipeline_of(PipelineSettings settings, int replicas, const std::string& schedule = "1f1b") {
  settings.replicas = replicas;
  const std::vector<Schedule> all(static_cast<std::size_t>(replicas), make_schedule(schedule, 2, 8 / replicas));
  return {small_network("gpt", 0.1), verify(side_by_side(all)), settings};
}

TEST(ReplicasInEvaluation, ShareTheMicrobatchesAndGiveTheLossOfOne) {
  Pipeline one = pipeline_of(small_settings(), 1);
  Pipeline two = pipeline_of(small_settings(), 2);
  // Also fewer microbatches than replicas.
  for (const int count : {7, 1}) {
    TraceSettings minibatch;
    minibatch.microbatches = count;
    const auto microbatches = small_minibatch(minibatch, 0);
    const Loss expected = one.evaluate({microbatches}).front();
    const Loss got = two.evaluate({microbatches}).front();
    EXPECT_EQ(got.sum.item<double>(), expected.sum.item<double>());
    EXPECT_EQ(got.weight, expected.weight);
    const auto outputs = one.forward(microbatches);
    const auto again = two.forward(microbatches);
    for (std::size_t part = 0; part < outputs.size(); ++part) EXPECT_TRUE(at::equal(outputs[part][0], again[part][0]));
  }
}

std::map<std::string, at::Tensor> by_name(const std::vector<SavedStage>& stages) {
  std::map<std::string, at::Tensor> tensors;
  for (const SavedStage& stage : stages)
    for (const NamedTensor& named : stage.tensors) EXPECT_TRUE(tensors.emplace(named.name, named.tensor).second);
  return tensors;
}

// Of replicas as of a schedule with two copies of each stage.
TEST(ShardedState, IsTheWholeStateInSeveralParts) {
  TraceSettings minibatch;
  minibatch.microbatches = 8;
  for (const auto& [replicas, schedule] : {std::pair{2, "1f1b"}, {1, "chimera"}}) {
    SCOPED_TRACE(schedule);
    std::vector<std::map<std::string, at::Tensor>> states;
    for (const bool shard : {false, true}) {
      PipelineSettings settings = small_settings();
      settings.shard_optimizer = shard;
      Pipeline pipeline = pipeline_of(settings, replicas, schedule);
      for (int step = 0; step < 2; ++step) pipeline.step(small_minibatch(minibatch, step), {step, 1e-2});
      std::vector<SavedStage> saved;
      pipeline.copy_state(saved);
      EXPECT_EQ(saved.size(), shard ? 4U : 2U);
      Bytes largest;
      Bytes whole;
      for (const SavedStage& stage : saved) {
        Bytes of_optimizer;
        for (const NamedTensor& named : stage.tensors) {
          const bool optimizers = named.name.starts_with("optimizer.");
          EXPECT_TRUE(stage.shard == 0 || optimizers) << named.name;
          if (optimizers) of_optimizer += Bytes{static_cast<std::int64_t>(named.tensor.nbytes())};
        }
        whole += of_optimizer;
        largest = std::max(largest, of_optimizer);
      }
      // A parameter is never divided: the shares are about, not exactly, equal.
      EXPECT_LT(largest.count, whole.count * (shard ? 4 : 7) / 10);
      states.push_back(by_name(saved));
    }
    ASSERT_EQ(states[0].size(), states[1].size());
    for (const auto& [name, tensor] : states[0]) EXPECT_TRUE(at::equal(tensor, states[1].at(name))) << name;
  }
}

TEST(ReplicasReport, HasALineForEveryHolder) {
  Pipeline pipeline = pipeline_of(small_settings(), 2);
  TraceSettings minibatch;
  minibatch.microbatches = 8;
  pipeline.begin_accounting();
  const StepResult result = pipeline.step(small_minibatch(minibatch, 0), {});
  EXPECT_EQ(result.timeline.ranks.size(), 4U);
  std::vector<std::pair<int, int>> lines;
  for (const StageReport& stage : pipeline.report()) {
    lines.emplace_back(stage.stage, stage.rank);
    EXPECT_GT(stage.busy_share, 0);
    // Half of the gradients at least goes to the other replica, or their sums come from here.
    EXPECT_GE(stage.sent.count, 2 * stage.parameters);
  }
  EXPECT_EQ(lines, (std::vector<std::pair<int, int>>{{0, 0}, {0, 2}, {1, 1}, {1, 3}}));
}

TEST(ReplicasThatDoNotFit, AreRefused) {
  const auto refusal = [](const PipelineSettings& settings, const Schedule& schedule) {
    try {
      const Pipeline pipeline(small_network("gpt", 0), verify(schedule), settings);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  PipelineSettings settings = small_settings();
  settings.replicas = 2;
  EXPECT_NE(refusal(settings, one_f_one_b_schedule(3, 4)).find("2 replicas in a schedule of 3 ranks"),
            std::string::npos);
  EXPECT_NE(refusal(settings, one_f_one_b_schedule(4, 4)).find("2 replicas in a schedule of 4 ranks"),
            std::string::npos);
  settings.replicas = 1;
  settings.shard_optimizer = true;
  EXPECT_NE(refusal(settings, one_f_one_b_schedule(2, 4)).find("every stage has one holder"), std::string::npos);
}

}  // namespace
}  // namespace penstock
