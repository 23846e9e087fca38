// The executor against the limit: layers that wait 10 ms in every action, so that whatever the measured step takes
// longer than the simulated one is the executor's own.
#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

constexpr double action_ms = 10;
constexpr int measured_steps = 3;

Network waiting_network(int stages) {
  Network network;
  for (int stage = 0; stage < stages; ++stage)
    network.layers.push_back(waiting_layer({action_ms, action_ms, action_ms}));
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  return network;
}

// The first stage's input needs no gradient: its I does nothing and its W all.
double simulated_ms(const VerifiedSchedule& schedule) {
  StageCost stage;
  stage.forward = stage.input_backward = stage.weight_backward = {action_ms};
  Cost cost = uniform_cost(schedule->stages, stage);
  cost.stages.front().input_backward = {0};
  cost.stages.front().weight_backward = {2 * action_ms};
  return makespan(simulate(schedule, cost, {.record_memory = false})).count;
}

double measured_ms(const VerifiedSchedule& schedule) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  Pipeline pipeline(waiting_network(schedule->stages), schedule, settings);
  const at::Tensor samples = at::zeros({schedule->microbatches, 1});
  std::vector<double> steps;
  for (int step = 0; step <= measured_steps; ++step) {
    const Timeline timeline = pipeline.step(samples, samples, step, 0).timeline;
    if (step > 0) steps.push_back(makespan(compute_actions(timeline)).count);
  }
  return median(std::move(steps));
}

void print_rows(int ranks) {
  for (const ScheduleFamily& family : schedule_families()) {
    // Naive on many ranks takes minutes in which one of them works.
    if (family.name == "forward-only" || (family.name == "naive" && ranks > 4)) continue;
    const VerifiedSchedule schedule = verify(make_schedule(family.name, ranks, ranks));
    const double simulated = simulated_ms(schedule);
    const double measured = measured_ms(schedule);
    fmt::print("| {} | {} | {} | {:.1f} | {:.1f} | {:+.2f} % |\n", family.name, ranks, schedule->microbatches,
               simulated, measured, (measured / simulated - 1) * 100);
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  fmt::print(
      "| schedule | ranks | microbatches | simulated ms | measured ms | difference |\n|---|--:|--:|--:|--:|--:|\n");
  if (argc > 1) {
    for (int index = 1; index < argc; ++index) penstock::print_rows(std::atoi(argv[index]));
    return 0;
  }
  for (const int ranks : {4, 16, 64}) penstock::print_rows(ranks);
  return 0;
}
