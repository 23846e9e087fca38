#include "penstock/train/layer_update.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>

namespace penstock {

std::function<void()> layer_update(const OptimizerSettings& settings, const Layer& layer) {
  std::vector<Optimizer::Named> parameters;
  for (const auto& parameter : layer.module().named_parameters())
    if (parameter.value().requires_grad()) parameters.emplace_back(parameter.key(), parameter.value());
  const auto optimizer = std::make_shared<Optimizer>(settings, parameters);
  return [optimizer, parameters = std::move(parameters)] {
    // So small that repeated updates leave the weights, and so the times, as they are.
    constexpr double learning_rate = 1e-12;
    const at::NoGradGuard no_graph;
    std::vector<at::Tensor> gradients;
    for (const auto& [name, parameter] : parameters) {
      if (!parameter.grad().defined()) continue;
      static_cast<void>(parameter.grad().norm().item<double>());
      gradients.push_back(parameter.grad());
    }
    if (!gradients.empty()) at::_foreach_mul_(gradients, 1.0);
    optimizer->update(learning_rate);
  };
}

}  // namespace penstock
