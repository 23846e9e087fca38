#include "exec/split_backward.h"

#include <unordered_map>
#include <unordered_set>
#include <utility>

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

namespace penstock {
namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Engine;
using torch::autograd::Node;
using torch::autograd::variable_list;
// The engine's pointer to a node changed its type between libtorch 2.11 and 2.13.
using NodePointer = decltype(Edge::function);

// Nodes in an order in which each comes after all that its edges lead to. Iterative: graphs are deeper than stacks.
std::vector<Node*> from_leaves_up(const edge_list& roots) {
  std::vector<Node*> order;
  std::unordered_set<Node*> seen;
  std::vector<std::pair<Node*, std::size_t>> open;  // a node and its next edge to follow
  for (const Edge& root : roots) {
    if (!seen.insert(root.function.get()).second) continue;
    open.emplace_back(root.function.get(), 0);
    while (!open.empty()) {
      auto& [node, next] = open.back();
      if (next == node->num_outputs()) {
        order.push_back(node);
        open.pop_back();
        continue;
      }
      Node* child = node->next_edge(next++).function.get();
      if (child != nullptr && seen.insert(child).second) open.emplace_back(child, 0);
    }
  }
  return order;
}

// The nodes from which some edge leads to one of `inputs`, the inputs' own accumulators included.
std::unordered_set<Node*> leading_to(const Tensors& inputs, const std::vector<Node*>& from_leaves) {
  std::unordered_set<Node*> leading;
  for (const at::Tensor& input : inputs) leading.insert(torch::autograd::impl::grad_accumulator(input).get());
  for (Node* node : from_leaves) {
    for (const Edge& edge : node->next_edges())
      if (edge.function && leading.contains(edge.function.get())) leading.insert(node);
  }
  return leading;
}

// The parameters that the branches of `node` away from the inputs end in.
edge_list parameters_beside_the_way(Node* node, const std::unordered_set<Node*>& leading) {
  edge_list parameters;
  std::unordered_set<Node*> seen;
  std::vector<NodePointer> open;
  for (const Edge& edge : node->next_edges())
    if (edge.function && !leading.contains(edge.function.get())) open.push_back(edge.function);
  while (!open.empty()) {
    const NodePointer next = std::move(open.back());
    open.pop_back();
    if (!seen.insert(next.get()).second) continue;
    if (dynamic_cast<AccumulateGrad*>(next.get()) != nullptr) parameters.emplace_back(next, 0);
    for (const Edge& edge : next->next_edges())
      if (edge.function) open.push_back(edge.function);
  }
  return parameters;
}

// The nodes that the engine passes on its way to the inputs, as owning pointers, from the roots down.
std::vector<NodePointer> nodes_on_the_way(const edge_list& roots, const std::unordered_set<Node*>& leading) {
  std::vector<NodePointer> found;
  std::unordered_set<Node*> seen;
  std::vector<NodePointer> open;
  for (const Edge& root : roots) open.push_back(root.function);
  while (!open.empty()) {
    NodePointer node = std::move(open.back());
    open.pop_back();
    if (!leading.contains(node.get()) || !seen.insert(node.get()).second) continue;
    for (const Edge& edge : node->next_edges())
      if (edge.function) open.push_back(edge.function);
    found.push_back(std::move(node));
  }
  return found;
}

}  // namespace

Tensors run_to_inputs(const edge_list& roots, const variable_list& gradients, const Tensors& inputs,
                      DeferredWeightGradients& deferred) {
  const auto leading = leading_to(inputs, from_leaves_up(roots));
  edge_list captured;
  for (const at::Tensor& input : inputs) captured.push_back(torch::autograd::impl::gradient_edge(input));
  for (const NodePointer& node : nodes_on_the_way(roots, leading)) {
    edge_list parameters = parameters_beside_the_way(node.get(), leading);
    if (parameters.empty()) continue;
    DeferredNode waiting;
    for (std::uint32_t input = 0; input < node->num_inputs(); ++input) waiting.roots.emplace_back(node, input);
    waiting.parameters = std::move(parameters);
    captured.insert(captured.end(), waiting.roots.begin(), waiting.roots.end());
    deferred.nodes.push_back(std::move(waiting));
  }
  variable_list results =
      Engine::get_default_engine().execute(roots, gradients, /*keep_graph=*/true,
                                           /*create_graph=*/false, /*accumulate_grad=*/false, captured);
  const auto first_captured = static_cast<std::ptrdiff_t>(inputs.size());
  auto next = results.begin() + first_captured;
  for (DeferredNode& node : deferred.nodes) {
    edge_list arrived_at;
    for (const Edge& root : node.roots) {
      if (next->defined()) {
        arrived_at.push_back(root);
        node.arrived.push_back(std::move(*next));
      }
      ++next;
    }
    node.roots = std::move(arrived_at);
  }
  results.resize(inputs.size());
  return results;
}

void run_deferred(DeferredWeightGradients& deferred) {
  Engine& engine = Engine::get_default_engine();
  if (!deferred.whole_roots.empty())
    engine.execute(deferred.whole_roots, deferred.whole_gradients, /*keep_graph=*/false, /*create_graph=*/false,
                   /*accumulate_grad=*/true);
  for (const DeferredNode& node : deferred.nodes) {
    if (node.roots.empty()) continue;
    engine.execute(node.roots, node.arrived, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/true,
                   node.parameters);
  }
  deferred = {};
}

}  // namespace penstock
