#include "parity/small_networks.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/linear.h>

#include "penstock/base/random.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/dropout.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

namespace penstock {
namespace {

constexpr std::int64_t width = 8;

// Takes any number of tensors and reads the first several times. Returns one that requires a gradient, a count that
// cannot, and one that does not need any and is there only after every second layer.
class Mixing : public torch::nn::Module {
 public:
  Mixing(bool odd, double dropout)
      : odd_(odd),
        linear_(register_module("linear", torch::nn::Linear(width, width))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(dropout))) {}

  Tensors forward(const Tensors& inputs) {
    at::Tensor sum = inputs.front();
    at::Tensor count = at::ones({1}, sum.options().dtype(at::kLong));
    for (std::size_t index = 1; index < inputs.size(); ++index) {
      const at::Tensor& input = inputs[index];
      if (!input.defined()) continue;
      if (!input.is_floating_point())
        count = count + input;
      else
        sum = sum + (input * 0.5).tanh();
    }
    const at::Tensor mixed = dropout_->forward(at::gelu(linear_->forward(sum))) + inputs.front() * sum.sigmoid();
    return {mixed / (1 + count % 3), count, odd_ ? mixed.detach() : at::Tensor()};
  }

 private:
  bool odd_;
  torch::nn::Linear linear_;
  std::shared_ptr<Dropout> dropout_;
};

class Normalising : public torch::nn::Module {
 public:
  Normalising()
      : linear_(register_module("linear", torch::nn::Linear(width, width))),
        norm_(register_module("norm", std::make_shared<DeferredBatchNorm>(width))) {}
  at::Tensor forward(const at::Tensor& input) { return input + norm_->forward(linear_->forward(input)).relu(); }

 private:
  torch::nn::Linear linear_;
  std::shared_ptr<DeferredBatchNorm> norm_;
};

Network mixing_network(double dropout) {
  Network network;
  for (int layer = 0; layer < 8; ++layer) network.layers.push_back(layer_of<Mixing>("mixing", layer % 2 == 1, dropout));
  network.skips = {{-1, 3}, {0, 2}, {0, 5}, {0, 7}, {1, 3, 1}, {1, 6, 2}, {2, 7}, {4, 6}, {6, 7}};
  network.loss = squared_error;
  return network;
}

Network normalising_network() {
  Network network;
  for (int layer = 0; layer < 8; ++layer) network.layers.push_back(layer_of<Normalising>("normalising"));
  network.loss = squared_error;
  return network;
}

Network small_gpt(bool tied, double dropout) {
  GptSettings gpt;
  gpt.vocabulary = 32;
  gpt.layers = 6;
  gpt.width = 16;
  gpt.heads = 2;
  gpt.context = 8;
  gpt.dropout = dropout;
  gpt.tied_head = tied;
  return make_gpt(gpt);
}

Minibatch drawn(const TraceSettings& settings, std::int64_t samples, at::Generator& generator) {
  const auto minibatch = [](at::Tensor input, at::Tensor target) { return Minibatch{{{input}}, {{target}}}; };
  if (settings.network == "mlp")
    return minibatch(at::randn({samples, 20}, generator), at::randint(5, {samples}, generator, at::kLong));
  if (settings.network == "convnet")
    return minibatch(at::rand({samples, 1, 8, 8}, generator), at::randint(5, {samples}, generator, at::kLong));
  if (settings.network == "skips" || settings.network == "batch norm")
    return minibatch(at::randn({samples, width}, generator), at::randn({samples, width}, generator));
  const auto length = settings.lengths ? at::randint(1, 9, {1}, generator, at::kLong).item<std::int64_t>() : 8;
  const at::Tensor input = at::randint(32, {samples, length}, generator, at::kLong);
  at::Tensor target = at::randint(32, {samples, length}, generator, at::kLong);
  if (settings.masked) {
    const auto share = at::rand({samples, 1}, generator);
    target = target.masked_fill(at::rand({samples, length}, generator) < share, -100);
    target[0][0] = 1;  // something always counts
  }
  return minibatch(input, target);
}

}  // namespace

std::vector<std::string_view> trained_families() {
  std::vector<std::string_view> names;
  for (const ScheduleFamily& family : schedule_families())
    if (family.name != "forward-only") names.push_back(family.name);
  return names;
}

Network small_network(const std::string& name, double dropout) {
  if (name == "mlp") return make_mlp({20, 8, 16, 5, dropout});
  if (name == "skips") return mixing_network(dropout);
  if (name == "batch norm") return normalising_network();
  if (name != "convnet") return small_gpt(name == "tied gpt", dropout);
  ConvnetSettings convnet;
  convnet.rows = convnet.columns = 8;
  convnet.layers = 6;
  convnet.width = 8;
  convnet.groups = 2;
  convnet.classes = 5;
  convnet.dropout = dropout;
  return make_convnet(convnet);
}

