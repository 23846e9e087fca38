#include "penstock/diagnosis/bubbles.h"

#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <numeric>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/steps.h"

namespace penstock {
namespace {

void check(const BubbleSettings& settings) {
  if (settings.stages < 1 || settings.steps < 1)
    throw bad_input(fmt::format("{} stages and {} steps", settings.stages, settings.steps), "at least 1 of each",
                    "raise `stages` or `steps`");
  for (const std::string& schedule : settings.schedules)
    if (schedule == "forward-only")
      throw bad_input("forward-only among the schedules", "schedules that train", "leave it out");
  if (!(settings.clip_norm >= 0))
    throw bad_input(fmt::format("`clip` = {}", settings.clip_norm), "at least 0", "raise `clip`");
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
StepsInARow theory(const VerifiedSchedule& schedule, const std::vector<WaitingTimes>& times, int steps) {
  Cost cost;
  cost.stages.reserve(times.size());
  for (const WaitingTimes& stage_times : times) {
    StageCost stage;
    stage.forward = {stage_times.forward_ms};
    stage.input_backward = {stage_times.input_backward_ms};
    stage.weight_backward = {stage_times.weight_backward_ms};
    cost.stages.push_back(stage);
  }
  StageCost& first = cost.stages.front();
  first.weight_backward = first.input_backward + first.weight_backward;
  first.input_backward = {0};
  return simulate_in_a_row(schedule, cost, steps);
}

Network waiting_network(const std::vector<WaitingTimes>& times) {
  Network network;
  for (const WaitingTimes& stage_times : times) network.layers.push_back(waiting_layer(stage_times));
  network.loss = [](const Tensors& outputs, const Tensors&) {
    return Loss{outputs.front().sum(), static_cast<double>(outputs.front().size(0))};
  };
  return network;
}

// When a step ended, on the machine's clock.
double end_of(const StepResult& step) { return step.begun.count + makespan(step.timeline).count; }

double computing_ms(const Timeline& timeline) {
  double sum = 0;
  for (std::int32_t rank = 0; rank < std::ssize(timeline.ranks); ++rank) sum += busy_time(timeline, {rank}).count;
  return sum;
}

// One step that is not counted, and then the row behind it. A single step is measured three times, alone.
BubbleRow measure(const BubbleSettings& settings, const std::string& name, int microbatches) {
  PipelineSettings pipeline_settings;
  pipeline_settings.threads_per_rank = 1;
  pipeline_settings.clip_norm = settings.clip_norm;
  pipeline_settings.post_validation = settings.clip_norm > 0;
  const VerifiedSchedule schedule = verify(make_schedule(name, settings.stages, microbatches));
  const std::vector<WaitingTimes> times = times_of_stages(settings, schedule->stages);
  Pipeline pipeline(waiting_network(times), schedule, pipeline_settings);
  const at::Tensor samples = at::zeros({microbatches, 1});
  const StepsInARow expected = theory(schedule, times, settings.steps + (settings.steps > 1 ? 1 : 0));
  const auto row = [&](double step_ms, double busy_ms) {
    return BubbleRow{name,    microbatches,       expected.utilisation, busy_ms / (step_ms * schedule->ranks()),
                     step_ms, expected.pace.count};
  };
  std::int64_t step = 0;
  const auto submit = [&] { return pipeline.submit(samples, samples, step++, /*learning_rate=*/0); };
  submit().wait();
  if (settings.steps == 1) {
    std::vector<std::pair<double, double>> alone;
    for (int again = 0; again < 3; ++again) {
      const Timeline timeline = submit().wait().timeline;
      alone.emplace_back(makespan(timeline).count, computing_ms(timeline));
    }
    std::sort(alone.begin(), alone.end());
    return row(alone[1].first, alone[1].second);
  }
  std::deque<StepHandle> in_flight;
  double first_end = 0;
  double last_end = 0;
  double busy_ms = 0;
  for (int number = 0; number <= settings.steps || !in_flight.empty(); ++number) {
    if (number <= settings.steps) in_flight.push_back(submit());
    if (number == 0) continue;
    const StepResult result = in_flight.front().wait();
    in_flight.pop_front();
    last_end = end_of(result);
    if (number == 1)
      first_end = last_end;
    else
      busy_ms += computing_ms(result.timeline);
  }
  return row((last_end - first_end) / settings.steps, busy_ms / settings.steps);
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
