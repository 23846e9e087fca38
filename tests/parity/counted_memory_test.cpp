// What every rank holds is the same after many steps as after a few, whatever crosses the boundaries.
// PENSTOCK_MEMORY_STEPS says how many (60).
#include <cstdint>
#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"

#include "drawn_cases.h"

namespace penstock::counted_memory {
namespace {

constexpr std::int64_t size = 16;

struct Trained : torch::nn::Module {
  Trained() : linear(register_module("linear", torch::nn::Linear(size, size))) {}
  at::Tensor forward(const at::Tensor& input) { return torch::tanh(linear(input)); }
  torch::nn::Linear linear;
};
struct LastToken : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) { return (input * 2).select(1, size - 1); }
};
struct Halves : torch::nn::Module {
  Halves() : wide(register_module("wide", torch::nn::Linear(size, 2 * size))) {}
  Tensors forward(const Tensors& inputs) {
    const auto parts = wide(inputs[0]).chunk(2, -1);
    return {parts[0], parts[1]};
  }
  torch::nn::Linear wide;
};
struct Gate : torch::nn::Module {
  Tensors forward(const Tensors& inputs) { return {inputs[0] * torch::sigmoid(inputs[1])}; }
};
struct Together : torch::nn::Module {
  Together() : narrow(register_module("narrow", torch::nn::Linear(2 * size, size))) {}
  Tensors forward(const Tensors& inputs) { return {torch::tanh(narrow(at::cat({inputs[0], inputs[1]}, -1)))}; }
  torch::nn::Linear narrow;
};
struct OneRow : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) { return input.mean(1, true).expand({input.size(0), size, size}); }
};
struct Sum : torch::nn::Module {
  Sum() : linear(register_module("linear", torch::nn::Linear(size, size))) {}
  at::Tensor forward(const at::Tensor& input) { return linear(input.sum(1)) * 0.1; }
  torch::nn::Linear linear;
};
// Hands its input on as it is, beside what it makes of it.
struct Passing : torch::nn::Module {
  Tensors forward(const Tensors& inputs) { return {inputs[0] * 2, inputs[0]}; }
};

struct Case {
  std::string name;
  std::vector<LayerSpec> layers;
  bool pooled = false;
};

std::vector<Case> cases() {
  const auto trained = layer_of<Trained>("trained");
  const auto last = layer_of<LastToken>("last");
  const auto halves = layer_of<Halves>("halves");
  const auto row = layer_of<OneRow>("row");
  return {{"last token", {trained, last, trained, trained, trained, trained}, true},
          {"halves", {trained, halves, layer_of<Gate>("gate"), halves, layer_of<Together>("together"), trained}},
          {"rows", {trained, row, trained, row, trained, trained}},
          {"sum", {trained, trained, trained, trained, layer_of<Sum>("sum"), trained}, true},
          {"passing",
           {trained, layer_of<Passing>("passing"), layer_of<Gate>("gate"), layer_of<Passing>("passing"),
            layer_of<Together>("together"), trained}}};
}

Network network_of(const Case& of, bool tied) {
  Network network;
  network.layers = of.layers;
  network.loss = squared_error;
  if (tied) network.ties = {{{0, "linear.weight"}, {5, "linear.weight"}}};
  return network;
}

std::vector<std::int64_t> peaks_of(Pipeline& pipeline, const std::vector<Microbatch>& minibatch, int steps) {
  pipeline.begin_accounting();
  for (int step = 0; step < steps; ++step)
    static_cast<void>(pipeline.step(minibatch, {.step = step, .learning_rate = 0, .keep_outputs = step % 2 == 0}));
  std::vector<std::int64_t> peaks;
  for (const Bytes& peak : pipeline.peak_memory()) peaks.push_back(peak.count);
  return peaks;
}

class CountedMemory : public testing::TestWithParam<std::string> {};

TEST_P(CountedMemory, IsTheSameAfterManySteps) {
  const auto steps = static_cast<int>(from_environment("PENSTOCK_MEMORY_STEPS", drawn_cases(60)));
  for (const Case& of : cases()) {
    for (const int replicas : {1, 2}) {
      SCOPED_TRACE(of.name + (replicas == 1 ? "" : ", two replicas, sharded"));
      PipelineSettings settings;
      settings.replicas = replicas;
      settings.shard_optimizer = replicas > 1;
      const std::vector<Schedule> schedules(static_cast<std::size_t>(replicas), make_schedule(GetParam(), 3, 4));
      Pipeline pipeline(network_of(of, /*tied=*/true), verify(side_by_side(schedules)), settings);
      const std::int64_t samples = std::int64_t{4} * replicas;
      const at::Tensor input = torch::randn({samples, size, size});
      const at::Tensor target = of.pooled ? torch::randn({samples, size}) : torch::randn({samples, size, size});
      const auto minibatch = split_minibatch({{{input}}, {{target}}}, 4 * replicas);
      static_cast<void>(peaks_of(pipeline, minibatch, 5));
      const auto early = peaks_of(pipeline, minibatch, 5);
      static_cast<void>(peaks_of(pipeline, minibatch, steps));
      EXPECT_EQ(peaks_of(pipeline, minibatch, 5), early);
    }
  }
}

TEST_P(CountedMemory, ALimitALittleAboveTheNeedHoldsForGood) {
  for (const Case& of : cases()) {
    SCOPED_TRACE(of.name);
    const at::Tensor input = torch::randn({4, size, size});
    const at::Tensor target = of.pooled ? torch::randn({4, size}) : torch::randn({4, size, size});
    const auto minibatch = split_minibatch({{{input}}, {{target}}}, 4);
    const VerifiedSchedule schedule = verify(make_schedule(GetParam(), 3, 4));
    PipelineSettings settings;
    for (const std::int64_t peak : [&] {
           Pipeline pipeline(network_of(of, false), schedule, settings);
           return peaks_of(pipeline, minibatch, 5);
         }())
      settings.memory_limit = Bytes{std::max(settings.memory_limit.count, peak + peak / 4)};
    Pipeline pipeline(network_of(of, false), schedule, settings);
    EXPECT_NO_THROW(static_cast<void>(peaks_of(pipeline, minibatch, drawn_cases(60))));
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, CountedMemory, testing::Values("1f1b", "zb-h1", "zb-v"));

}  // namespace
}  // namespace penstock::counted_memory
