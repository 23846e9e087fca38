// Prediction against measurement where nothing but the schedule counts: 200 seeded pipelines of layers that wait,
// unequal, on 2 to 64 ranks with emulated links. What a wait and a message take beside their times is measured once for
// each number of ranks, on a pipeline of its own. Prints how far the simulated step is from the median of three
// measured ones.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "penstock/base/quantile.h"
#include "penstock/sim/simulate.h"

#include "waiting_pipeline.h"

namespace penstock {
namespace {

// Long enough that threads of many ranks, all of which two cores have to wake, do not queue for a core; all cases take
// ten minutes together.
double wanted_step_ms(int ranks) { return ranks <= 16 ? 350 : 40.0 * ranks; }

struct Case {
  std::string family;
  VerifiedSchedule schedule;
  Cost cost;
  std::vector<WaitingTimes> times;
};

// A schedule of a random family; nothing where the family does not allow these numbers.
std::optional<Case> random_schedule(std::mt19937& random) {
  const auto families = schedule_families();
  const auto& family = families[std::uniform_int_distribution<std::size_t>(0, families.size() - 1)(random)];
  constexpr std::array few_of_many_ranks = {2, 2, 4, 4, 8, 8, 16, 16, 32, 64};
  const int ranks = few_of_many_ranks[std::uniform_int_distribution<int>(0, 9)(random)];
  const int microbatches = ranks / 2 * std::uniform_int_distribution<int>(1, ranks <= 16 ? 4 : 2)(random);
  if (family.name == "forward-only" || (family.name == "naive" && ranks > 8)) return std::nullopt;
  try {
    return Case{std::string(family.name), verify(make_schedule(family.name, ranks, microbatches)), {}, {}};
  } catch (const Error&) {
    return std::nullopt;
  }
}

Case random_case(unsigned seed) {
  std::mt19937 random(seed);
  std::optional<Case> with_schedule;
  while (!with_schedule) with_schedule = random_schedule(random);
  Case drawn = *std::move(with_schedule);
  std::lognormal_distribution<double> time(0, 0.4);
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
  Pipeline pipeline(waiting_network(of.times), of.schedule, emulating_links_of(of.cost));
  std::vector<double> steps;
  for (const Timeline& timeline : waiting_steps(pipeline, of.schedule->microbatches, 3))
    steps.push_back(makespan(compute_actions(timeline)).count);
  return quantile(steps, 0.5);
}

bool has_split_backward(const Schedule& schedule) {
  return std::any_of(schedule.actions.begin(), schedule.actions.end(), [](const auto& row) {
    return std::any_of(row.begin(), row.end(),
                       [](const Action& action) { return action.kind == ActionKind::WeightBackward; });
  });
}

class Predictions {
 public:
  double predicted_ms(const Case& of) {
    const std::pair sort{of.schedule->ranks(), has_split_backward(of.schedule.get())};
    const auto [found, is_new] = overheads_.try_emplace(sort);
    if (is_new) found->second = waiting_overheads(sort.first, sort.second);
    const WaitingOverheads& overheads = found->second;
    Cost cost = of.cost;
    for (StageCost& stage : cost.stages) {
      stage.forward.count += overheads.forward_ms;
      stage.input_backward.count += overheads.input_backward_ms;
      stage.weight_backward.count += overheads.weight_backward_ms;
    }
    for (auto& [ends, link] : cost.links) link.latency.count += overheads.message_ms;
    return makespan(simulate(of.schedule, cost, {.record_memory = false})).count;
  }
  void print() const {
    fmt::print("| ranks | backward | F, ms | I, ms | W, ms | message, ms |\n|--:|---|--:|--:|--:|--:|\n");
    for (const auto& [sort, of] : overheads_)
      fmt::print("| {} | {} | {:.3f} | {:.3f} | {:.3f} | {:.3f} |\n", sort.first, sort.second ? "in halves" : "whole",
                 of.forward_ms, of.input_backward_ms, of.weight_backward_ms, of.message_ms);
  }

 private:
  std::map<std::pair<int, bool>, WaitingOverheads> overheads_;
};

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 200;
  std::map<int, std::vector<double>> by_ranks;
  std::vector<std::pair<double, std::string>> all;
  penstock::Predictions predictions;
  for (int index = 0; index < cases; ++index) {
    const penstock::Case drawn = penstock::random_case(static_cast<unsigned>(index));
    const double predicted = predictions.predicted_ms(drawn);
    const double measured = penstock::measured_ms(drawn);
    const double error = std::abs(predicted / measured - 1);
    by_ranks[drawn.schedule->ranks()].push_back(error);
    all.emplace_back(
        error, fmt::format("case {}, {} on {} ranks, M = {}: {:.1f} ms predicted, {:.1f} ms measured", index,
                           drawn.family, drawn.schedule->ranks(), drawn.schedule->microbatches, predicted, measured));
  }
  fmt::print("| ranks | cases | median error | 95 % within |\n|--:|--:|--:|--:|\n");
  for (const auto& [ranks, errors] : by_ranks)
    fmt::print("| {} | {} | {:.2f} % | {:.2f} % |\n", ranks, errors.size(), penstock::quantile(errors, 0.5) * 100,
               penstock::quantile(errors, 0.95) * 100);
  fmt::print("\nBeside the times of passes and links, measured on layers that are alike:\n\n");
  predictions.print();
  const auto within = std::count_if(all.begin(), all.end(), [](const auto& of_case) { return of_case.first <= 0.03; });
  fmt::print("\nwithin 3 %: {} of {} cases; the furthest off:\n", within, all.size());
  std::sort(all.rbegin(), all.rend());
  for (std::size_t index = 0; index < std::min<std::size_t>(all.size(), 5); ++index)
    fmt::print("{:.2f} %  {}\n", all[index].first * 100, all[index].second);
}
