// How the elements of a libtorch tensor lie in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include "penstock/wire/strided.h"

namespace penstock {

// \pre plain strided memory.
[[nodiscard]] Extent extent_of(const at::Tensor& tensor);

// The tensor with every dimension of stride 0 cut to size 1. \pre plain strided memory, detached.
[[nodiscard]] at::Tensor without_repeats(const at::Tensor& tensor);

// A tensor of these sizes and strides in `memory`, from its first element on. `memory` itself where it is that already.
[[nodiscard]] at::Tensor as_layout(const at::Tensor& memory, at::IntArrayRef sizes, at::IntArrayRef strides);

}  // namespace penstock
