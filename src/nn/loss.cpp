#include <ATen/ATen.h>

#include "penstock/nn/networks.h"

namespace penstock {

Loss cross_entropy(const Tensors& outputs, const at::Tensor& target, std::int64_t ignored) {
  const at::Tensor& logits = outputs.front();
  const at::Tensor sum = at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}), target.reshape(-1), {},
                                                at::Reduction::Sum, ignored);
  return {sum, static_cast<double>(target.ne(ignored).sum().item<std::int64_t>())};
}

Loss squared_error(const Tensors& outputs, const at::Tensor& target) {
  const at::Tensor& output = outputs.front();
  const auto samples = static_cast<double>(output.size(0));
  const auto elements = static_cast<double>(output.numel()) / samples;
  return {at::mse_loss(output, target, at::Reduction::Sum).div(elements), samples};
}

}  // namespace penstock
