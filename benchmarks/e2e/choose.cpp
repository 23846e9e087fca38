// Is the plan's choice the best? `choose waiting`: 20 seeded networks of layers that wait, of which every configuration
// of schedule and microbatches is planned and measured. `choose real`: gpt, mlp and convnet of three sizes on 2 ranks,
// profiled, planned, and every configuration of two schedules and four numbers of microbatches measured. Prints how
// much slower the choice is than the best that was measured. `choose real all [NETWORK]` shows every configuration too.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <random>
#include <string_view>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/exec/memory.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/plan.h"

#include "real_networks.h"
#include "waiting_pipeline.h"

namespace penstock {
namespace {

constexpr std::array quoted_schedules = {"gpipe", "1f1b", "zb-h1", "zb-h2", "chimera", "interleaved-1f1b"};

// A layer's wait at so many samples: a fixed part and one for each.
struct Growing {
  WaitingTimes fixed;
  WaitingTimes each;
  [[nodiscard]] WaitingTimes at(double samples) const {
    return {fixed.forward_ms + samples * each.forward_ms, fixed.input_backward_ms + samples * each.input_backward_ms,
            fixed.weight_backward_ms + samples * each.weight_backward_ms};
  }
};

std::vector<Growing> random_layers(std::mt19937& random, int layers) {
  std::lognormal_distribution<double> time(0, 0.5);
  std::vector<Growing> drawn;
  for (int layer = 0; layer < layers; ++layer) {
    const double forward = time(random);
    const double input = forward * std::uniform_real_distribution<double>(0.8, 1.2)(random);
    const double weight = forward * std::uniform_real_distribution<double>(0.6, 1.2)(random);
    drawn.push_back({{0.3 * forward, 0.3 * input, 0.3 * weight}, {0.5 * forward, 0.5 * input, 0.5 * weight}});
  }
  return drawn;
}

struct Overheads {
  WaitingOverheads layer;
  double action_ms = 0;
};

// What a second and a third layer add to a pass is theirs, and the rest the action's.
Overheads measured_overheads(int ranks) {
  const WaitingOverheads one = waiting_overheads(ranks, true);
  const WaitingOverheads three = waiting_overheads(ranks, true, 3);
  const auto of_layer = [](double of_one, double of_three) { return std::max(0.0, (of_three - of_one) / 2); };
  Overheads overheads{{of_layer(one.forward_ms, three.forward_ms),
                       of_layer(one.input_backward_ms, three.input_backward_ms),
                       of_layer(one.weight_backward_ms, three.weight_backward_ms), one.message_ms}};
  const WaitingOverheads& layer = overheads.layer;
  const double of_passes = one.forward_ms + one.input_backward_ms + one.weight_backward_ms - layer.forward_ms -
                           layer.input_backward_ms - layer.weight_backward_ms;
  overheads.action_ms = std::max(0.0, of_passes / 3);
  return overheads;
}

// As a profile on so many ranks would have them: each wait with what it takes beside its time.
LayerCosts costs_of(const std::vector<Growing>& layers, std::int64_t batch, const Overheads& measured) {
  const WaitingOverheads& overheads = measured.layer;
  LayerCosts costs;
  costs.action_overhead = {measured.action_ms};
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    LayerCost cost;
    cost.name = std::to_string(layer);
    for (const std::int64_t samples : {std::int64_t{1}, batch}) {
      WaitingTimes times = layers[layer].at(static_cast<double>(samples));
      times.forward_ms += overheads.forward_ms;
      times.input_backward_ms += overheads.input_backward_ms;
      times.weight_backward_ms += overheads.weight_backward_ms;
      // The network's input needs no gradient: there the weights' half does all.
      if (layer == 0) times.weight_backward_ms += std::exchange(times.input_backward_ms, 0);
      LayerAtSize size{samples, {{times.forward_ms}}, {{times.input_backward_ms}}, {{times.weight_backward_ms}}};
      // Of a layer in one piece, one wait.
      if (layer > 0)
        size.backward = {{times.input_backward_ms + times.weight_backward_ms -
                          (overheads.input_backward_ms + overheads.weight_backward_ms) / 2}};
      cost.sizes.push_back(size);
    }
    costs.layers.push_back(std::move(cost));
  }
  costs.default_link.latency = {overheads.message_ms};
  return costs;
}

// A plan on its way through the measurements.
struct Contender {
  Plan plan;
  std::unique_ptr<Pipeline> pipeline;
  std::vector<double> ms;  // by round, from the first one on
  [[nodiscard]] double median_ms() const { return quantile(ms, 0.5); }
};

// By how much the choice is slower than another, as a share, from the rounds in which both were measured one after the
// other: a machine that is slow for a while is slow for both.
struct Slower {
  double median = 0;
  double error = 0;  // the standard error of the median
};

Slower slower(const Contender& choice, const Contender& other) {
  std::vector<double> ratios(other.ms.size());
  std::transform(other.ms.begin(), other.ms.end(), choice.ms.begin(), ratios.begin(),
                 [](double others, double chosen) { return chosen / others; });
  return {quantile(ratios, 0.5) - 1, error_of_median(ratios)};
}

// How long contenders are measured.
struct Rounds {
  int of_all = 1;  // before those that cannot win are left out
  int fewest = 1;  // of the others
  int most = 1;
  double budget_ms = 0;
};

// All contenders in turn, round by round. After the first rounds only those within 30 % of the best go on, each until
// it is surely slower than the choice, or the difference is known to half a percent.
template <class Measure>
void measure_in_turn(std::vector<Contender>& contenders, const Rounds& rounds, const Measure& measure) {
  constexpr double near = 1.3;
  constexpr double standard_errors = 2;
  constexpr double known = 0.005;
  const SteadyClock clock;
  for (int round = 0; round < rounds.of_all; ++round)
    for (Contender& next : contenders) next.ms.push_back(measure(next));
  const double best = std::ranges::min_element(contenders, {}, &Contender::median_ms)->median_ms();
  std::vector<Contender*> open;
  for (std::size_t index = 1; index < contenders.size(); ++index)
    if (contenders[index].median_ms() < near * best) open.push_back(&contenders[index]);
  const Milliseconds start = clock.now();
  for (int round = rounds.of_all; round < rounds.most && !open.empty(); ++round) {
    if (round >= rounds.fewest && (clock.now() - start).count > rounds.budget_ms) break;
    Contender& choice = contenders.front();
    choice.ms.push_back(measure(choice));
    for (Contender* next : open) next->ms.push_back(measure(*next));
    if (round < rounds.fewest) continue;
    std::erase_if(open, [&](const Contender* next) {
      const Slower found = slower(choice, *next);
      return found.error < known || found.median + standard_errors * found.error < 0;
    });
  }
}

// The best plan of each configuration; where there is none, it is left out.
std::vector<Plan> all_configurations(const LayerCosts& costs, PlanRequest request) {
  const std::vector<std::string> schedules = request.schedules;
  const std::vector<int> counts = request.microbatches;
  request.most_plans = 1;
  std::vector<Plan> plans;
  for (const std::string& schedule : schedules)
    for (const int count : counts) {
      request.schedules = {schedule};
      request.microbatches = {count};
      try {
        plans.push_back(make_plans(costs, request).plans.front());
      } catch (const Error&) {
        continue;  // this schedule does not allow that number
      }
    }
  return plans;
}

// The choice first.
std::vector<Plan> choice_and_others(const LayerCosts& costs, const PlanRequest& request) {
  std::vector<Plan> plans{make_plans(costs, request).plans.front()};
  for (Plan& other : all_configurations(costs, request))
    if (other.schedule != plans.front().schedule || other.microbatches != plans.front().microbatches)
      plans.push_back(std::move(other));
  return plans;
}

Contender contender(const Plan& plan, Network network) {
  PipelineSettings settings;
  settings.cut = plan.cut;
  settings.threads_per_rank = 1;
  Contender made{plan, nullptr, {}};
  made.pipeline = std::make_unique<Pipeline>(std::move(network), schedule_of(plan), settings);
  return made;
}

std::vector<Contender> measure_waiting(const std::vector<Growing>& layers, const std::vector<Plan>& plans) {
  std::vector<Contender> contenders;
  for (const Plan& plan : plans) {
    std::vector<WaitingTimes> times(layers.size());
    std::ranges::transform(layers, times.begin(), [&](const Growing& layer) { return layer.at(plan.samples()); });
    contenders.push_back(contender(plan, waiting_network(times)));
  }
  measure_in_turn(contenders, {1, 4, 40, 30'000}, [](const Contender& of) {
    return makespan(compute_actions(waiting_steps(*of.pipeline, of.plan.batch, 1).front())).count;
  });
  return contenders;
}

// How much slower the first contender is than the best of all.
double print_regret(const std::string& name, const std::vector<Contender>& contenders) {
  const Contender& chosen = contenders.front();
  const Contender* best = &chosen;
  Slower most;
  for (std::size_t index = 1; index < contenders.size(); ++index) {
    const Slower found = slower(chosen, contenders[index]);
    if (found.median <= most.median) continue;
    most = found;
    best = &contenders[index];
  }
  fmt::print("| {} | {} | {} | {}, M = {} | {:.2f} | {:.2f} | {}, M = {} | {:.2f} | {:+.2f} ± {:.2f} % |\n", name,
             chosen.plan.ranks, contenders.size(), chosen.plan.schedule, chosen.plan.microbatches,
             chosen.plan.prediction.step.count, chosen.median_ms(), best->plan.schedule, best->plan.microbatches,
             best->median_ms(), most.median * 100, most.error * 100);
  std::fflush(stdout);
  return most.median;
}

// Every configuration's prediction beside its measurement.
void print_all(const std::vector<Contender>& contenders) {
  for (const Contender& each : contenders)
    fmt::print("    {}, M = {}: predicted {:.2f} ms, measured {:.2f} ms in {} rounds\n", each.plan.schedule,
               each.plan.microbatches, each.plan.prediction.step.count, each.median_ms(), each.ms.size());
}

void print_sum(const std::vector<double>& regrets, double bar) {
  fmt::print("\nthe choice is at most {:.2f} % slower than the best measured; within {:.0f} %: {} of {}\n",
             quantile(regrets, 1) * 100, bar * 100,
             std::count_if(regrets.begin(), regrets.end(), [&](double slower) { return slower <= bar; }),
             regrets.size());
}

void choose_waiting(int cases) {
  constexpr std::int64_t batch = 24;
  std::vector<double> regrets;
  std::map<int, Overheads> overheads;
  for (int seed = 0; seed < cases; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const std::vector<Growing> layers = random_layers(random, std::uniform_int_distribution<int>(6, 10)(random));
    PlanRequest request;
    request.ranks = 2 + seed % 3;
    request.batch = batch;
    request.microbatches = {1, 2, 3, 4, 6, 8, 12, 24};
    request.schedules.assign(std::begin(quoted_schedules), std::end(quoted_schedules));
    const auto [found, is_new] = overheads.try_emplace(request.ranks);
    if (is_new) found->second = measured_overheads(request.ranks);
    const LayerCosts costs = costs_of(layers, batch, found->second);
    const std::vector<Plan> plans = choice_and_others(costs, request);
    regrets.push_back(print_regret(std::to_string(seed), measure_waiting(layers, plans)));
  }
  print_sum(regrets, 0.02);
}

std::vector<Contender> measure_real(const RealNetwork& of, const std::vector<Plan>& plans) {
  std::vector<Contender> contenders;
  contenders.reserve(plans.size());
  for (const Plan& plan : plans) contenders.push_back(contender(plan, of.network));
  const Microbatch minibatch = of.microbatch(plans.front().batch);
  std::int64_t step = 0;
  const SteadyClock clock;
  const auto step_ms = [&](const Contender& next) {
    const Milliseconds start = clock.now();
    next.pipeline->step(minibatch.inputs.front(), minibatch.targets.front(), step++, 1e-4);
    return (clock.now() - start).count;
  };
  measure_in_turn(contenders, {5, 15, 400, 60'000}, [&](const Contender& next) {
    step_ms(next);  // finds the caches cold
    return step_ms(next);
  });
  return contenders;
}

void choose_real(bool shows_all, std::string_view only) {
  std::vector<double> regrets;
  for (const RealNetwork& of : real_networks()) {
    if (!only.empty() && of.name != only) continue;
    const LayerCosts costs = profiled_costs(of, 2);
    PlanRequest request;
    request.ranks = 2;
    request.batch = 32;
    request.schedules = {"1f1b", "gpipe"};
    request.microbatches = {2, 4, 8, 16};
    const std::vector<Plan> plans = choice_and_others(costs, request);
    const std::vector<Contender> contenders = measure_real(of, plans);
    regrets.push_back(print_regret(of.name, contenders));
    if (!shows_all) continue;
    fmt::print("    contention {:.3f}, a message {:.3f} ms, median known to {:.1f} %\n", costs.contention,
               costs.default_link.latency.count, costs.measured ? costs.measured->spread * 100 : 0);
    LayerCosts uncontended = costs;
    uncontended.contention = 1;
    const Plan other = make_plans(uncontended, request).plans.front();
    fmt::print("    without contention the choice would be {}, M = {}, predicted {:.2f} ms\n", other.schedule,
               other.microbatches, other.prediction.step.count);
    print_all(contenders);
  }
  print_sum(regrets, 0.05);
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  const std::string_view which = argc > 1 ? argv[1] : "waiting";
  fmt::print(
      "| case | ranks | measured | chosen | predicted, ms | measured, ms | best | ms | slower |\n"
      "|---|--:|--:|---|--:|--:|---|--:|--:|\n");
  if (which == "real") {
    penstock::choose_real(argc > 2 && std::string_view(argv[2]) == "all", argc > 3 ? argv[3] : "");
  } else {
    penstock::choose_waiting(argc > 2 ? std::atoi(argv[2]) : 20);
  }
}