std::vector<Microbatch> small_minibatch(const TraceSettings& settings, std::int64_t step) {
  at::Generator generator = at::detail::createCPUGenerator(mix_key({17, static_cast<std::uint64_t>(step)}));
  if (!settings.lengths) return split_minibatch(drawn(settings, settings.samples, generator), settings.microbatches);
  std::vector<Microbatch> minibatch;
  for (int microbatch = 0; microbatch < settings.microbatches; ++microbatch) {
    const bool larger = microbatch < settings.samples % settings.microbatches;
    const std::int64_t samples = settings.samples / settings.microbatches + (larger ? 1 : 0);
    minibatch.push_back(split_minibatch(drawn(settings, samples, generator), 1).front());
  }
  return minibatch;
}

Trace train_small(const TraceSettings& settings) {
  std::vector<Schedule> replicas;
  replicas.reserve(static_cast<std::size_t>(settings.replicas));
  for (int replica = 0; replica < settings.replicas; ++replica)
    replicas.push_back(make_schedule(settings.schedule, settings.stages,
                                     microbatches_of_replica(settings.microbatches, settings.replicas, replica)));
  return train_small(settings, side_by_side(replicas));
}

Trace train_small(const TraceSettings& settings, const Schedule& schedule) {
  PipelineSettings pipeline_settings;
  pipeline_settings.cut = settings.cut;
  pipeline_settings.threads_per_rank = 1;
  pipeline_settings.seed = 3;
  pipeline_settings.clip_norm = settings.clip;
  pipeline_settings.optimizer.kind = kind_named<OptimizerKind>(settings.optimizer).value();
  pipeline_settings.recompute = settings.recompute;
  pipeline_settings.devices = settings.devices;
  pipeline_settings.offload = settings.offload;
  pipeline_settings.precision = settings.precision;
  pipeline_settings.post_validation = settings.post_validation;
  pipeline_settings.steps_in_flight = settings.steps_in_flight;
  pipeline_settings.replicas = settings.replicas;
  pipeline_settings.shard_optimizer = settings.shard;
  pipeline_settings.gradient_tree = settings.gradient_tree;
  pipeline_settings.gradient_bucket = settings.bucket;
  Network network = small_network(settings.network, settings.dropout);
  if (settings.loss_factor != 1)
    network.loss = [loss = network.loss, factor = settings.loss_factor](const Tensors& outputs,
                                                                        const Tensors& targets) {
      const Loss plain = loss(outputs, targets);
      return Loss{plain.sum * factor, plain.weight};
    };
  Pipeline pipeline(std::move(network), verify(schedule), pipeline_settings);
  Trace trace;
  std::deque<StepHandle> in_flight;
  const auto take = [&](const StepResult& result) {
    trace.losses.push_back(result.loss);
    trace.norms.push_back(result.gradient_norm);
    trace.by_microbatch.push_back(result.losses);
    trace.skipped += result.skipped ? 1 : 0;
    trace.updated_first += result.updated_first ? 1 : 0;
    trace.taken_back += result.taken_back ? 1 : 0;
  };
  const auto take_first = [&] {
    take(in_flight.front().wait());
    in_flight.pop_front();
  };
  for (int step = 0; step < settings.steps; ++step) {
    in_flight.push_back(pipeline.submit(small_minibatch(settings, step), {step, 1e-2, false}));
    if (std::ssize(in_flight) == settings.steps_in_flight) take_first();
  }
  while (!in_flight.empty()) take_first();
  trace.weights = pipeline.weights();
  return trace;
}

void expect_same_bits(const Trace& expected, const Trace& got) {
  EXPECT_EQ(expected.losses, got.losses);
  ASSERT_EQ(expected.norms.size(), got.norms.size());
  for (std::size_t step = 0; step < expected.norms.size(); ++step) {
    // Of a step that was skipped it may be no number at all.
    const bool neither = std::isnan(expected.norms[step]) && std::isnan(got.norms[step]);
    EXPECT_TRUE(neither || expected.norms[step] == got.norms[step])
        << "step " << step << ": norm " << expected.norms[step] << " and " << got.norms[step];
  }
  EXPECT_EQ(expected.by_microbatch, got.by_microbatch);
  EXPECT_EQ(expected.skipped, got.skipped);
  ASSERT_EQ(expected.weights.size(), got.weights.size());
  for (std::size_t index = 0; index < expected.weights.size(); ++index) {
    EXPECT_EQ(expected.weights[index].first, got.weights[index].first);
    EXPECT_TRUE(at::equal(expected.weights[index].second, got.weights[index].second)) << expected.weights[index].first;
  }
}

void expect_close_losses(const Trace& expected, const Trace& got) {
  ASSERT_EQ(expected.losses.size(), got.losses.size());
  for (std::size_t step = 0; step < expected.losses.size(); ++step)
    EXPECT_NEAR(got.losses[step] / expected.losses[step], 1, 1e-6) << "step " << step;
}

void expect_close(const Trace& expected, const Trace& got) {
  expect_close_losses(expected, got);
  ASSERT_EQ(expected.weights.size(), got.weights.size());
  for (std::size_t index = 0; index < expected.weights.size(); ++index) {
    const auto difference = (expected.weights[index].second - got.weights[index].second).norm().item<double>();
    const auto size = expected.weights[index].second.norm().item<double>();
    EXPECT_LE(difference, 1e-6 * std::max(size, 1.0)) << expected.weights[index].first;
  }
}

}  // namespace penstock
