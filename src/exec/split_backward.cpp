#include "exec/split_backward.h"

#include <algorithm>
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

bool only_vectors(const edge_list& parameters) {
  return std::all_of(parameters.begin(), parameters.end(), [](const Edge& edge) {
    return dynamic_cast<const AccumulateGrad&>(*edge.function).variable.dim() <= 1;
  });
}

// The nodes of a graph's way to its inputs, by what a pass to the inputs has to do at them.
struct Way {
  std::vector<DeferredNode> deferred;
  edge_list vectors;                // of nodes whose parameters are all vectors: as quickly computed as put off
  std::vector<NodePointer> others;  // without parameters
};

Way sort_nodes(std::vector<NodePointer> nodes, const std::unordered_set<Node*>& leading) {
  // As the engine runs them: the last to be made first.
  std::sort(nodes.begin(), nodes.end(),
            [](const auto& a, const auto& b) { return a->sequence_nr() > b->sequence_nr(); });
  Way way;
  std::unordered_map<Node*, int> uses;  // of each parameter, by the nodes on the way
  std::vector<edge_list> parameters;
  for (const NodePointer& node : nodes) {
    parameters.push_back(parameters_beside_the_way(node.get(), leading));
    for (const Edge& edge : parameters.back()) ++uses[edge.function.get()];
  }
  for (std::size_t index = 0; index < nodes.size(); ++index) {
    const NodePointer& node = nodes[index];
    edge_list& of_node = parameters[index];
    if (of_node.empty()) {
      way.others.push_back(node);
      continue;
    }
    // What a parameter gets from several nodes has to be added up before it is added to what is there.
    const bool shared =
        std::any_of(of_node.begin(), of_node.end(), [&](const Edge& edge) { return uses[edge.function.get()] > 1; });
    if (!shared && only_vectors(of_node)) {
      way.vectors.insert(way.vectors.end(), of_node.begin(), of_node.end());
      way.others.push_back(node);
      continue;
    }
    DeferredNode waiting;
    for (std::uint32_t input = 0; input < node->num_inputs(); ++input) waiting.roots.emplace_back(node, input);
    waiting.parameters = std::move(of_node);
    way.deferred.push_back(std::move(waiting));
  }
  return way;
}

// Keeps, of the gradients that were captured at a node's inputs, those that arrived. Returns where the next node's are.
variable_list::iterator keep_arrived(DeferredNode& node, variable_list::iterator next) {
  edge_list arrived_at;
  for (const Edge& root : node.roots) {
    if (next->defined()) {
      arrived_at.push_back(root);
      node.arrived.push_back(std::move(*next));
    }
    ++next;
  }
  node.roots = std::move(arrived_at);
  return next;
}

bool share_parameters(const std::vector<DeferredNode>& nodes) {
  std::unordered_set<Node*> seen;
  for (const DeferredNode& node : nodes)
    for (const Edge& parameter : node.parameters)
      if (!seen.insert(parameter.function.get()).second) return true;
  return false;
}

void accumulate(const edge_list& parameters, const variable_list& gradients) {
  if (parameters.empty()) return;
  Engine::get_default_engine().execute(parameters, gradients, /*keep_graph=*/false, /*create_graph=*/false,
                                       /*accumulate_grad=*/true);
}

// A whole backward adds up what a parameter gets from all nodes before it adds that to what is there.
void run_summing(const std::vector<DeferredNode>& nodes) {
  edge_list parameters;
  variable_list sums;
  std::unordered_map<Node*, std::size_t> places;
  for (const DeferredNode& node : nodes) {
    if (node.roots.empty()) continue;
    const variable_list gradients =
        Engine::get_default_engine().execute(node.roots, node.arrived, /*keep_graph=*/false, /*create_graph=*/false,
                                             /*accumulate_grad=*/false, node.parameters);
    for (std::size_t index = 0; index < node.parameters.size(); ++index) {
      if (!gradients[index].defined()) continue;
      const auto [place, is_new] = places.emplace(node.parameters[index].function.get(), sums.size());
      if (is_new) {
        parameters.push_back(node.parameters[index]);
        sums.push_back(gradients[index]);
      } else {
        sums[place->second] = sums[place->second] + gradients[index];
      }
    }
  }
  accumulate(parameters, sums);
}

}  // namespace

Tensors run_to_inputs(const edge_list& roots, const variable_list& gradients, const Tensors& inputs,
                      DeferredWeightGradients& deferred) {
  const auto leading = leading_to(inputs, from_leaves_up(roots));
  Way way = sort_nodes(nodes_on_the_way(roots, leading), leading);
  edge_list captured;
  for (const at::Tensor& input : inputs) captured.push_back(torch::autograd::impl::gradient_edge(input));
  captured.insert(captured.end(), way.vectors.begin(), way.vectors.end());
  for (const DeferredNode& node : way.deferred) captured.insert(captured.end(), node.roots.begin(), node.roots.end());
  variable_list results =
      Engine::get_default_engine().execute(roots, gradients, /*keep_graph=*/true,
                                           /*create_graph=*/false, /*accumulate_grad=*/false, captured);
  for (const NodePointer& node : way.others)
    if (node->num_outputs() > 0) node->release_variables();
  auto next = results.begin() + static_cast<std::ptrdiff_t>(inputs.size());
  for (const Edge& vector : way.vectors) {
    if (next->defined()) {
      deferred.ready_roots.push_back(vector);
      deferred.ready_gradients.push_back(std::move(*next));
    }
    ++next;
  }
  for (DeferredNode& node : way.deferred) next = keep_arrived(node, next);
  deferred.nodes = std::move(way.deferred);
  results.resize(inputs.size());
  return results;
}

void run_deferred(DeferredWeightGradients& deferred) {
  accumulate(deferred.ready_roots, deferred.ready_gradients);
  if (share_parameters(deferred.nodes)) {
    const at::NoGradGuard no_graph;
    run_summing(deferred.nodes);
  } else {
    for (const DeferredNode& node : deferred.nodes) {
      if (node.roots.empty()) continue;
      Engine::get_default_engine().execute(node.roots, node.arrived, /*keep_graph=*/false, /*create_graph=*/false,
                                           /*accumulate_grad=*/true, node.parameters);
    }
  }
  deferred = {};
}

}  // namespace penstock
