#include "penstock/pipeline/step_overhead.h"

#include <fmt/format.h>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/base/types.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace penstock {
namespace {

class Scaling : public torch::nn::Module {
 public:
  Scaling() : weight_(register_parameter("weight", torch::ones({1}))) {}
  at::Tensor forward(const at::Tensor& input) { return input * weight_; }

 private:
  at::Tensor weight_;
};

}  // namespace

Milliseconds measured_step_overhead(int ranks, int threads_per_rank) {
  if (ranks < 1 || threads_per_rank < 1)
    throw bad_input(fmt::format("steps on {} ranks of {} threads", ranks, threads_per_rank), "at least 1 of each",
                    "change `ranks` or `threads_per_rank`");
  Network network;
  for (int layer = 0; layer < ranks; ++layer)
    network.layers.push_back({"scaling", "", [] { return Layer(std::make_shared<Scaling>()); }});
  network.loss = [](const Tensors& outputs, const Tensors&) {
    return Loss{outputs.front().sum(), static_cast<double>(outputs.front().numel())};
  };
  PipelineSettings settings;
  settings.threads_per_rank = threads_per_rank;
  settings.clip_norm = 1;
  Pipeline pipeline(std::move(network), verify(make_schedule("1f1b", ranks, ranks)), settings);
  const at::Tensor samples = at::ones({ranks, 1});
  const SteadyClock clock;
  constexpr int warm_up = 5;
  constexpr int measured = 31;
  std::vector<double> beside_passes;
  beside_passes.reserve(measured);
  for (int step = 0; step < warm_up + measured; ++step) {
    const Milliseconds start = clock.now();
    const StepResult result = pipeline.step(samples, samples, step, 0);
    if (step >= warm_up) beside_passes.push_back((clock.now() - start - makespan(result.timeline)).count);
  }
  return {quantile(beside_passes, 0.5)};
}

}  // namespace penstock
