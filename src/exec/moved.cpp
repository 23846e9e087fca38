#include "exec/moved.h"

#include <ATen/ATen.h>

namespace penstock {

at::Tensor moved(const at::Tensor& tensor, at::Device device) {
  if (!tensor.defined() || tensor.device() == device) return tensor;
  const at::NoGradGuard no_graph;
  at::Tensor there = tensor.to(device);
  if (tensor.requires_grad()) there.requires_grad_();
  return there;
}

}  // namespace penstock
