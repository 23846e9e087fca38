#include <string>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"

namespace penstock {
namespace {

const at::Tensor& first(const Tensors& tensors, const char* what) {
  if (tensors.empty() || !tensors.front().defined())
    throw run_failed(std::string("the loss was given no ") + what, "at least one", "give the minibatch its targets");
  return tensors.front();
}

}  // namespace

Loss cross_entropy(const Tensors& outputs, const Tensors& targets, std::int64_t ignored) {
  const at::Tensor& target = first(targets, "target");
  at::Tensor logits = first(outputs, "output");
  if (at::isReducedFloatingType(logits.scalar_type())) logits = logits.to(at::kFloat);
  const at::Tensor sum = at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}), target.reshape(-1), {},
                                                at::Reduction::Sum, ignored);
  return {sum, static_cast<double>(target.ne(ignored).sum().item<std::int64_t>())};
}

Loss squared_error(const Tensors& outputs, const Tensors& targets) {
  const at::Tensor& target = first(targets, "target");
  at::Tensor output = first(outputs, "output");
  if (at::isReducedFloatingType(output.scalar_type())) output = output.to(at::kFloat);
  return {at::mse_loss(output, target, at::Reduction::Sum), static_cast<double>(output.numel())};
}

}  // namespace penstock
