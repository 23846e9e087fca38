// Parameters that are no plain rows of memory, or take part in some steps only, through whole pipelines: plain libtorch
// judges one device, and one device judges every schedule, replicas and shards.
#include <cmath>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>

#include <torch/torch.h>

#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "drawn_cases.h"
#include "parity/small_networks.h"

namespace penstock::parameters_test {
namespace {

constexpr std::int64_t width = 6;
constexpr int microbatch_count = 4;
constexpr int step_count = 5;
constexpr double learning_rate = 0.05;

at::Tensor drawn(at::IntArrayRef sizes, at::ScalarType dtype = at::kDouble) {
  return at::randn(sizes, at::kDouble).mul(0.3).to(dtype);
}

// One layer with all of them: a transposed and a sliced matrix, a kernel in channels-last, a scalar, one without
// elements, one of another dtype, one that is never used, and one that is used where the input is large.
struct Odd : torch::nn::Module {
  explicit Odd(at::ScalarType other)
      : turned(register_parameter("turned", drawn({width, width}).t())),
        sliced(register_parameter("sliced", drawn({width, 2 * width}).slice(1, 1, 1 + width))),
        kernel(register_parameter("kernel", drawn({2, 2, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast))),
        scale(register_parameter("scale", drawn({}))),
        empty(register_parameter("empty", drawn({0, width}))),
        coarse(register_parameter("coarse", drawn({width}, other))),
        unused(register_parameter("unused", drawn({width, width}))),
        sometimes(register_parameter("sometimes", drawn({width, width}))) {}
  at::Tensor forward(const at::Tensor& input) {
    at::Tensor hidden = torch::tanh(at::matmul(at::matmul(input, turned) + input, sliced));
    const at::Tensor image = hidden.reshape({-1, 1, 1, width}).expand({-1, 2, 3, width});
    hidden = hidden + torch::tanh(torch::conv2d(image, kernel, {}, 1, 1)).mean({1, 2}) * scale;
    hidden = hidden + at::cat({coarse.to(at::kDouble), empty.sum(1)});
    return large ? hidden + at::matmul(input, sometimes) : hidden;
  }
  bool large = false;
  at::Tensor turned, sliced, kernel, scale, empty, coarse, unused, sometimes;
};

// The input's last feature says whether the step is one with all parameters.
struct OddBehind : Odd {
  explicit OddBehind(at::ScalarType other) : Odd(other) {}
  at::Tensor forward(const at::Tensor& input) {
    large = input.select(1, width).min().item<double>() > 0;
    return at::cat({Odd::forward(input.slice(1, 0, width)), input.slice(1, width)}, 1);
  }
};

Network odd_network(at::ScalarType other) {
  Network network;
  for (int layer = 0; layer < 8; ++layer) network.layers.push_back(layer_of<OddBehind>("odd", other));
  network.loss = squared_error;
  return network;
}

std::vector<Microbatch> minibatch_of(int step) {
  at::Generator generator = at::detail::createCPUGenerator(100 + static_cast<std::uint64_t>(step));
  Minibatch minibatch;
  for (auto* side : {&minibatch.inputs, &minibatch.targets}) {
    const at::Tensor samples = at::randn({std::int64_t{2} * microbatch_count, width + 1}, generator, at::kDouble);
    samples.select(1, width).fill_(step % 3 == 1 ? 1 : -1);
    side->push_back({samples, 0});
  }
  return split_minibatch(minibatch, microbatch_count);
}

PipelineSettings settings_for(const std::string& optimizer) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.seed = 3;
  settings.clip_norm = 1;
  settings.optimizer.kind = kind_named<OptimizerKind>(optimizer).value();
  settings.optimizer.epsilon = 1e-3;  // as in ties_test.cpp
  return settings;
}

Trace train(at::ScalarType other, const Schedule& schedule, const PipelineSettings& settings) {
  Pipeline pipeline(odd_network(other), verify(schedule), settings);
  Trace trace;
  for (int step = 0; step < step_count; ++step) {
    const StepResult result = pipeline.step(minibatch_of(step), {step, learning_rate});
    trace.losses.push_back(result.loss);
    trace.norms.push_back(result.gradient_norm);
  }
  trace.weights = pipeline.weights();
  return trace;
}

std::unique_ptr<torch::optim::Optimizer> plain_optimizer(const std::vector<at::Tensor>& all,
                                                         const OptimizerSettings& chosen) {
  std::vector<torch::optim::OptimizerParamGroup> groups;
  const auto sgd = torch::optim::SGDOptions(learning_rate).momentum(chosen.momentum);
  const auto adamw = torch::optim::AdamWOptions(learning_rate).betas({chosen.beta1, chosen.beta2}).eps(chosen.epsilon);
  for (const at::Tensor& tensor : all) {
    const double decay = tensor.dim() >= 2 ? chosen.weight_decay : 0;
    std::unique_ptr<torch::optim::OptimizerOptions> options;
    if (chosen.kind == OptimizerKind::Sgd)
      options = std::make_unique<torch::optim::SGDOptions>(torch::optim::SGDOptions(sgd).weight_decay(decay));
    else
      options = std::make_unique<torch::optim::AdamWOptions>(torch::optim::AdamWOptions(adamw).weight_decay(decay));
    groups.emplace_back(std::vector<at::Tensor>{tensor}, std::move(options));
  }
  if (chosen.kind == OptimizerKind::Sgd) return std::make_unique<torch::optim::SGD>(groups, sgd);
  return std::make_unique<torch::optim::AdamW>(groups, adamw);
}

Trace train_plainly(at::ScalarType other, const PipelineSettings& settings) {
  const Network network = odd_network(other);
  std::vector<Layer> layers;
  std::vector<at::Tensor> all;
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
    layers.push_back(build_layer(network, static_cast<std::int64_t>(layer), settings.seed, at::kCPU));
    for (const at::Tensor& parameter : layers.back().module().parameters()) all.push_back(parameter);
  }
  const auto optimizer = plain_optimizer(all, settings.optimizer);
  Trace trace;
  for (int step = 0; step < step_count; ++step) {
    optimizer->zero_grad();
    double sum = 0;
    double weight = 0;
    for (const Microbatch& microbatch : minibatch_of(step)) {
      Tensors flow = microbatch.inputs;
      for (const Layer& layer : layers) flow = layer.forward(flow);
      const Loss loss = network.loss(flow, microbatch.targets);
      loss.sum.backward();
      sum += loss.sum.item<double>();
      weight += loss.weight;
    }
    double squares = 0;
    for (const at::Tensor& parameter : all) {
      if (!parameter.grad().defined()) continue;
      parameter.mutable_grad() = parameter.grad() / weight;
      squares += std::pow(parameter.grad().norm().item<double>(), 2);
    }
    const double norm = std::sqrt(squares);
    for (const at::Tensor& parameter : all)
      if (parameter.grad().defined() && norm > settings.clip_norm)
        parameter.mutable_grad() = parameter.grad() * (settings.clip_norm / (norm + 1e-6));
    optimizer->step();
    trace.losses.push_back(sum / weight);
    trace.norms.push_back(norm);
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    for (const auto& parameter : layers[layer].module().named_parameters())
      trace.weights.emplace_back("layers." + std::to_string(layer) + "." + parameter.key(), parameter.value().detach());
  return trace;
}

void expect_near(const Trace& expected, const Trace& got, double tolerance) {
  for (std::size_t step = 0; step < expected.losses.size(); ++step) {
    EXPECT_NEAR(got.losses[step], expected.losses[step], tolerance) << "step " << step;
    EXPECT_NEAR(got.norms[step], expected.norms[step], tolerance) << "step " << step;
  }
  const std::map<std::string, at::Tensor> weights(got.weights.begin(), got.weights.end());
  ASSERT_EQ(weights.size(), expected.weights.size());
  for (const auto& [name, tensor] : expected.weights)
    EXPECT_LE((tensor - weights.at(name)).norm().item<double>(), tolerance) << name;
}

// float32 parameters round what all others see, and fused kernels round once where torch::optim does in every
// operation.
struct OddCase {
  std::string optimizer;
  at::ScalarType other = at::kDouble;
  double tolerance = 0;
};

class OddParameters : public testing::TestWithParam<OddCase> {};

TEST_P(OddParameters, HaveTheNumbersOfPlainLibtorchAndTheSameBitsOnEverySchedule) {
  const auto& [optimizer, other, tolerance] = GetParam();
  const PipelineSettings settings = settings_for(optimizer);
  const Trace one = train(other, make_schedule("1f1b", 1, microbatch_count), settings);
  expect_near(train_plainly(other, settings), one, tolerance);
  for (const ScheduleFamily& family : schedule_families()) {
    if (family.name == "forward-only") continue;
    SCOPED_TRACE(family.name);
    const int ranks = family.stages_per_rank == 1 ? 4 : 2;
    const Trace cut = train(other, make_schedule(family.name, ranks, microbatch_count), settings);
    if (family.bidirectional)
      expect_near(one, cut, tolerance);
    else
      expect_same_bits(one, cut);
  }
}

TEST_P(OddParameters, AreSharedOutAmongReplicas) {
  const auto& [optimizer, other, tolerance] = GetParam();
  PipelineSettings settings = settings_for(optimizer);
  const Trace one = train(other, make_schedule("1f1b", 1, microbatch_count), settings);
  const Schedule of_replica = make_schedule("1f1b", 2, microbatch_count / 2);
  const Schedule both = side_by_side({of_replica, of_replica});
  settings.replicas = 2;
  settings.gradient_bucket = {400};
  const Trace replicated = train(other, both, settings);
  expect_near(one, replicated, tolerance);
  settings.shard_optimizer = true;
  expect_same_bits(replicated, train(other, both, settings));
  settings.post_validation = true;
  expect_same_bits(replicated, train(other, both, settings));
}

INSTANTIATE_TEST_SUITE_P(Kinds, OddParameters,
                         testing::Values(OddCase{"sgd", at::kDouble, 1e-11}, OddCase{"adamw", at::kDouble, 1e-11},
                                         OddCase{"sgd", at::kFloat, 1e-5}, OddCase{"adamw", at::kFloat, 1e-5}),
                         [](const auto& instance) {
                           return instance.param.optimizer + "_" + at::toString(instance.param.other);
                         });

struct Words : torch::nn::Module {
  explicit Words(bool sparse)
      : table(register_module("table", torch::nn::Embedding(torch::nn::EmbeddingOptions(10, width).sparse(sparse)))) {
    table->to(at::kDouble);
  }
  at::Tensor forward(const at::Tensor& words) { return table(words).sum(1); }
  torch::nn::Embedding table;
};

TEST(SparseGradients, TrainAsDenseOnesDo) {
  std::vector<Trace> traces;
  for (const bool sparse : {false, true}) {
    for (const int replicas : {1, 2}) {
      Network network = odd_network(at::kDouble);
      network.layers.resize(4);
      network.layers[0] = layer_of<Words>("words", sparse);
      for (std::size_t layer = 1; layer < 4; ++layer)
        network.layers[layer].build = [] {
          const auto linear = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(width, width));
          linear->to(at::kDouble);
          return Layer(linear);
        };
      PipelineSettings settings = settings_for("sgd");
      settings.replicas = replicas;
      const std::vector<Schedule> schedules(static_cast<std::size_t>(replicas),
                                            make_schedule("zb-h1", 2, microbatch_count / replicas));
      Pipeline pipeline(network, verify(side_by_side(schedules)), settings);
      Trace& trace = traces.emplace_back();
      for (int step = 0; step < step_count; ++step) {
        at::Generator generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(step));
        const at::Tensor words = at::randint(0, 10, {std::int64_t{2} * microbatch_count, 3}, generator, at::kLong);
        const StepResult result = pipeline.step(
            words, at::ones({std::int64_t{2} * microbatch_count, width}, at::kDouble), step, learning_rate);
        trace.losses.push_back(result.loss);
        trace.norms.push_back(result.gradient_norm);
      }
      trace.weights = pipeline.weights();
      expect_near(traces.front(), trace, 1e-11);
    }
  }
}

}  // namespace
}  // namespace penstock::parameters_test
