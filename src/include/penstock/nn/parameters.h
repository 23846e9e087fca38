/// \file
/// What an optimizer and a checkpoint see of a layer: its parameters, each once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/nn/batch_norm.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// A parameter of a layer, whether it takes a gradient or not.
struct ModuleParameter {
  std::vector<std::string> names;  ///< within the layer: several if one submodule is registered several times
  at::Tensor tensor;               ///< the layer's own, not a copy
};

/// In the order of their first names, which is that of `named_parameters`.
[[nodiscard]] std::vector<ModuleParameter> parameters_of(const Layer& layer);

/// Each once, in the order of the layer's modules.
[[nodiscard]] std::vector<std::shared_ptr<DeferredBatchNorm>> batch_norms_of(const Layer& layer);

}  // namespace penstock
