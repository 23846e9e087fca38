// What the optimizer without a barrier saves: steps that wait for the norm over all stages against steps that do not
// (`PipelineSettings::post_validation`), in turn, in one run. Layers wait instead of computing, so that what is
// measured is when ranks are done, and hold weights whose update takes some time.
#include <cstdlib>
#include <fmt/format.h>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/exec/memory.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

constexpr int ranks = 8;
constexpr int microbatches = 2 * ranks;
constexpr double action_ms = 5;

// A weight that gets a gradient of its size once a step, in the first microbatch, and no more: its update takes time,
// its backward does not.
class Ballast : public torch::nn::Module {
 public:
  explicit Ballast(std::int64_t elements) : weight_(register_parameter("weight", torch::ones({1, elements}))) {}

  at::Tensor forward(const at::Tensor& input) { return Carry::apply(input, weight_, passes_++ % microbatches == 0); }

 private:
  struct Carry : torch::autograd::Function<Carry> {
    static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                              const at::Tensor& weight, bool first) {
      if (first) context->saved_data["elements"] = weight.size(1);
      return input.clone();
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   const torch::autograd::variable_list& gradients) {
      const auto elements = context->saved_data.find("elements");
      const bool for_weight = context->needs_input_grad(1) && elements != context->saved_data.end();
      return {gradients.front(), for_weight ? at::full({1, elements->second.toInt()}, 1e-3) : at::Tensor(), {}};
    }
  };

  std::int64_t passes_ = 0;
  at::Tensor weight_;
};

Pipeline make(const VerifiedSchedule& schedule, std::int64_t elements, bool post_validation) {
  Network network;
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.clip_norm = 1e9;  // the norm is wanted and never clips
  settings.post_validation = post_validation;
  for (int stage = 0; stage < schedule->stages; ++stage) {
    settings.cut.push_back(static_cast<std::int64_t>(network.layers.size()));
    network.layers.push_back(waiting_layer({action_ms, action_ms, action_ms}));
    network.layers.push_back(layer_of<Ballast>("ballast", elements));
  }
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  return {network, schedule, settings};
}

void print_row(const std::string& name, std::int64_t elements, int steps) {
  const VerifiedSchedule schedule = verify(make_schedule(name, ranks, microbatches));
  std::vector<Pipeline> pipelines;
  for (const bool post_validation : {false, true})
    pipelines.push_back(make(schedule, elements / (schedule->stages / ranks), post_validation));
  const at::Tensor samples = at::zeros({microbatches, 1});
  const SteadyClock clock;
  std::vector<std::vector<double>> step_ms(2);
  std::vector<std::vector<double>> beyond_ms(2);
  std::vector<double> saved;
  constexpr int warm_up = 2;
  for (int step = 0; step < steps + warm_up; ++step) {
    for (int turn = 0; turn < 2; ++turn) {
      const auto which = static_cast<std::size_t>((step + turn) % 2);
      const Milliseconds start = clock.now();
      const StepResult result = pipelines[which].step(samples, samples, step, 1e-3);
      const double took = (clock.now() - start).count;
      if (step < warm_up) continue;
      step_ms[which].push_back(took);
      beyond_ms[which].push_back(took - makespan(result.timeline).count);
    }
    if (step >= warm_up) saved.push_back(1 - step_ms[1].back() / step_ms[0].back());
  }
  fmt::print("| {} | {:.0f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {:+.2f} % | {:+.2f} to {:+.2f} % |\n", name,
             static_cast<double>(elements) * 4 / 1e6, quantile(step_ms[0], 0.5), quantile(step_ms[1], 0.5),
             quantile(beyond_ms[0], 0.5), quantile(beyond_ms[1], 0.5), quantile(saved, 0.5) * 100,
             quantile(saved, 0.25) * 100, quantile(saved, 0.75) * 100);
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20;
  fmt::print(
      "| schedule | MB of weights a rank | waiting, ms | post-validated, ms | of it after the last action: waiting | "
      "post-validated | saved, median of pairs | quartiles |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
  for (const char* name : {"zb-h1", "zb-v"})
    for (const std::int64_t elements : {0, 250'000, 2'000'000}) penstock::print_row(name, elements + 2, steps);
}
