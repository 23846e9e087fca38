/// \file
/// Copies of tensors that lie in memory as the originals do. Kernels add in another order for other strides, so that
/// strides are part of the numbers: what crosses a boundary keeps them, between threads as between processes.
#pragma once

#include <ATen/core/Tensor.h>

namespace penstock {

/// A copy on `device` in memory of its own, with the same sizes, strides and dtype. It holds the values that `tensor`
/// shows (a conjugated or negated view is resolved), begins at its memory's first element and has no more memory than
/// from the first element that the strides reach to the last: rows of an expanded tensor are one row here too. Where
/// elements of `tensor` share memory, those of the copy do. Memory between elements is not initialised. It is no part
/// of a graph and does not require its gradient. \param tensor undefined stays undefined.
/// \throws Error (BadInput) for what is no plain strided memory, by name: a sparse, nested or quantised tensor, one on
/// the device "meta", one without storage.
[[nodiscard]] at::Tensor copy_in_same_layout(const at::Tensor& tensor, at::Device device);

/// \throws Error (BadInput) where `tensor` is defined and is no plain strided memory, as `copy_in_same_layout` does.
void check_is_plain_memory(const at::Tensor& tensor);

}  // namespace penstock
