// Ties of two to five places, drawn from seeds: plain libtorch judges one device, and one device judges every schedule,
// replicas and shards.
#include "penstock/nn/ties.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <random>
#include <string>

#include <torch/torch.h>

#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "drawn_cases.h"
#include "parity/small_networks.h"

namespace penstock::ties_test {
namespace {

constexpr std::int64_t width = 6;
constexpr std::int64_t layer_count = 8;
constexpr int microbatch_count = 4;
constexpr int step_count = 4;
constexpr double learning_rate = 0.05;

// Two matrices and a bias; with `both` false the second takes no part, and has no gradient.
struct Twin : torch::nn::Module {
  explicit Twin(bool with_both)
      : both(with_both),
        left(register_parameter("left", at::randn({width, width}, at::kDouble) * 0.4)),
        right(register_parameter("right", at::randn({width, width}, at::kDouble) * 0.4)),
        bias(register_parameter("bias", at::randn({width}, at::kDouble) * 0.1)) {}
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor hidden = torch::tanh(at::matmul(input, left) + bias);
    return both ? hidden + at::matmul(hidden, right) : hidden;
  }
  bool both;
  at::Tensor left;
  at::Tensor right;
  at::Tensor bias;
};

// One to three groups, each a tree of ties whose owner may stand anywhere, in any order.
std::vector<Tie> drawn_ties(std::mt19937_64& random) {
  std::vector<ParameterAddress> matrices;
  std::vector<ParameterAddress> biases;
  for (std::int64_t layer = 0; layer < layer_count; ++layer) {
    matrices.push_back({layer, "left"});
    matrices.push_back({layer, "right"});
    biases.push_back({layer, "bias"});
  }
  std::shuffle(matrices.begin(), matrices.end(), random);
  std::shuffle(biases.begin(), biases.end(), random);
  std::vector<Tie> ties;
  for (std::uint64_t group = 0, groups = 1 + random() % 3; group < groups; ++group) {
    std::vector<ParameterAddress>& from = group == 1 ? biases : matrices;
    std::vector<ParameterAddress> members;
    for (std::uint64_t size = 2 + random() % 4; size > 0 && !from.empty(); --size) {
      const ParameterAddress next = from.back();
      from.pop_back();
      if (!members.empty()) ties.push_back({members[random() % members.size()], next});
      members.push_back(next);
    }
  }
  std::shuffle(ties.begin(), ties.end(), random);
  if (random() % 3 == 0) ties.push_back(ties.front());
  return ties;
}

Network drawn_network(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Network network;
  for (std::int64_t layer = 0; layer < layer_count; ++layer)
    network.layers.push_back(layer_of<Twin>("twin", random() % 3 != 0));
  network.loss = squared_error;
  network.ties = drawn_ties(random);
  return network;
}

std::vector<Microbatch> minibatch_of(int step) {
  at::Generator generator = at::detail::createCPUGenerator(100 + static_cast<std::uint64_t>(step));
  Minibatch minibatch;
  for (auto* side : {&minibatch.inputs, &minibatch.targets})
    side->push_back({at::randn({std::int64_t{2} * microbatch_count, width}, generator, at::kDouble), 0});
  return split_minibatch(minibatch, microbatch_count);
}

PipelineSettings settings_of(std::uint64_t seed) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.seed = seed;
  settings.clip_norm = 0.3;
  settings.optimizer.kind = seed % 2 == 0 ? OptimizerKind::Sgd : OptimizerKind::AdamW;
  settings.optimizer.epsilon = 1e-3;  // AdamW would make much of the last bits of a gradient that is next to nothing
  return settings;
}

Trace train(const Network& network, const Schedule& schedule, const PipelineSettings& settings) {
  Pipeline pipeline(network, verify(schedule), settings);
  Trace trace;
  for (int step = 0; step < step_count; ++step) {
    const StepResult result = pipeline.step(minibatch_of(step), {step, learning_rate});
    trace.losses.push_back(result.loss);
    trace.norms.push_back(result.gradient_norm);
  }
  trace.weights = pipeline.weights();
  return trace;
}

std::map<std::string, at::Tensor> by_name(const Trace& trace) { return {trace.weights.begin(), trace.weights.end()}; }
std::string name_of(const ParameterAddress& address) {
  return "layers." + std::to_string(address.layer) + "." + address.name;
}

