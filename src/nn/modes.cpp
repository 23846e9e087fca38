#include "penstock/nn/modes.h"

namespace penstock {

EvaluationScope::EvaluationScope(const std::vector<Layer>& layers) {
  for (const Layer& layer : layers) {
    for (auto& module : layer.module().modules()) {
      const bool training = module->is_training();
      modes_.emplace_back(std::move(module), training);
    }
    if (layer.module().is_training()) layer.module().eval();
  }
  // Below a module that is frozen as a whole, or in a layer that overrides `train`.
  for (const auto& [module, training] : modes_)
    if (module->is_training()) module->eval();
}

EvaluationScope::~EvaluationScope() {
  for (const auto& [module, training] : modes_)
    if (module->is_training() != training) module->train(training);
}

}  // namespace penstock
