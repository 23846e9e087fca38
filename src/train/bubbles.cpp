#include "penstock/train/bubbles.h"

#include <algorithm>
#include <fmt/format.h>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/train/pipeline.h"

namespace penstock {
namespace {

void check(const BubbleSettings& settings) {
  if (settings.stages < 1 || settings.steps < 1)
    throw bad_input(fmt::format("{} stages and {} steps", settings.stages, settings.steps), "at least 1 of each",
                    "raise --stages or --steps");
  for (const int microbatches : settings.microbatches)
    if (microbatches < 1)
      throw bad_input(fmt::format("{} microbatches", microbatches), "at least 1", "raise --microbatches");
  for (const double wait : {settings.forward_ms, settings.backward_ms})
    if (!(wait > 0 && wait < 60'000))
      throw bad_input(fmt::format("an action of {} ms", wait), "more than 0 and less than a minute",
                      "change --forward-ms or --backward-ms");
}

double theory(const std::string& schedule, int ranks, int microbatches) {
  if (schedule == "naive") return 1.0 / ranks;
  return static_cast<double>(microbatches) / (microbatches + ranks - 1);
}

Network waiting_network(const BubbleSettings& settings) {
  Network network;
  for (int stage = 0; stage < settings.stages; ++stage)
    network.layers.push_back(waiting_layer(settings.forward_ms, settings.backward_ms));
  network.loss = [](const Tensors& outputs, const at::Tensor&) {
    return Loss{outputs.front().sum(), static_cast<double>(outputs.front().size(0))};
  };
  return network;
}

BubbleRow measure(const BubbleSettings& settings, const std::string& schedule, int microbatches) {
  PipelineSettings pipeline_settings;
  pipeline_settings.threads_per_rank = 1;
  Pipeline pipeline(waiting_network(settings), verify(make_schedule(schedule, settings.stages, microbatches)),
                    pipeline_settings);
  const at::Tensor samples = at::zeros({microbatches, 1});
  std::vector<std::pair<double, double>> steps;  // time, utilisation
  for (int step = 0; step <= settings.steps; ++step) {
    const Timeline timeline = pipeline.step(samples, samples, step, /*learning_rate=*/0).timeline;
    if (step > 0) steps.emplace_back(makespan(timeline).count, utilisation(timeline));
  }
  std::sort(steps.begin(), steps.end());
  const auto [step_ms, measured] = steps[steps.size() / 2];
  return {schedule, microbatches, theory(schedule, settings.stages, microbatches), measured, step_ms};
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
