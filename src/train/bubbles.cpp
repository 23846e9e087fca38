#include "penstock/train/bubbles.h"

#include <algorithm>
#include <fmt/format.h>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"
#include "penstock/train/pipeline.h"

namespace penstock {
namespace {

void check(const BubbleSettings& settings) {
  if (settings.stages < 1 || settings.steps < 1)
    throw bad_input(fmt::format("{} stages and {} steps", settings.stages, settings.steps), "at least 1 of each",
                    "raise --stages or --steps");
  for (const std::string& schedule : settings.schedules)
    if (schedule == "forward-only")
      throw bad_input("forward-only among the schedules", "schedules that train", "leave it out");
  for (const int microbatches : settings.microbatches)
    if (microbatches < 1)
      throw bad_input(fmt::format("{} microbatches", microbatches), "at least 1", "raise --microbatches");
  for (const double wait : {settings.forward_ms, settings.backward_ms})
    if (!(wait > 0 && wait < 60'000))
      throw bad_input(fmt::format("an action of {} ms", wait), "more than 0 and less than a minute",
                      "change --forward-ms or --backward-ms");
}

WaitingTimes times_of_stage(const BubbleSettings& settings, int stages) {
  const double part = static_cast<double>(settings.stages) / stages;
  return {settings.forward_ms * part, settings.backward_ms * part / 2, settings.backward_ms * part / 2};
}

// What the simulator makes of the same waits. The first stage has no input gradient: its I is empty, its W does all.
double theory(const VerifiedSchedule& schedule, const WaitingTimes& times) {
  StageCost stage;
  stage.forward = {times.forward_ms};
  stage.input_backward = {times.input_backward_ms};
  stage.weight_backward = {times.weight_backward_ms};
  Cost cost = uniform_cost(schedule->stages, stage);
  cost.stages.front().input_backward = {0};
  cost.stages.front().weight_backward = {times.input_backward_ms + times.weight_backward_ms};
  return utilisation(simulate(schedule, cost, {.record_memory = false}));
}

Network waiting_network(int stages, const WaitingTimes& times) {
  Network network;
  for (int stage = 0; stage < stages; ++stage) network.layers.push_back(waiting_layer(times));
  network.loss = [](const Tensors& outputs, const Tensors&) {
    return Loss{outputs.front().sum(), static_cast<double>(outputs.front().size(0))};
  };
  return network;
}

BubbleRow measure(const BubbleSettings& settings, const std::string& name, int microbatches) {
  PipelineSettings pipeline_settings;
  pipeline_settings.threads_per_rank = 1;
  const VerifiedSchedule schedule = verify(make_schedule(name, settings.stages, microbatches));
  const WaitingTimes times = times_of_stage(settings, schedule->stages);
  Pipeline pipeline(waiting_network(schedule->stages, times), schedule, pipeline_settings);
  const at::Tensor samples = at::zeros({microbatches, 1});
  std::vector<std::pair<double, double>> steps;  // time, utilisation
  for (int step = 0; step <= settings.steps; ++step) {
    const Timeline timeline = pipeline.step(samples, samples, step, /*learning_rate=*/0).timeline;
    if (step > 0) steps.emplace_back(makespan(timeline).count, utilisation(timeline));
  }
  std::sort(steps.begin(), steps.end());
  const auto [step_ms, measured] = steps[steps.size() / 2];
  return {name, microbatches, theory(schedule, times), measured, step_ms};
}

}  // namespace

std::vector<BubbleRow> measure_bubbles(const BubbleSettings& settings) {
  check(settings);
  std::vector<BubbleRow> rows;
  for (const std::string& schedule : settings.schedules)
    for (const int microbatches : settings.microbatches) rows.push_back(measure(settings, schedule, microbatches));
  return rows;
}

}  // namespace penstock
