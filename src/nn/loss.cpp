#include <algorithm>
#include <cstdint>
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

std::string words_of(const at::Tensor& tensor) {
  std::string text;
  for (const std::int64_t size : tensor.sizes()) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

Loss cross_entropy(const Tensors& outputs, const Tensors& targets, std::int64_t ignored) {
  const at::Tensor& target = first(targets, "target");
  at::Tensor logits = first(outputs, "output");
  if (at::isReducedFloatingType(logits.scalar_type())) logits = logits.to(at::kFloat);
  // Both are read as rows: one logit row for each target, whatever the other sizes are.
  if (logits.dim() == 0 || target.numel() != logits.numel() / std::max<std::int64_t>(1, logits.size(-1)))
    throw run_failed("the loss was given an output of " + words_of(logits) + " and a target of " + words_of(target),
                     "a target of the output's sizes without the last, which are the classes",
                     "give the minibatch a class for each row of the output");
  const at::Tensor sum = at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}), target.reshape(-1), {},
                                                at::Reduction::Sum, ignored);
  return {sum, static_cast<double>(target.ne(ignored).sum().item<std::int64_t>())};
}

Loss squared_error(const Tensors& outputs, const Tensors& targets) {
  const at::Tensor& target = first(targets, "target");
  at::Tensor output = first(outputs, "output");
  if (at::isReducedFloatingType(output.scalar_type())) output = output.to(at::kFloat);
  // [n, 1] against [n] would be taken as n × n pairs, and would train on the wrong ones.
  if (output.sizes() != target.sizes())
    throw run_failed("the loss was given an output of " + words_of(output) + " and a target of " + words_of(target),
                     "both of one shape",
                     "reshape the target, as by unsqueeze(1) where a last dimension of 1 is missing");
  return {at::mse_loss(output, target, at::Reduction::Sum), static_cast<double>(output.numel())};
}

}  // namespace penstock
