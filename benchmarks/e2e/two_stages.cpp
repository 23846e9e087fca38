// What a second stage on a second core saves: a step of gpt (8 layers, width 128, context 64, batch 32, M = 8) with two
// stages against the same with one stage, one thread a rank, alternately in one run. Prints medians and the ratio.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <fmt/format.h>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace {

using namespace penstock;

Pipeline make(const GptSettings& gpt, int stages, int microbatches) {
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.seed = 1;
  settings.clip_norm = 1;
  return {make_gpt(gpt), verify(one_f_one_b_schedule(stages, microbatches)), settings};
}

}  // namespace

int main(int argc, char** argv) {
  int steps = 20;
  int microbatches = 8;
  constexpr std::int64_t batch = 32;
  CLI::App app("Two stages on two cores against one stage on one");
  app.add_option("--steps", steps, "Measured steps of each")->capture_default_str();
  app.add_option("--microbatches", microbatches, "M")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  GptSettings gpt;
  gpt.context = 64;
  std::vector<Pipeline> pipelines;
  for (const int stages : {1, 2}) pipelines.push_back(make(gpt, stages, microbatches));
  const at::Tensor tokens = at::randint(gpt.vocabulary, {batch, gpt.context}, at::kLong);
  const SteadyClock clock;
  std::vector<std::vector<double>> step_ms(pipelines.size());
  std::vector<std::vector<double>> busy(pipelines.size());
  constexpr int warm_up = 3;
  for (int step = 0; step < steps + warm_up; ++step) {
    for (std::size_t which = 0; which < pipelines.size(); ++which) {
      const Milliseconds start = clock.now();
      const StepResult result = pipelines[which].step(tokens, tokens, step, 1e-3);
      if (step < warm_up) continue;
      step_ms[which].push_back((clock.now() - start).count);
      busy[which].push_back(utilisation(result.timeline));
    }
  }
  std::vector<double> ratios;
  ratios.reserve(step_ms[0].size());
  for (std::size_t step = 0; step < step_ms[0].size(); ++step) ratios.push_back(step_ms[1][step] / step_ms[0][step]);
  fmt::print("| stages | step, median of {} | busy |\n|---|---|---|\n", steps);
  for (std::size_t which = 0; which < pipelines.size(); ++which)
    fmt::print("| {} | {:.1f} ms | {:.0f}% |\n", which + 1, median(step_ms[which]), median(busy[which]) * 100);
  fmt::print("\nratio of the medians {:.3f}, median of the pairs' ratios {:.3f}\n",
             median(step_ms[1]) / median(step_ms[0]), median(ratios));
}