// Plain libtorch knows no ties: here one tensor is put in the place of all that are tied to it.
Trace train_plainly(const Network& network, const PipelineSettings& settings) {
  std::vector<std::shared_ptr<Twin>> layers;
  for (std::int64_t layer = 0; layer < layer_count; ++layer) {
    const Layer built = build_layer(network, layer, settings.seed, at::kCPU);
    layers.push_back(std::dynamic_pointer_cast<Twin>(built.module().shared_from_this()));
  }
  const auto tensor_at = [&](const ParameterAddress& address) -> at::Tensor& {
    Twin& twin = *layers[static_cast<std::size_t>(address.layer)];
    return address.name == "left" ? twin.left : address.name == "right" ? twin.right : twin.bias;
  };
  for (const TieGroup& group : tie_groups(network.ties))
    for (const ParameterAddress& member : group.members) tensor_at(member) = tensor_at(group.owner);
  std::vector<at::Tensor> all;
  for (std::int64_t layer = 0; layer < layer_count; ++layer)
    for (const char* name : {"left", "right", "bias"}) {
      const at::Tensor& tensor = tensor_at({layer, name});
      if (std::none_of(all.begin(), all.end(), [&](const at::Tensor& known) { return known.is_same(tensor); }))
        all.push_back(tensor);
    }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  const OptimizerSettings& chosen = settings.optimizer;
  const auto sgd = torch::optim::SGDOptions(learning_rate).momentum(chosen.momentum);
  const auto adamw = torch::optim::AdamWOptions(learning_rate).betas({chosen.beta1, chosen.beta2}).eps(chosen.epsilon);
  for (const at::Tensor& tensor : all) {
    const double decay = tensor.dim() >= 2 ? chosen.weight_decay : 0;
    if (chosen.kind == OptimizerKind::Sgd)
      groups.emplace_back(std::vector<at::Tensor>{tensor}, std::make_unique<torch::optim::SGDOptions>(
                                                               torch::optim::SGDOptions(sgd).weight_decay(decay)));
    else
      groups.emplace_back(std::vector<at::Tensor>{tensor}, std::make_unique<torch::optim::AdamWOptions>(
                                                               torch::optim::AdamWOptions(adamw).weight_decay(decay)));
  }
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  if (chosen.kind == OptimizerKind::Sgd)
    optimizer = std::make_unique<torch::optim::SGD>(groups, sgd);
  else
    optimizer = std::make_unique<torch::optim::AdamW>(groups, adamw);
  Trace trace;
  for (int step = 0; step < step_count; ++step) {
    optimizer->zero_grad();
    at::Tensor sum = at::zeros({}, at::kDouble);
    double weight = 0;
    for (const Microbatch& microbatch : minibatch_of(step)) {
      at::Tensor flow = microbatch.inputs.front();
      for (const auto& layer : layers) flow = layer->forward(flow);
      const Loss loss = network.loss({flow}, microbatch.targets);
      sum = sum + loss.sum;
      weight += loss.weight;
    }
    (sum / weight).backward();
    trace.norms.push_back(torch::nn::utils::clip_grad_norm_(all, settings.clip_norm));
    optimizer->step();
    trace.losses.push_back((sum / weight).item<double>());
  }
  for (std::int64_t layer = 0; layer < layer_count; ++layer)
    for (const char* name : {"left", "right", "bias"})
      trace.weights.emplace_back(name_of({layer, name}), tensor_at({layer, name}).detach());
  return trace;
}

void expect_near(const Trace& expected, const Trace& got, double tolerance) {
  for (std::size_t step = 0; step < expected.losses.size(); ++step) {
    EXPECT_NEAR(got.losses[step], expected.losses[step], tolerance) << "step " << step;
    EXPECT_NEAR(got.norms[step], expected.norms[step], tolerance) << "step " << step;
  }
  const auto weights = by_name(got);
  ASSERT_EQ(weights.size(), expected.weights.size());
  for (const auto& [name, tensor] : expected.weights)
    EXPECT_LE((tensor - weights.at(name)).norm().item<double>(), tolerance) << name;
}

void expect_equal_members(const Network& network, const Trace& trace) {
  const auto weights = by_name(trace);
  for (const Tie& tie : network.ties)
    EXPECT_TRUE(at::equal(weights.at(name_of(tie.owner)), weights.at(name_of(tie.copy))))
        << to_text(tie.owner) << " and " << to_text(tie.copy);
}

TEST(Ties, OfAnyNumberOfPlacesHaveTheNumbersOfOneTensorOnEverySchedule) {
  for (int seed = 0; seed < drawn_cases(20); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Network network = drawn_network(static_cast<std::uint64_t>(seed));
    const PipelineSettings settings = settings_of(static_cast<std::uint64_t>(seed));
    const Trace one = train(network, make_schedule("1f1b", 1, microbatch_count), settings);
    expect_near(train_plainly(network, settings), one, 1e-9);
    expect_equal_members(network, one);
    for (const ScheduleFamily& family : schedule_families()) {
      if (family.name == "forward-only") continue;
      SCOPED_TRACE(family.name);
      const int ranks = family.stages_per_rank == 1 ? 4 : 2;
      const Trace cut = train(network, make_schedule(family.name, ranks, microbatch_count), settings);
      if (family.bidirectional)
        expect_near(one, cut, 1e-9);
      else
        expect_same_bits(one, cut);
      expect_equal_members(network, cut);
    }
  }
}

TEST(Ties, HoldWithReplicasAndShards) {
  for (int seed = 0; seed < drawn_cases(10); ++seed) {
    const Network network = drawn_network(static_cast<std::uint64_t>(seed));
    PipelineSettings settings = settings_of(static_cast<std::uint64_t>(seed));
    settings.gradient_bucket = {width * width * 8};
    const Trace one = train(network, make_schedule("1f1b", 1, microbatch_count), settings);
    const Schedule of_replica = make_schedule("1f1b", 3, microbatch_count / 2);
    for (const bool shard : {false, true}) {
      for (const bool early : {false, true}) {
        SCOPED_TRACE(testing::Message() << "seed " << seed << (shard ? ", sharded" : "") << (early ? ", early" : ""));
        settings.replicas = 2;
        settings.shard_optimizer = shard;
        settings.post_validation = early;
        const Trace replicated = train(network, side_by_side({of_replica, of_replica}), settings);
        expect_near(one, replicated, 1e-9);
        expect_equal_members(network, replicated);
        settings.replicas = 1;
        const Trace both_ways = train(network, make_schedule("chimera", 2, microbatch_count), settings);
        expect_near(one, both_ways, 1e-9);
        expect_equal_members(network, both_ways);
      }
    }
  }
}

}  // namespace
}  // namespace penstock::ties_test
