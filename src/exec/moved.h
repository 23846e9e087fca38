// Tensors from device to device.
#pragma once

#include <ATen/core/Tensor.h>

namespace penstock {

// The tensor itself where it is there already, or undefined; else a copy on `device`, a leaf that requires a gradient
// where the tensor does.
[[nodiscard]] at::Tensor moved(const at::Tensor& tensor, at::Device device);

}  // namespace penstock
