#include "profile/layer_update.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/nn/parameters.h"

namespace penstock {

std::function<void()> layer_update(const OptimizerSettings& settings, const Layer& layer) {
  std::vector<Optimizer::Parameter> parameters;
  for (const ModuleParameter& parameter : parameters_of(layer))
    if (parameter.tensor.requires_grad()) parameters.push_back({parameter.names.front(), parameter.tensor});
  const auto optimizer = std::make_shared<Optimizer>(settings, parameters);
  return [optimizer, parameters = std::move(parameters)] {
    // So small that repeated updates leave the weights, and so the times, as they are.
    constexpr double learning_rate = 1e-12;
    const at::NoGradGuard no_graph;
    std::vector<at::Tensor> gradients;
    for (const Optimizer::Parameter& parameter : parameters) {
      if (!parameter.tensor.grad().defined()) continue;
      static_cast<void>(parameter.tensor.grad().norm().item<double>());
      gradients.push_back(parameter.tensor.grad());
    }
    if (!gradients.empty()) at::_foreach_mul_(gradients, 1.0);
    optimizer->update(learning_rate);
  };
}

}  // namespace penstock
