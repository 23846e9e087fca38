// Nodes of our own in libtorch's autograd graph: where a pass backward starts, and where it ends.
#pragma once

#include <cstdint>
#include <utility>

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include "penstock/nn/graph_node.h"

namespace penstock {

// Ends a pass: keeps the gradients that arrive at its inputs, as they arrived.
class GradientCollector final : public torch::autograd::Node {
 public:
  using Node::Node;

  // One more input, for gradients of tensors like `tensor`, or of what `as` takes at its input. Returns its number.
  std::uint32_t add_input_like(const at::Tensor& tensor) { return add_input_metadata(tensor); }
  std::uint32_t add_input_like(const torch::autograd::Edge& as);

  // By input; undefined where none has arrived.
  [[nodiscard]] torch::autograd::variable_list take() { return std::exchange(arrived_, {}); }

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override;

 private:
  torch::autograd::variable_list arrived_;
};

// Starts a pass, or a part of one: hands on gradients that are there already, one to each of its edges.
class GradientSource final : public torch::autograd::Node {
 public:
  // `gradients` by edge, of which at least one is defined. The engine runs the node with the highest number first, as
  // if this were the node that had it.
  GradientSource(std::uint64_t sequence_number, torch::autograd::edge_list edges,
                 torch::autograd::variable_list gradients);

  // The gradient of its one input, of no elements: the engine runs a node on the thread of what it is given.
  [[nodiscard]] at::Tensor trigger() const;
  [[nodiscard]] const torch::autograd::variable_list& gradients() const { return gradients_; }

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& trigger) override;

 private:
  torch::autograd::variable_list gradients_;
};

}  // namespace penstock
