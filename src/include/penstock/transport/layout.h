/// \file
/// How tensors lie in memory, and copies that lie as the originals do. Kernels add in another order for other strides,
/// so that strides are part of the numbers: what crosses a boundary keeps them, between threads as between processes.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"

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

/// The elements' bytes; an undefined tensor, or one without memory of its own, has none.
[[nodiscard]] Bytes bytes_of(const at::Tensor& tensor);
/// Of all of them together. Tensors that share memory count each.
[[nodiscard]] Bytes bytes_of(const std::vector<at::Tensor>& tensors);

/// \throws Error (RunFailed) where `tensor` is no contiguous tensor of that dtype on the host.
void check_is_contiguous(const at::Tensor& tensor, at::ScalarType dtype);

/// The numbers of a tensor that another rank has sent, whatever that says of its layout. Valid as long as the tensor.
/// \throws Error (RunFailed) where it is no contiguous tensor of `Value` on the host.
template <class Value>
[[nodiscard]] std::span<const Value> numbers_of(const at::Tensor& tensor) {
  check_is_contiguous(tensor, c10::CppTypeToScalarType<Value>::value);
  return {tensor.const_data_ptr<Value>(), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace penstock
