// Gradients along a fixed tree: the same bits on 1, 2, 4 and 8 replicas, on any stages, with every kind of update.
#include "pipeline/gradient_tree.h"

#include <gtest/gtest.h>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "parity/small_networks.h"

namespace penstock::gradient_tree_test {
namespace {

struct Feature {
  const char* name;
  void (*set)(TraceSettings&);
};

class GradientTrees : public testing::TestWithParam<Feature> {};

TEST_P(GradientTrees, HaveTheSameBitsOnAnyNumberOfReplicas) {
  TraceSettings settings;
  settings.microbatches = 8;
  settings.samples = 17;  // microbatches differ in size
  settings.steps = 6;
  settings.gradient_tree = 4;
  GetParam().set(settings);
  const Trace one = train_small(settings);
  for (const int replicas : {1, 2, 4}) {
    for (const int stages : {1, 2}) {
      SCOPED_TRACE(std::to_string(replicas) + " replicas of " + std::to_string(stages) + " stages");
      TraceSettings other = settings;
      other.replicas = replicas;
      other.stages = stages;
      expect_same_bits(one, train_small(other));
      if (replicas == 1) continue;
      other.bucket = {600};
      other.shard = settings.precision == Precision::Float32;
      other.steps_in_flight = 2;
      expect_same_bits(one, train_small(other));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Features, GradientTrees,
    testing::Values(Feature{"plain", [](TraceSettings&) {}},
                    Feature{"of_eight",
                            [](TraceSettings& settings) {
                              settings.gradient_tree = 8;
                              settings.microbatches = 16;
                            }},
                    Feature{"unclipped", [](TraceSettings& settings) { settings.clip = 0; }},
                    Feature{"tied_and_masked",
                            [](TraceSettings& settings) {
                              settings.network = "tied gpt";
                              settings.masked = true;
                            }},
                    Feature{"batch_norm", [](TraceSettings& settings) { settings.network = "batch norm"; }},
                    Feature{"batch_norm_taken_back",
                            [](TraceSettings& settings) {
                              settings.network = "batch norm";
                              settings.post_validation = true;
                              settings.steps_in_flight = 2;
                              settings.clip = 0.02;
                            }},
                    Feature{"skips", [](TraceSettings& settings) { settings.network = "skips"; }},
                    Feature{"split_backward", [](TraceSettings& settings) { settings.schedule = "zb-h1"; }},
                    Feature{"gpipe_recomputed",
                            [](TraceSettings& settings) {
                              settings.schedule = "gpipe";
                              settings.recompute = std::vector<bool>(8, true);
                            }},
                    Feature{"skipped_steps",
                            [](TraceSettings& settings) {
                              settings.network = "mlp";
                              settings.precision = Precision::Float16;
                              settings.loss_factor = 1000;
                            }}),
    [](const auto& instance) { return instance.param.name; });

TEST(GradientTreeOfFiftySteps, HasTheSameBitsUnderAdamWOnOneTwoAndFourReplicas) {
  TraceSettings settings;
  settings.microbatches = 4;
  settings.steps = 50;
  settings.gradient_tree = 4;
  settings.optimizer = "adamw";
  const Trace one = train_small(settings);
  for (const int replicas : {2, 4}) {
    settings.replicas = replicas;
    expect_same_bits(one, train_small(settings));
  }
}

// Otherwise the tests above would hold of a sum in a row.
TEST(GradientTree, AddsInAnotherOrderThanARow) {
  TraceSettings settings;
  settings.microbatches = 8;
  settings.optimizer = "sgd";
  settings.steps = 3;
  const Trace row = train_small(settings);
  settings.gradient_tree = 4;
  const Trace tree = train_small(settings);
  bool differs = false;
  for (std::size_t index = 0; index < row.weights.size(); ++index)
    differs = differs || !at::equal(row.weights[index].second, tree.weights[index].second);
  EXPECT_TRUE(differs);
  expect_close(row, tree);
}

TEST(OrderedSum, AddsAlongATreeOrInARow) {
  const auto part = [](float value) { return Tensors{at::full({1}, value), at::Tensor()}; };
  // In float32: 1 is lost beside 2^24, 2 is not.
  const auto sum_of = [&](OrderedSum::Order order) {
    OrderedSum sum(order);
    for (const float value : {16777216.F, 0.F, 1.F, 1.F}) sum.add(part(value));
    const Tensors total = sum.take();
    EXPECT_FALSE(total[1].defined());
    return total[0].item<float>();
  };
  EXPECT_EQ(sum_of(OrderedSum::Order::Row), 16777216.F);
  EXPECT_EQ(sum_of(OrderedSum::Order::Tree), 16777218.F);
  OrderedSum with_absent(OrderedSum::Order::Tree);
  with_absent.add({at::Tensor(), at::ones({1})});
  with_absent.add({at::ones({1}), at::Tensor()});
  const Tensors total = with_absent.take();
  EXPECT_EQ(total[0].item<float>(), 1);
  EXPECT_EQ(total[1].item<float>(), 1);
  EXPECT_TRUE(with_absent.take().empty());
}

std::string refusal(const PipelineSettings& settings, const Schedule& schedule) {
  try {
    const Pipeline pipeline(small_network("gpt", 0), verify(schedule), settings);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "";
}

TEST(GradientTree, RefusesWhatItsSumsCannotBeTheSameOf) {
  PipelineSettings settings;
  settings.gradient_tree = 3;
  EXPECT_NE(refusal(settings, one_f_one_b_schedule(2, 6)).find("`gradient_tree` is 3 with 1 replica and 6 micro"),
            std::string::npos);
  settings.gradient_tree = 4;
  EXPECT_NE(refusal(settings, one_f_one_b_schedule(2, 6)).find("a power of two that the replicas divide"),
            std::string::npos);
  EXPECT_NE(refusal(settings, make_schedule("chimera", 2, 4)).find("one rank has all microbatches of a stage"),
            std::string::npos);
  settings.replicas = 2;
  const Schedule uneven = side_by_side({one_f_one_b_schedule(2, 1), one_f_one_b_schedule(2, 3)});
  EXPECT_NE(refusal(settings, uneven).find("2 microbatches in a row for each replica"), std::string::npos);
  EXPECT_EQ(refusal(settings, side_by_side({one_f_one_b_schedule(2, 2), one_f_one_b_schedule(2, 2)})), "");
}

}  // namespace
}  // namespace penstock::gradient_tree_test
