#include "penstock/nn/tensor_bytes.h"

namespace penstock {

Bytes bytes_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? Bytes{static_cast<std::int64_t>(tensor.nbytes())} : Bytes{};
}

Bytes bytes_of(const Tensors& tensors) {
  Bytes total;
  for (const at::Tensor& tensor : tensors) total += bytes_of(tensor);
  return total;
}

}  // namespace penstock
