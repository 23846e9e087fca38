#include "exec/layer_inputs.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"

#include "exec/gradient_nodes.h"

namespace penstock {
namespace {

// Passes gradients on as they are.
class Shield final : public torch::autograd::Node {
 public:
  using Node::Node;

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    return std::move(gradients);
  }
};

// The same memory under a name of its own: no view, so that what is done to it in place leaves the other's graph and
// count of changes alone.
at::Tensor shielded(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  at::Tensor same(tensor.variable_data());
  if (!at::GradMode::is_enabled() || !tensor.requires_grad()) return same;
  auto shield = make_node<Shield>(torch::autograd::edge_list{torch::autograd::impl::gradient_edge(tensor)});
  shield.node->add_input_metadata(same);
  torch::autograd::impl::set_gradient_edge(same, {std::move(shield.owner), 0});
  return same;
}

bool has_same_values(const at::Tensor& tensor, const at::Tensor& other) {
  if (at::equal(tensor, other)) return true;
  return tensor.is_floating_point() && at::isclose(tensor, other, 0, 0, /*equal_nan=*/true).all().item<bool>();
}

Tensors copies_of(const Tensors& tensors) {
  const at::NoGradGuard no_graph;
  Tensors copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.defined() ? tensor.detach().clone() : tensor);
  return copies;
}

void restore(const at::Tensor& tensor, const at::Tensor& copy) {
  const at::NoGradGuard no_graph;
  at::Tensor(tensor.variable_data()).copy_(copy);
}

void check_parameters(const torch::nn::Module& module, const Versions& versions) {
  const Versions now = versions_of(module.parameters());
  if (now == versions) return;
  const auto named = module.named_parameters();
  for (std::size_t index = 0; index < named.size() && index < versions.size(); ++index)
    if (now[index] != versions[index])
      throw bad_input(fmt::format("it changes an input in place, and its parameter {} too", named[index].key()),
                      "one of the two: a first pass that changes an input runs twice",
                      "compute with a copy of the input");
}

}  // namespace

Tensors LayerInputs::run(const Layer& layer, const Tensors& inputs, Forward forward) {
  std::optional<Changes>& known = changes_[at::GradMode::is_enabled() ? 1 : 0];
  if (known && known->size() == inputs.size()) return pass(inputs, forward, *known);
  Changes changes;
  Tensors outputs = first_pass(layer, inputs, forward, changes);
  known = std::move(changes);
  return outputs;
}

bool LayerInputs::changes_any() const {
  return std::any_of(changes_.begin(), changes_.end(), [](const std::optional<Changes>& changes) {
    return changes && std::find(changes->begin(), changes->end(), true) != changes->end();
  });
}

Tensors LayerInputs::first_pass(const Layer& layer, const Tensors& inputs, Forward forward, Changes& changes) const {
  const torch::nn::Module& module = layer.module();
  const Versions versions = versions_of(module.parameters());
  const Tensors buffers = module.buffers();
  const Tensors buffers_before = copies_of(buffers);
  const Tensors inputs_before = copies_of(inputs);
  Tensors given;
  given.reserve(inputs.size());
  for (const at::Tensor& input : inputs) given.push_back(shielded(input));
  Tensors outputs = forward(given);
  const Versions counts = versions_of(given);
  for (std::size_t index = 0; index < inputs.size(); ++index)
    changes.push_back(inputs[index].defined() &&
                      (counts[index] != 0 || !has_same_values(inputs[index], inputs_before[index])));
  if (std::none_of(changes.begin(), changes.end(), [](bool changed) { return changed; })) return outputs;
  check_parameters(module, versions);
  outputs.clear();
  given.clear();
  for (std::size_t index = 0; index < inputs.size(); ++index)
    if (changes[index]) restore(inputs[index], inputs_before[index]);
  for (std::size_t index = 0; index < buffers.size(); ++index) restore(buffers[index], buffers_before[index]);
  const RecomputeScope again;
  return pass(inputs, forward, changes);
}

Tensors LayerInputs::pass(const Tensors& inputs, Forward forward, const Changes& changes) {
  const bool changes_any = std::find(changes.begin(), changes.end(), true) != changes.end();
  const Versions versions = versions_of(inputs);
  Tensors outputs;
  if (changes_any) {
    Tensors given;
    given.reserve(inputs.size());
    for (std::size_t index = 0; index < inputs.size(); ++index)
      given.push_back(changes[index] && inputs[index].defined() ? inputs[index].clone() : inputs[index]);
    outputs = forward(given);
  } else {
    outputs = forward(inputs);
  }
  const Versions now = versions_of(inputs);
  for (std::size_t index = 0; index < inputs.size(); ++index)
    if (now[index] != versions[index])
      throw bad_input(fmt::format("it changed its input {} in place, which its first pass had left alone", index),
                      "a layer that changes an input always or never", "let it compute with a copy of the input");
  return outputs;
}

}  // namespace penstock
