// How long a plan takes to find, in seconds of one processor, which others on the machine do not lengthen: every size
// once more with a cap that makes stages recompute.
#include <ctime>
#include <fmt/format.h>
#include <random>

#include "penstock/base/error.h"
#include "penstock/plan/plan.h"

namespace penstock {
namespace {

/// Layers that differ, the first one small and the last one large, as those of a language model.
LayerCosts network(int layers) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> share(0.7, 1.3);
  LayerCosts costs;
  for (int index = 0; index < layers; ++index) {
    const double weight = share(random) * (index == 0 ? 0.3 : index + 1 == layers ? 3.0 : 1.0);
    LayerCost layer;
    layer.name = fmt::format("layer {}", index);
    layer.parameter = layer.gradient = {static_cast<std::int64_t>(50e6 * weight)};
    layer.optimizer = {static_cast<std::int64_t>(100e6 * weight)};
    layer.update = {0.3};
    for (const std::int64_t samples : {1, 2, 4, 8, 16, 32, 64}) {
      const double time = weight * (0.8 + 0.6 * static_cast<double>(samples));
      layer.sizes.push_back({.samples = samples,
                             .forward = {{time}},
                             .input_backward = {{time * 1.05}},
                             .weight_backward = {{time * 0.9}},
                             .activation = {static_cast<std::int64_t>(40e6 * weight) * samples},
                             .boundary = {4'000'000 * samples},
                             .forward_workspace = {2'000'000 * samples}});
    }
    costs.layers.push_back(std::move(layer));
  }
  costs.action_overhead = {0.02};
  costs.default_link = {{0.05}, 2e7};
  costs.input_bytes_per_sample = 4'000'000;
  return costs;
}

double seconds(std::clock_t ticks) { return static_cast<double>(ticks) / CLOCKS_PER_SEC; }

void measure(int ranks, int layers, std::int64_t batch, std::optional<Bytes> memory) {
  const LayerCosts costs = network(layers);
  PlanRequest request;
  request.ranks = ranks;
  request.batch = batch;
  request.memory = memory;
  const std::clock_t begin = std::clock();
  const PlanAnswer answer = make_plans(costs, request);
  const std::clock_t found = std::clock();
  static_cast<void>(neighbours(costs, request, answer));
  static_cast<void>(other_circumstances(costs, request, answer));
  const std::clock_t explained = std::clock();
  const Plan& best = answer.plans.front();
  fmt::print("| {}, {}, {} | {} | {:.2f} s | {:.2f} s | {} | {} | {} | {}, M = {} | {:.1f} % |\n", ranks, layers, batch,
             memory ? to_string(*memory) : "none", seconds(found - begin), seconds(explained - begin),
             answer.configurations, answer.simulated, answer.left_out, best.schedule, best.microbatches,
             best.prediction.utilisation * 100);
}

}  // namespace
}  // namespace penstock

int main() {
  using penstock::Bytes;
  fmt::print(
      "| ranks, layers, batch | cap | best plans | with reasons | configurations | simulated | left out | the best | "
      "computing |\n|---|---|--:|--:|--:|--:|--:|---|--:|\n");
  try {
    penstock::measure(4, 24, 64, std::nullopt);
    penstock::measure(4, 24, 64, Bytes{4'000'000'000});
    penstock::measure(16, 64, 512, std::nullopt);
    penstock::measure(16, 64, 512, Bytes{4'000'000'000});
    penstock::measure(64, 128, 4096, std::nullopt);
    penstock::measure(64, 128, 4096, Bytes{4'000'000'000});
  } catch (const penstock::Error& error) {
    fmt::print(stderr, "plan_benchmark: {}\n", error.what());
    return 1;
  }
}
