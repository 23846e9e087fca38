// Between libtorch's types and those of a frame.
#pragma once

#include <ATen/core/Tensor.h>

#include "penstock/wire/frame.h"

namespace penstock {

// `dtype` is not Undefined.
[[nodiscard]] at::ScalarType scalar_type_of(WireDtype dtype);

// \throws Error (BadInput) for a type or a number of dimensions that no frame holds.
[[nodiscard]] TensorLayout layout_of(const at::Tensor& tensor);

}  // namespace penstock
