// Prediction against measurement on real layers: networks of three kinds and sizes on 2 ranks with one thread each, M
// of 2, 4, 8 and 16. Of each network a profile and its runs follow each other; the second round, minutes later,
// profiles anew. Prints the step's error for each and the largest error of a rank's peak memory, and at the end both
// medians; beside the error the noise floor: how far the same step is from itself, measured minutes apart.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/exec/memory.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/plan.h"

#include "real_networks.h"

namespace penstock {
namespace {

constexpr int ranks = 2;
constexpr std::int64_t batch = 32;
constexpr int measured_steps = 9;

struct Measured {
  double step_ms = 0;
  std::vector<Bytes> memory;
};

Measured measure(const RealNetwork& of, const Plan& plan) {
  PipelineSettings settings;
  settings.cut = plan.cut;
  settings.threads_per_rank = 1;
  settings.clip_norm = 1;
  settings.post_validation = false;  // otherwise it is measured with and without, and takes copies of the weights
  Pipeline pipeline(of.network, schedule_of(plan), settings);
  const Microbatch minibatch = of.microbatch(batch);
  const SteadyClock clock;
  std::vector<double> steps;
  constexpr int warm_up = 3;
  for (int step = 0; step < warm_up + measured_steps; ++step) {
    const Milliseconds start = clock.now();
    pipeline.step(minibatch.inputs.front(), minibatch.targets.front(), step, 1e-4);
    if (step >= warm_up) steps.push_back((clock.now() - start).count);
  }
  return {quantile(steps, 0.5), pipeline.peak_memory()};
}

struct Errors {
  std::vector<double> step;
  std::vector<double> memory;                                           // of every rank
  std::map<std::pair<std::string, int>, std::vector<double>> measured;  // by network and M, ms a round
};

// By how much two rounds' measurements of the same step differ.
std::vector<double> noise_of(const Errors& errors) {
  std::vector<double> noise;
  for (const auto& [of, ms] : errors.measured)
    for (std::size_t round = 1; round < ms.size(); ++round) noise.push_back(std::abs(ms[round] / ms[round - 1] - 1));
  return noise;
}

void compare(const RealNetwork& of, Errors& errors) {
  const LayerCosts costs = profiled_costs(of, ranks);
  for (const int microbatches : {2, 4, 8, 16}) {
    PlanRequest request;
    request.ranks = ranks;
    request.batch = batch;
    request.schedules = {"1f1b"};
    request.microbatches = {microbatches};
    request.most_plans = 1;
    const Plan plan = make_plans(costs, request).plans.front();
    const Measured measured = measure(of, plan);
    const double step = plan.prediction.step.count / measured.step_ms - 1;
    errors.step.push_back(std::abs(step));
    errors.measured[{of.name, microbatches}].push_back(measured.step_ms);
    double worst = 0;
    for (std::size_t rank = 0; rank < measured.memory.size(); ++rank) {
      const double off =
          static_cast<double>(plan.prediction.memory[rank].count) / static_cast<double>(measured.memory[rank].count) -
          1;
      errors.memory.push_back(std::abs(off));
      if (std::abs(off) > std::abs(worst)) worst = off;
    }
    fmt::print("| {} | {} | {:.2f} | {:.2f} | {:+.1f} % | {:+.1f} % | {}, {:.1f} % |\n", of.name, microbatches,
               plan.prediction.step.count, measured.step_ms, step * 100, worst * 100, costs.measured->rounds,
               costs.measured->spread * 100);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 2;
  penstock::Errors errors;
  fmt::print(
      "| network | M | predicted, ms | measured, ms | step | memory of the worst rank | rounds, spread |\n"
      "|---|--:|--:|--:|--:|--:|--:|\n");
  for (int round = 0; round < rounds; ++round)
    for (const penstock::RealNetwork& of : penstock::real_networks()) penstock::compare(of, errors);
  using penstock::quantile;
  fmt::print(
      "\nstep: median error {:.1f} %, 95 % within {:.1f} %; memory of a rank: median {:.1f} %, at most {:.1f} %\n",
      quantile(errors.step, 0.5) * 100, quantile(errors.step, 0.95) * 100, quantile(errors.memory, 0.5) * 100,
      quantile(errors.memory, 1) * 100);
  const std::vector<double> noise = penstock::noise_of(errors);
  if (!noise.empty())
    fmt::print(
        "noise floor: the same step, measured twice minutes apart, differs by {:.1f} % (median), 95 % within {:.1f} "
        "%\n",
        quantile(noise, 0.5) * 100, quantile(noise, 0.95) * 100);
}
