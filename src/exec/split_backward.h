// The backward pass in two halves (I and W), by the autograd engine alone: no layer has to know of it.
#pragma once

#include <vector>

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/variable.h>

#include "penstock/nn/layer.h"

namespace penstock {

// One node of the graph whose parameters wait for their gradients.
struct DeferredNode {
  torch::autograd::edge_list roots;        // the inputs of the node's backward
  torch::autograd::variable_list arrived;  // the gradients that arrived at them
  torch::autograd::edge_list parameters;   // where the node's branch ends
};

struct DeferredWeightGradients {
  std::vector<DeferredNode> nodes;  // in the order in which a whole backward runs them
  // Gradients that are there already and only have to be added: of parameters that are small beside what their node
  // would have to keep. Where the stage has no differentiable input, everything: the roots and their gradients.
  torch::autograd::edge_list ready_roots;
  torch::autograd::variable_list ready_gradients;
};

// Runs from `roots` to `inputs` only. At each node on the way from which an edge leads only to parameters, captures the
// gradient that arrives, so that `run_deferred` can go on from there; what the other nodes had saved is let go of.
// Returns the gradients of `inputs` in their order.
[[nodiscard]] Tensors run_to_inputs(const torch::autograd::edge_list& roots,
                                    const torch::autograd::variable_list& gradients, const Tensors& inputs,
                                    DeferredWeightGradients& deferred);

// Accumulates the deferred gradients into their parameters and lets go of the graph.
void run_deferred(DeferredWeightGradients& deferred);

}  // namespace penstock
