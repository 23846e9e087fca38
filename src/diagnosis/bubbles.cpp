#include "penstock/diagnosis/bubbles.h"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

void check(const BubbleSettings& settings) {
  if (settings.stages < 1 || settings.steps < 1)
    throw bad_input(fmt::format("{} stages and {} steps", settings.stages, settings.steps), "at least 1 of each",
                    "raise `stages` or `steps`");
  for (const std::string& schedule : settings.schedules)
    if (schedule == "forward-only")
      throw bad_input("forward-only among the schedules", "schedules that train", "leave it out");
  for (const int microbatches : settings.microbatches)
    if (microbatches < 1)
      throw bad_input(fmt::format("{} microbatches", microbatches), "at least 1", "raise `microbatches`");
  if (settings.relative_times.empty())
    throw bad_input("no relative times of the stages", "at least one", "leave `relative_times` out");
  for (const double time : settings.relative_times)
    if (!(time > 0 && time <= 1000))
      throw bad_input(fmt::format("a relative time of {}", time), "more than 0 and at most 1000",
                      "change `relative_times`");
  for (const double wait : {settings.forward_ms, settings.backward_ms})
    if (!(wait > 0 && wait < 60'000))
      throw bad_input(fmt::format("an action of {} ms", wait), "more than 0 and less than a minute",
                      "change `forward_ms` or `backward_ms`");
}

// By stage.
std::vector<WaitingTimes> times_of_stages(const BubbleSettings& settings, int stages) {
  std::vector<double> relative;
  relative.reserve(static_cast<std::size_t>(stages));
  for (std::size_t stage = 0; stage < static_cast<std::size_t>(stages); ++stage)
    relative.push_back(settings.relative_times[stage % settings.relative_times.size()]);
  // All stages together wait as long as all devices' would.
  const double part = settings.stages / std::accumulate(relative.begin(), relative.end(), 0.0);
  std::vector<WaitingTimes> times;
  times.reserve(relative.size());
  for (const double share : relative) {
    const double backward = settings.backward_ms * share * part / 2;
    times.push_back({settings.forward_ms * share * part, backward, backward});
  }
  return times;
}

// What the simulator makes of the same waits. The first stage has no input gradient: its I is empty, its W does all.
double theory(const VerifiedSchedule& schedule, const std::vector<WaitingTimes>& times) {
  Cost cost;
  cost.stages.reserve(times.size());
  for (const WaitingTimes& of_stage : times) {
    StageCost stage;
    stage.forward = {of_stage.forward_ms};
    stage.input_backward = {of_stage.input_backward_ms};
    stage.weight_backward = {of_stage.weight_backward_ms};
    cost.stages.push_back(stage);
  }
  StageCost& first = cost.stages.front();
  first.weight_backward = first.input_backward + first.weight_backward;
  first.input_backward = {0};
  return utilisation(simulate(schedule, cost, {.record_memory = false}));
}

Network waiting_network(const std::vector<WaitingTimes>& times) {
  Network network;
  for (const WaitingTimes& of_stage : times) network.layers.push_back(waiting_layer(of_stage));
  network.loss = [](const Tensors& outputs, const Tensors&) {
    return Loss{outputs.front().sum(), static_cast<double>(outputs.front().size(0))};
  };
  return network;
}

BubbleRow measure(const BubbleSettings& settings, const std::string& name, int microbatches) {
  PipelineSettings pipeline_settings;
  pipeline_settings.threads_per_rank = 1;
  const VerifiedSchedule schedule = verify(make_schedule(name, settings.stages, microbatches));
  const std::vector<WaitingTimes> times = times_of_stages(settings, schedule->stages);
  Pipeline pipeline(waiting_network(times), schedule, pipeline_settings);
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
