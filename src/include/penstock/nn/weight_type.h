/// \file
/// Weights in another number type than they were made in.
#pragma once

#include "penstock/base/types.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// The network with parameters of that type, rounded as soon as a layer is built; buffers stay as they are. Layers then
/// compute with what they are given: use it with a `PrecisionScope` of the same type. Float32 leaves all as it is.
[[nodiscard]] Network with_weights_in(Network network, Precision type);

}  // namespace penstock
