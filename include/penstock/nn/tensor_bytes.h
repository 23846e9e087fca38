/// \file
/// What tensors take of memory.
#pragma once

#include "penstock/base/units.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// The elements' bytes; an undefined tensor, or one without memory of its own, has none. Tensors that share memory
/// count each.
[[nodiscard]] Bytes bytes_of(const at::Tensor& tensor);
/// Of all of them together.
[[nodiscard]] Bytes bytes_of(const Tensors& tensors);

}  // namespace penstock
