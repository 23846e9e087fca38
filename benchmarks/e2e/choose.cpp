// Is the plan's choice the best? `choose waiting`: 20 seeded networks of layers that wait, of which every configuration
// of schedule and microbatches is planned and measured. `choose real`: gpt, mlp and convnet of three sizes on 2 ranks,
// profiled, planned, and every configuration of two schedules and four numbers of microbatches measured. Prints how
// much slower the choice is than the best that was measured.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <random>
#include <string_view>

#include "penstock/base/clock.h"
#include "penstock/base/quantile.h"
#include "penstock/exec/memory.h"
#include "penstock/plan/plan.h"
#include "penstock/train/pipeline.h"

#include "real_networks.h"

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

LayerCosts costs_of(const std::vector<Growing>& layers, std::int64_t batch) {
  LayerCosts costs;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    LayerCost cost;
    cost.name = std::to_string(layer);
    for (const std::int64_t samples : {std::int64_t{1}, batch}) {
      WaitingTimes times = layers[layer].at(static_cast<double>(samples));
      // The network's input needs no gradient: there the weights' half does all.
      if (layer == 0) times.weight_backward_ms += std::exchange(times.input_backward_ms, 0);
      cost.sizes.push_back({samples, {{times.forward_ms}}, {{times.input_backward_ms}}, {{times.weight_backward_ms}}});
    }
    costs.layers.push_back(std::move(cost));
  }
  return costs;
}

double waiting_ms(const std::vector<Growing>& layers, const Plan& plan) {
  Network network;
  for (const Growing& layer : layers) network.layers.push_back(waiting_layer(layer.at(plan.samples())));
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  PipelineSettings settings;
  settings.cut = plan.cut;
  settings.threads_per_rank = 1;
  Pipeline pipeline(std::move(network), schedule_of(plan), settings);
  const at::Tensor samples = at::zeros({plan.batch, 1});
  std::vector<double> steps;
  constexpr int measured_steps = 3;
  for (int step = 0; step <= measured_steps; ++step) {
    const Timeline timeline = pipeline.step(samples, samples, step, 0).timeline;
    if (step > 0) steps.push_back(makespan(compute_actions(timeline)).count);
  }
  return quantile(steps, 0.5);
}

// The best plan of each configuration; where there is none, it is left out.
std::vector<Plan> all_configurations(const LayerCosts& costs, PlanRequest request,
                                     const std::vector<std::string>& schedules, const std::vector<int>& counts) {
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

// How much slower the first is than the best of all.
template <class Measure>
double regret(const Plan& chosen, const std::vector<Plan>& others, const Measure& measure) {
  const double of_choice = measure(chosen);
  double best = of_choice;
  for (const Plan& plan : others) best = std::min(best, measure(plan));
  return of_choice / best - 1;
}

int choose_waiting(int cases) {
  constexpr std::int64_t batch = 24;
  std::vector<double> regrets;
  const std::vector<std::string> schedules(std::begin(quoted_schedules), std::end(quoted_schedules));
  for (int seed = 0; seed < cases; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const std::vector<Growing> layers = random_layers(random, std::uniform_int_distribution<int>(6, 10)(random));
    const LayerCosts costs = costs_of(layers, batch);
    PlanRequest request;
    request.ranks = 2 + seed % 3;
    request.batch = batch;
    request.microbatches = {1, 2, 3, 4, 6, 8, 12, 24};
    request.schedules = schedules;
    const Plan chosen = make_plans(costs, request).plans.front();
    const double slower = regret(chosen, all_configurations(costs, request, schedules, request.microbatches),
                                 [&](const Plan& plan) { return waiting_ms(layers, plan); });
    regrets.push_back(slower);
    fmt::print("| {} | {} | {}, M = {} | {:+.2f} % |\n", seed, request.ranks, chosen.schedule, chosen.microbatches,
               slower * 100);
    std::fflush(stdout);
  }
  fmt::print("\nthe choice is at most {:.2f} % slower than the best measured; within 2 %: {} of {}\n",
             quantile(regrets, 1) * 100,
             std::count_if(regrets.begin(), regrets.end(), [](double slower) { return slower <= 0.02; }),
             regrets.size());
  return 0;
}

double real_ms(const RealNetwork& of, const Plan& plan) {
  PipelineSettings settings;
  settings.cut = plan.cut;
  settings.threads_per_rank = 1;
  Pipeline pipeline(of.network, schedule_of(plan), settings);
  const Microbatch minibatch = of.microbatch(plan.batch);
  const SteadyClock clock;
  std::vector<double> steps;
  constexpr int warm_up = 2;
  constexpr int measured_steps = 9;
  for (int step = 0; step < warm_up + measured_steps; ++step) {
    const Milliseconds start = clock.now();
    pipeline.step(minibatch.inputs.front(), minibatch.targets.front(), step, 1e-4);
    if (step >= warm_up) steps.push_back((clock.now() - start).count);
  }
  return quantile(steps, 0.5);
}

int choose_real() {
  std::vector<double> regrets;
  for (const RealNetwork& of : real_networks()) {
    const LayerCosts costs = profiled_costs(of, 2);
    PlanRequest request;
    request.ranks = 2;
    request.batch = 32;
    request.schedules = {"1f1b", "gpipe"};
    request.microbatches = {2, 4, 8, 16};
    const Plan chosen = make_plans(costs, request).plans.front();
    const double slower = regret(chosen, all_configurations(costs, request, request.schedules, request.microbatches),
                                 [&](const Plan& plan) { return real_ms(of, plan); });
    regrets.push_back(slower);
    fmt::print("| {} | 2 | {}, M = {} | {:+.2f} % |\n", of.name, chosen.schedule, chosen.microbatches, slower * 100);
    std::fflush(stdout);
  }
  fmt::print("\nthe choice is at most {:.2f} % slower than the best measured; within 5 %: {} of {}\n",
             quantile(regrets, 1) * 100,
             std::count_if(regrets.begin(), regrets.end(), [](double slower) { return slower <= 0.05; }),
             regrets.size());
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  const std::string_view which = argc > 1 ? argv[1] : "waiting";
  fmt::print("| case | ranks | chosen | slower than the best measured |\n|---|--:|---|--:|\n");
  return which == "real" ? penstock::choose_real() : penstock::choose_waiting(argc > 2 ? std::atoi(argv[2]) : 20);
}
