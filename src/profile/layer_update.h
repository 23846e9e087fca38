// The update of one layer as a rank makes it, to be timed.
#pragma once

#include <functional>

#include "penstock/nn/layer.h"
#include "penstock/optim/optimizer.h"

namespace penstock {

// Makes the state of the layer's parameters. What is returned does what an update does with the gradients that they
// hold: norms, the one division, the step, which is next to nothing. It may be called again and again. Throws Error
// (BadInput) as `Optimizer`.
[[nodiscard]] std::function<void()> layer_update(const OptimizerSettings& settings, const Layer& layer);

}  // namespace penstock
