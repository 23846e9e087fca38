// Steps that begin before the last one has ended: the bits of steps that wait for each other, whatever is clipped,
// skipped, taken back or asked between them.
#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <torch/nn/modules/linear.h>

#include "penstock/schedule/generators.h"

#include "parity/small_networks.h"

namespace penstock::in_flight_test {
namespace {

using testing::HasSubstr;

TraceSettings some_steps(const std::string& network) {
  TraceSettings settings;
  settings.network = network;
  settings.steps = 6;
  settings.samples = 9;
  return settings;
}

Schedule schedule_for(const std::string& name, const TraceSettings& settings) {
  const bool loop = find_schedule_family(name)->stages_per_rank == 1;
  return make_schedule(name, loop ? 4 : 2, settings.microbatches);
}

class InFlight : public testing::TestWithParam<std::string> {};  // schedule

TEST_P(InFlight, AnyNumberOfStepsHasTheBitsOfOne) {
  for (const char* network : {"tied gpt", "skips", "batch norm"}) {
    for (const double clip : {0.0, 0.05, 1e6}) {
      TraceSettings settings = some_steps(network);
      settings.clip = clip;
      const Trace one = train_small(settings);
      for (const auto& [in_flight, updates_first] : {std::pair(2, false), std::pair(1, true), std::pair(3, true)}) {
        SCOPED_TRACE(
            fmt::format("{}, clip {}, {} in flight, updates first {}", network, clip, in_flight, updates_first));
        settings.steps_in_flight = in_flight;
        settings.post_validation = updates_first;
        const Trace cut = train_small(settings, schedule_for(GetParam(), settings));
        expect_same_bits(one, cut);
        const bool may_clip = updates_first && clip > 0 && clip < 1e6;
        EXPECT_EQ(cut.taken_back > 0, may_clip);
      }
    }
  }
}

// The update that was hoped for puts infinities into the weights, and the next step runs on them until it is taken
// back.
TEST_P(InFlight, SkippedStepsAreTakenBackToTheBit) {
  TraceSettings settings = some_steps("mlp");
  settings.precision = Precision::Float16;
  settings.loss_factor = 1000;
  settings.steps = 12;
  const Trace one = train_small(settings);
  ASSERT_GT(one.skipped, 0);
  settings.post_validation = true;
  settings.steps_in_flight = 2;
  const Trace cut = train_small(settings, schedule_for(GetParam(), settings));
  expect_same_bits(one, cut);
  EXPECT_GT(cut.taken_back, 0);
}

// In the turns of the measurement both kinds of updates meet, and whatever is chosen then has the same bits.
TEST_P(InFlight, WhatIsChosenByMeasurementHasTheBitsOfOneStage) {
  TraceSettings settings = some_steps("tied gpt");
  settings.steps = 40;
  settings.clip = 0.5;
  settings.post_validation = false;
  const Trace one = train_small(settings);
  settings.post_validation = std::nullopt;
  settings.steps_in_flight = 2;
  const Trace cut = train_small(settings, schedule_for(GetParam(), settings));
  expect_same_bits(one, cut);
  EXPECT_GT(cut.updated_first, 0);
}

INSTANTIATE_TEST_SUITE_P(Schedules, InFlight,
                         testing::Values("gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved-1f1b", "zb-v", "v-min"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(InFlightReplicas, HaveTheBitsOfReplicasThatWait) {
  for (const char* schedule : {"1f1b", "zb-v", "chimera"}) {
    for (const bool shard : {false, true}) {
      for (const double clip : {0.0, 0.05}) {
        SCOPED_TRACE(fmt::format("{}, sharded {}, clip {}", schedule, shard, clip));
        TraceSettings settings = some_steps("tied gpt");
        settings.schedule = schedule;
        settings.stages = 2;
        settings.replicas = 2;
        settings.microbatches = 8;
        settings.samples = 8;
        settings.shard = shard;
        settings.clip = clip;
        const Trace waiting = train_small(settings);
        settings.steps_in_flight = 2;
        settings.post_validation = true;
        expect_same_bits(waiting, train_small(settings));
      }
    }
  }
}

// It has no losses, and the others must not wait for them.
TEST(InFlightReplicas, AHolderOfTheLastStageMayHaveNoMicrobatch) {
  for (const char* schedule : {"chimera", "dualpipe"}) {
    SCOPED_TRACE(schedule);
    TraceSettings settings = some_steps("mlp");
    settings.schedule = schedule;
    settings.stages = 4;
    settings.microbatches = 1;
    settings.clip = 0;
    const Trace waiting = train_small(settings);
    settings.steps_in_flight = 2;
    expect_same_bits(waiting, train_small(settings));
  }
}

// Of one input and output; what `forward` does beside is each kind's.
class Odd : public torch::nn::Module {
 public:
  enum class Kind : std::uint8_t { Plain, RefusesInfinity, Counts, ReturnsItsWeight };

  explicit Odd(Kind kind) : kind_(kind) {
    linear_ = register_module("linear", torch::nn::Linear(6, 6));
    count_ = register_buffer("count", at::zeros({1}));
  }

  Tensors forward(const Tensors& inputs) {
    const at::Tensor& input = inputs.front();
    if (kind_ == Kind::RefusesInfinity && !at::isfinite(linear_->weight).all().item<bool>())
      throw std::runtime_error("a weight that is not finite");
    at::Tensor output = at::tanh(linear_(input));
    if (kind_ == Kind::Counts) {
      count_.add_(1);
      output = output * (1 + 0.01 * count_.detach().clone());
    }
    if (inputs.size() > 1) output = output + at::linear(input, inputs[1]);
    if (kind_ == Kind::ReturnsItsWeight) return {output, linear_->weight};
    return {output};
  }

 private:
  Kind kind_;
  torch::nn::Linear linear_ = nullptr;
  at::Tensor count_;
};

Network odd_network(Odd::Kind kind) {
  Network network;
  for (int layer = 0; layer < 8; ++layer) network.layers.push_back(layer_of<Odd>("odd", kind));
  network.loss = [](const Tensors& outputs, const Tensors& targets) {
    return Loss{(outputs.front() - targets.front()).square().sum(), static_cast<double>(targets.front().size(0))};
  };
  return network;
}

std::vector<Microbatch> odd_minibatch(std::int64_t step, int microbatches, double scale) {
  at::manual_seed(static_cast<std::uint64_t>(step));
  const std::int64_t samples = std::int64_t{2} * microbatches;
  const at::Tensor input = at::randn({samples, 6});
  return split_minibatch({{{input}}, {{at::randn({samples, 6}) * scale}}}, microbatches);
}

Trace train_odd(Odd::Kind kind, const PipelineSettings& settings, const Schedule& schedule, double scale) {
  Pipeline pipeline(odd_network(kind), verify(schedule), settings);
  Trace trace;
  std::deque<StepHandle> in_flight;
  const auto take_first = [&] {
    const StepResult result = in_flight.front().wait();
    in_flight.pop_front();
    trace.losses.push_back(result.loss);
    trace.norms.push_back(result.gradient_norm);
    trace.skipped += result.skipped ? 1 : 0;
    trace.taken_back += result.taken_back ? 1 : 0;
  };
  for (int step = 0; step < 10; ++step) {
    in_flight.push_back(pipeline.submit(odd_minibatch(step, schedule.microbatches, scale), {step, 1e-2}));
    if (std::ssize(in_flight) == settings.steps_in_flight) take_first();
  }
  while (!in_flight.empty()) take_first();
  trace.weights = pipeline.weights();
  return trace;
}

void compare_odd(Odd::Kind kind, PipelineSettings settings, double scale, bool is_taken_back) {
  settings.seed = 3;
  settings.steps_in_flight = 1;
  const Trace one = train_odd(kind, settings, make_schedule("1f1b", 1, 6), scale);
  settings.post_validation = true;
  settings.steps_in_flight = 2;
  for (const char* schedule : {"gpipe", "1f1b", "zb-h2", "zb-v"}) {
    SCOPED_TRACE(schedule);
    const Trace cut = train_odd(kind, settings, make_schedule(schedule, schedule[3] == 'v' ? 2 : 4, 6), scale);
    expect_same_bits(one, cut);
    EXPECT_EQ(cut.taken_back > 0, is_taken_back);
  }
}

TEST(InFlightLayers, ALayerThatFailsOnWeightsThatAreTakenBackHasNotFailed) {
  PipelineSettings settings;
  settings.optimizer.kind = "sgd";
  settings.precision = Precision::Float16;
  compare_odd(Odd::Kind::RefusesInfinity, settings, 100, true);
}

TEST(InFlightLayers, BuffersAreThoseOfTheStepsThatStay) {
  PipelineSettings settings;
  settings.clip_norm = 0.5;
  compare_odd(Odd::Kind::Counts, settings, 1, true);
}

// A rank updates its weight while the next still computes with it.
TEST(InFlightLayers, AWeightThatALayerReturnsStaysForWhoComputesWithIt) {
  PipelineSettings settings;
  settings.clip_norm = 0;
  compare_odd(Odd::Kind::ReturnsItsWeight, settings, 1, false);
  settings.clip_norm = 100;
  compare_odd(Odd::Kind::ReturnsItsWeight, settings, 1, false);
}

TEST(InFlightLayers, AFailureComesWithItsStepAndThoseBehindIt) {
  Network network = odd_network(Odd::Kind::Plain);
  network.loss = [loss = network.loss](const Tensors& outputs, const Tensors& targets) {
    if (targets.front().item<double>() > 3) throw std::runtime_error("a target above 3");
    return loss(outputs, {outputs.front().detach() * 0});
  };
  PipelineSettings settings;
  settings.steps_in_flight = 3;
  Pipeline pipeline(std::move(network), verify(make_schedule("1f1b", 4, 4)), settings);
  const auto minibatch = [&](double target) {
    std::vector<Microbatch> parts = odd_minibatch(0, 4, 1);
    for (Microbatch& part : parts) part.targets = {at::full({1}, target)};
    return parts;
  };
  std::deque<StepHandle> steps;
  for (const double target : {1, 2, 4}) steps.push_back(pipeline.submit(minibatch(target), {std::ssize(steps), 1e-3}));
  EXPECT_EQ(steps[0].wait().weight, 8);
  for (const int step : {1, 2}) {
    try {
      const StepResult result = steps[static_cast<std::size_t>(step)].wait();
      // Its ranks may have agreed before the next one failed.
      EXPECT_EQ(step, 1) << "step 2 has no result";
      EXPECT_EQ(result.weight, 8);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("a target above 3"));
    }
  }
  EXPECT_THROW(static_cast<void>(pipeline.submit(minibatch(1), {3, 1e-3})), Error);
}

TEST(InFlightLayers, AStepIsWaitedForOnce) {
  Pipeline pipeline(odd_network(Odd::Kind::Plain), verify(make_schedule("1f1b", 2, 4)), {});
  StepHandle step = pipeline.submit(odd_minibatch(0, 4, 1), {0, 1e-3});
  EXPECT_GT(step.wait().loss, 0);
  EXPECT_THROW(step.wait(), Error);
}

// Whatever is done between submits, in any order of waiting, each step has the result that it has alone.
TEST(InFlightCalls, NoResultIsLostOrOutOfOrderWhateverComesBetween) {
  constexpr int calls = 1000;
  constexpr int microbatches = 4;
  PipelineSettings settings;
  settings.seed = 3;
  settings.clip_norm = 0.5;
  std::vector<StepResult> expected;
  const auto minibatch = [&](std::int64_t step) { return odd_minibatch(step % 7, microbatches, 1); };
  for (const bool updates_first : {false, true}) {
    settings.post_validation = updates_first;
    settings.steps_in_flight = updates_first ? 3 : 1;
    Pipeline pipeline(odd_network(Odd::Kind::Counts), verify(make_schedule("zb-h1", 3, microbatches)), settings);
    std::mt19937 random(5);
    std::map<std::int64_t, StepHandle> handles;
    std::int64_t next = 0;
    const auto wait_for = [&](std::int64_t step) {
      const StepResult result = handles.extract(step).mapped().wait();
      if (!updates_first) {
        expected.resize(static_cast<std::size_t>(std::max<std::int64_t>(std::ssize(expected), step + 1)));
        expected[static_cast<std::size_t>(step)] = result;
        return;
      }
      EXPECT_EQ(result.loss, expected[static_cast<std::size_t>(step)].loss) << "step " << step;
      EXPECT_EQ(result.gradient_norm, expected[static_cast<std::size_t>(step)].gradient_norm);
      EXPECT_EQ(result.stop_signal, expected[static_cast<std::size_t>(step)].stop_signal);
    };
    for (int call = 0; call < calls && !testing::Test::HasFailure(); ++call) {
      switch (random() % 8) {
        case 0:
          static_cast<void>(pipeline.evaluate({minibatch(call)}));
          break;
        case 1:
          static_cast<void>(pipeline.weights());
          break;
        case 2:
          static_cast<void>(pipeline.peak_memory());
          break;
        default:
          handles.emplace(next, pipeline.submit(minibatch(next), {next, 1e-3, false, next % 5 == 0 ? 15 : 0}));
          ++next;
          // The last one has no follower yet; any other has.
          if (random() % 4 == 0) wait_for(next - 1);
          while (std::ssize(handles) > 2) wait_for(handles.begin()->first);
      }
    }
    while (!handles.empty()) wait_for(handles.rbegin()->first);
  }
  ASSERT_GT(expected.size(), 500);
}

}  // namespace
}  // namespace penstock::in_flight_test
