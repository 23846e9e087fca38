// What an action costs beside its kernels, on one core: all of it, and its parts.
#include <benchmark/benchmark.h>

#include <torch/torch.h>

#include "penstock/exec/message_kind.h"
#include "penstock/exec/rank.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

// Takes a tensor and gives it back: autograd's least work.
struct Nothing : torch::nn::Module {
  Nothing() : weight(register_parameter("weight", torch::zeros({1}))) {}
  at::Tensor forward(const at::Tensor& input) const { return input + weight; }
  at::Tensor weight;
};

Network network_of(int layers) {
  Network network;
  for (int layer = 0; layer < layers; ++layer) network.layers.push_back(layer_of<Nothing>("nothing"));
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  return network;
}

// Ranks are threads of their own: it is the wall clock that counts.
void per_action(benchmark::State& state, std::int64_t actions) {
  state.SetItemsProcessed(state.iterations() * actions);
}

// A whole step of one rank: F and B of every microbatch, one addition as the kernel, with its update.
void whole_step(benchmark::State& state, const char* schedule_name, int stages) {
  constexpr int microbatches = 256;
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.optimizer.kind = OptimizerKind::Sgd;
  const VerifiedSchedule schedule = verify(make_schedule(schedule_name, 1, microbatches));
  Pipeline pipeline(network_of(schedule->stages), schedule, settings);
  const at::Tensor samples = at::ones({microbatches, 1});
  std::int64_t step = 0;
  for ([[maybe_unused]] auto turn : state) benchmark::DoNotOptimize(pipeline.step(samples, samples, step++, 0).loss);
  per_action(state, std::int64_t{microbatches} * stages * (schedule_name[0] == 'z' ? 3 : 2));
}

// The same without autograd and without a loss.
void forward_only(benchmark::State& state) {
  constexpr int microbatches = 256;
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  Pipeline pipeline(network_of(1), verify(make_schedule("1f1b", 1, microbatches)), settings);
  const std::vector<Microbatch> samples = split_minibatch({{{at::ones({microbatches, 1})}}, {}}, microbatches);
  for ([[maybe_unused]] auto turn : state) benchmark::DoNotOptimize(pipeline.forward(samples));
  per_action(state, microbatches);
}

// What libtorch itself takes for the same operators and graphs, one after the other.
void plain_libtorch(benchmark::State& state) {
  const Nothing layer;
  const at::Tensor sample = at::ones({1, 1});
  for ([[maybe_unused]] auto turn : state) {
    const at::Tensor input = sample.detach();
    layer.forward(input).sum().backward();
  }
  per_action(state, 2);
}

// A message from a rank to itself: what is left of a hand-off when nobody has to wake.
void hand_off(benchmark::State& state) {
  const auto ends = make_inproc_transport(1);
  const at::Tensor tensor = at::ones({1});
  std::int32_t microbatch = 0;
  for ([[maybe_unused]] auto turn : state) {
    const Tag tag{MessageKind::Activation, 0, microbatch++ % 64};
    ends.front()->send({0}, tag, {tensor});
    benchmark::DoNotOptimize(ends.front()->receive({0}, tag));
  }
  per_action(state, 1);
}

// The machine alone: actions that have nothing to do.
void dispatch(benchmark::State& state) {
  const SteadyClock clock;
  MemoryMeter memory;
  const auto ends = make_inproc_transport(1);
  Program program;
  program.microbatches = 1;
  program.stages = {{0}};
  constexpr std::size_t actions = 256;
  program.instructions.assign(actions, {{ActionKind::Idle, {0}, {0}}, 0, {}, -1});
  StageParts parts;
  parts.layers.emplace_back(std::make_shared<Nothing>());
  std::vector<Stage> stages;
  stages.emplace_back(std::move(parts));
  RankExecutor executor(std::move(stages), *ends.front(), clock, memory);
  StepInput input;
  input.settings.with_loss = false;
  for ([[maybe_unused]] auto turn : state) benchmark::DoNotOptimize(executor.run(program, input).events.data());
  per_action(state, actions);
}

BENCHMARK_CAPTURE(whole_step, F_and_B, "1f1b", 1)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK_CAPTURE(whole_step, F_I_and_W, "zb-h1", 1)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK_CAPTURE(whole_step, F_I_and_W_two_stages, "zb-v", 2)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(forward_only)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(plain_libtorch)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(hand_off)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(dispatch)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
