// Prediction against measurement where nothing but the schedule counts: 200 seeded pipelines of layers that wait,
// unequal, on 2 to 64 ranks with emulated links. Prints how far the simulated step is from the median of three measured
// ones.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"
#include "penstock/train/pipeline.h"
#include "penstock/transport/emulated_links.h"

namespace penstock {
namespace {

// Long enough that threads of many ranks, all of which two cores have to wake, do not queue for a core; all cases take
// nine minutes together.
double wanted_step_ms(int ranks) { return ranks <= 16 ? 350 : 40.0 * ranks; }

struct Case {
  VerifiedSchedule schedule;
  Cost cost;
  std::vector<WaitingTimes> times;
};

// A schedule of a random family; nothing where the family does not allow these numbers.
std::optional<VerifiedSchedule> random_schedule(std::mt19937& random) {
  const auto families = schedule_families();
  const auto& family = families[std::uniform_int_distribution<std::size_t>(0, families.size() - 1)(random)];
  constexpr std::array few_of_many_ranks = {2, 2, 4, 4, 8, 8, 16, 16, 32, 64};
  const int ranks = few_of_many_ranks[std::uniform_int_distribution<int>(0, 9)(random)];
  const int microbatches = ranks / 2 * std::uniform_int_distribution<int>(1, ranks <= 16 ? 4 : 2)(random);
  if (family.name == "forward-only" || (family.name == "naive" && ranks > 8)) return std::nullopt;
  try {
    return verify(make_schedule(family.name, ranks, microbatches));
  } catch (const Error&) {
    return std::nullopt;
  }
}

Case random_case(unsigned seed) {
  std::mt19937 random(seed);
  std::optional<VerifiedSchedule> schedule;
  while (!schedule) schedule = random_schedule(random);
  std::lognormal_distribution<double> time(0, 0.4);
  Case drawn{*schedule, {}, {}};
  for (int stage = 0; stage < drawn.schedule->stages; ++stage) {
    drawn.times.push_back({time(random), time(random), time(random)});
    StageCost cost;
    cost.forward = {drawn.times.back().forward_ms};
    cost.input_backward = {drawn.times.back().input_backward_ms};
    cost.weight_backward = {drawn.times.back().weight_backward_ms};
    cost.boundary = {4};
    // The first stage's input needs no gradient: its I does nothing, its W all.
    if (stage == 0) cost.weight_backward += std::exchange(cost.input_backward, {});
    drawn.cost.stages.push_back(cost);
  }
  std::uniform_real_distribution<double> latency(0.05, 1);
  std::uniform_real_distribution<double> bandwidth(4, 40);  // a message takes 0.1 to 1 ms
  for (std::int32_t from = 0; from < drawn.schedule->ranks(); ++from)
    for (std::int32_t to = 0; to < drawn.schedule->ranks(); ++to)
      if (from != to) drawn.cost.links[{{from}, {to}}] = {{latency(random)}, bandwidth(random)};
  // Of about the same length each.
  const double factor = wanted_step_ms(drawn.schedule->ranks()) /
                        makespan(simulate(drawn.schedule, drawn.cost, {.record_memory = false})).count;
  for (std::size_t stage = 0; stage < drawn.times.size(); ++stage) {
    WaitingTimes& times = drawn.times[stage];
    times = {times.forward_ms * factor, times.input_backward_ms * factor, times.weight_backward_ms * factor};
    StageCost& cost = drawn.cost.stages[stage];
    for (Milliseconds* part : {&cost.forward, &cost.input_backward, &cost.weight_backward}) part->count *= factor;
  }
  return drawn;
}

double measured_ms(const Case& of) {
  Network network;
  for (const WaitingTimes& times : of.times) network.layers.push_back(waiting_layer(times));
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.links = [&of](std::vector<std::unique_ptr<Transport>> ends) {
    return with_emulated_links(std::move(ends), [&of](RankId from, RankId to) {
      const LinkCost& link = link_between(of.cost, from, to);
      return EmulatedLink{link.latency, link.bytes_per_millisecond};
    });
  };
  Pipeline pipeline(std::move(network), of.schedule, settings);
  const at::Tensor samples = at::zeros({of.schedule->microbatches, 1});
  std::vector<double> steps;
  constexpr int measured_steps = 3;
  for (int step = 0; step <= measured_steps; ++step) {
    const Timeline timeline = pipeline.step(samples, samples, step, 0).timeline;
    if (step > 0) steps.push_back(makespan(compute_actions(timeline)).count);
  }
  return quantile(steps, 0.5);
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 200;
  std::map<int, std::vector<double>> by_ranks;
  std::vector<double> all;
  for (int index = 0; index < cases; ++index) {
    const penstock::Case drawn = penstock::random_case(static_cast<unsigned>(index));
    const double predicted = makespan(simulate(drawn.schedule, drawn.cost, {.record_memory = false})).count;
    const double error = std::abs(predicted / penstock::measured_ms(drawn) - 1);
    by_ranks[drawn.schedule->ranks()].push_back(error);
    all.push_back(error);
  }
  fmt::print("| ranks | cases | median error | 95 % within |\n|--:|--:|--:|--:|\n");
  for (const auto& [ranks, errors] : by_ranks)
    fmt::print("| {} | {} | {:.2f} % | {:.2f} % |\n", ranks, errors.size(), penstock::quantile(errors, 0.5) * 100,
               penstock::quantile(errors, 0.95) * 100);
  const auto within = std::count_if(all.begin(), all.end(), [](double error) { return error <= 0.03; });
  fmt::print("\nwithin 3 %: {} of {} cases\n", within, all.size());
}
