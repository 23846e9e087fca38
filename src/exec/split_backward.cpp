#include "exec/split_backward.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <unordered_map>
#include <utility>

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>

namespace penstock {
namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::CopySlices;
using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Engine;
using torch::autograd::FunctionPreHook;
using torch::autograd::Node;
using torch::autograd::variable_list;

void run_engine(BackwardRoots roots, bool keep_graph) {
  if (roots.edges.empty()) return;
  const bool on_host = roots.gradients.front().device().is_cpu();
  if (!on_host && roots.edges.size() > 1) {
    // On a device another thread runs the nodes: it has to know of all roots before it chooses the first.
    auto start = make_node<GradientSource>(std::numeric_limits<std::uint64_t>::max(), std::move(roots.edges),
                                           std::move(roots.gradients));
    roots = {{Edge(std::move(start.owner), 0)}, {start.node->trigger()}};
  }
  Engine::get_default_engine().execute(roots.edges, roots.gradients, keep_graph, /*create_graph=*/false,
                                       /*accumulate_grad=*/true);
}

// Keeps the gradients that arrive at a divided node.
class KeepArrived final : public FunctionPreHook {
 public:
  explicit KeepArrived(variable_list& kept) : kept_(kept) {}
  variable_list operator()(const variable_list& gradients) override { return kept_ = gradients; }

 private:
  variable_list& kept_;
};

// What is known of a node on one walk through the graph.
struct Visited {
  Node* node = nullptr;
  bool leads = false;           // to the inputs
  bool ends_in_vectors = true;  // not for nodes that lead: of their edges aside
  bool has_edges_aside = false;
  bool waits = false;  // something that runs in W leads to it
  int receives = 0;    // edges and roots that end in it
  bool divided = false;
  bool runs_in_i = false;
};

bool has_hooks(Node& node) {
  return !node.pre_hooks().empty() || !node.tensor_pre_hooks().empty() || !node.retains_grad_hooks().empty() ||
         !node.post_hooks().empty();
}

bool is_parameter(const Node* node) { return dynamic_cast<const AccumulateGrad*>(node) != nullptr; }

// The graph behind some roots, and what I and W do of it.
class Division {
 public:
  Division(const edge_list& roots, const std::vector<const Node*>& inputs) {
    walk(roots);
    find_what_leads(inputs);
    choose(roots);
  }

  [[nodiscard]] const Visited& of(const Node* node) const { return visited_[places_.at(node)]; }
  // Each after all that its edges lead to.
  [[nodiscard]] const std::vector<Visited>& from_leaves_up() const { return visited_; }

 private:
  [[nodiscard]] Visited& at(const Node* node) { return visited_[places_.at(node)]; }

  // Iterative: graphs are deeper than stacks.
  void walk(const edge_list& roots) {
    std::vector<std::pair<Node*, std::size_t>> open;  // a node and its next edge to follow
    const auto enter = [&](Node* node) {
      if (places_.try_emplace(node, unfinished).second) open.emplace_back(node, 0);
    };
    for (const Edge& root : roots) {
      enter(root.function.get());
      while (!open.empty()) {
        auto& [node, next] = open.back();
        if (next < node->num_outputs()) {
          Node* child = node->next_edge(next++).function.get();
          if (child != nullptr) enter(child);
          continue;
        }
        places_[node] = visited_.size();
        visited_.push_back({.node = node});
        open.pop_back();
      }
    }
  }

  void find_what_leads(const std::vector<const Node*>& inputs) {
    for (Visited& visited : visited_) {
      // A segment has few inputs, mostly one.
      visited.leads = std::find(inputs.begin(), inputs.end(), visited.node) != inputs.end();
      for (const Edge& edge : visited.node->next_edges())
        if (edge.is_valid() && at(edge.function.get()).leads) visited.leads = true;
      if (const auto* parameter = dynamic_cast<const AccumulateGrad*>(visited.node))
        visited.ends_in_vectors = parameter->variable.dim() <= 1;
      for (const Edge& edge : visited.node->next_edges()) {
        if (!edge.is_valid()) continue;
        Visited& next = at(edge.function.get());
        ++next.receives;
        if (next.leads) continue;
        visited.has_edges_aside = true;
        visited.ends_in_vectors = visited.ends_in_vectors && next.ends_in_vectors;
      }
    }
  }

  // From the roots down, so that what comes before a node is known.
  void choose(const edge_list& roots) {
    for (const Edge& root : roots) {
      Visited& visited = at(root.function.get());
      ++visited.receives;
      visited.waits = !visited.leads;
    }
    for (std::size_t index = visited_.size(); index-- > 0;) {
      Visited& visited = visited_[index];
      Node& node = *visited.node;
      visited.divided = visited.leads && visited.has_edges_aside && !visited.ends_in_vectors && node.is_traceable() &&
                        !has_hooks(node);
      visited.runs_in_i = visited.leads || (!visited.waits && visited.ends_in_vectors && !is_parameter(visited.node));
      if (visited.runs_in_i && !visited.divided) continue;
      for (const Edge& edge : node.next_edges())
        if (edge.is_valid()) at(edge.function.get()).waits = true;
    }
  }

  static constexpr std::size_t unfinished = std::numeric_limits<std::size_t>::max();
  std::unordered_map<const Node*, std::size_t> places_;
  std::vector<Visited> visited_;
};

// Leads an edge elsewhere, and returns where it led. The node of an operation in place on a view has another node in
// it, whose edges are the same but for the first.
Edge redirect(Node& node, std::size_t index, Edge to) {
  if (auto* in_place = dynamic_cast<CopySlices*>(&node); in_place != nullptr && index > 0 && in_place->fn)
    redirect(*in_place->fn, index, to);
  return std::exchange(node.next_edges()[index], std::move(to));
}

// A node of which I runs one half and W the other.
struct DividedNode {
  NodePointer node;
  edge_list aside;  // by edge; invalid where the edge leads
  variable_list arrived;
};

// A node that runs in I, and edges of it that end in W.
struct HandedOn {
  std::uint64_t sequence_number = 0;
  edge_list edges;
  std::vector<std::uint32_t> collected;  // by edge: the collector's input
  bool alone = true;                     // nothing else ends where these edges end
};

// Takes the edges of W out of the graph, so that a run of the engine is I, and puts them back for W.
class InputPass {
 public:
  InputPass(const Division& division, GradientCollector& collector, const NodePointer& collector_owner) {
    for (const Visited& visited : division.from_leaves_up()) {
      if (!visited.runs_in_i) continue;
      if (visited.divided)
        divide(visited, division);
      else
        hand_on(visited, division, collector, collector_owner);
    }
    for (const Visited& visited : division.from_leaves_up())
      if (visited.runs_in_i && !visited.divided) whole_.push_back(visited.node->getptr());
    // By now no hook's address changes any more.
    for (DividedNode& divided : divided_) divided.node->add_pre_hook(std::make_unique<KeepArrived>(divided.arrived));
  }

  // After the run: what W starts from.
  [[nodiscard]] DeferredBackward finish(variable_list collected, BackwardRoots starts) {
    for (const NodePointer& node : whole_)
      if (node->num_outputs() > 0) node->release_variables();
    whole_.clear();
    for (DividedNode& divided : divided_) {
      divided.node->pre_hooks().clear();
      divided.node->next_edges() = std::move(divided.aside);
      for (std::uint32_t input = 0; input < divided.arrived.size(); ++input) {
        if (!divided.arrived[input].defined()) continue;
        starts.edges.emplace_back(divided.node, input);
        starts.gradients.push_back(std::move(divided.arrived[input]));
      }
    }
    std::vector<OwnedNode<GradientSource>> sources;
    for (HandedOn& handed : handed_on_) {
      variable_list gradients;
      gradients.reserve(handed.collected.size());
      for (const std::uint32_t input : handed.collected)
        gradients.push_back(input < collected.size() ? std::move(collected[input]) : at::Tensor());
      if (handed.alone)
        start_at(std::move(handed.edges), std::move(gradients), starts);
      else
        start_from_source(std::move(handed), std::move(gradients), starts, sources);
    }
    return DeferredBackward(std::move(starts), std::move(sources));
  }

 private:
  void divide(const Visited& visited, const Division& division) {
    DividedNode divided{visited.node->getptr(), edge_list(visited.node->num_outputs()), {}};
    for (std::size_t index = 0; index < divided.aside.size(); ++index) {
      const Edge& edge = visited.node->next_edge(index);
      if (edge.is_valid() && !division.of(edge.function.get()).leads)
        divided.aside[index] = redirect(*visited.node, index, Edge());
    }
    divided_.push_back(std::move(divided));
  }

  void hand_on(const Visited& visited, const Division& division, GradientCollector& collector,
               const NodePointer& collector_owner) {
    HandedOn handed{visited.node->sequence_nr(), {}, {}, true};
    for (std::size_t index = 0; index < visited.node->num_outputs(); ++index) {
      const Edge& edge = visited.node->next_edge(index);
      if (!edge.is_valid()) continue;
      const Visited& next = division.of(edge.function.get());
      if (next.runs_in_i) continue;
      handed.alone = handed.alone && next.receives == 1;
      handed.collected.push_back(collector.add_input_like(edge));
      handed.edges.push_back(redirect(*visited.node, index, Edge(collector_owner, handed.collected.back())));
    }
    if (!handed.edges.empty()) handed_on_.push_back(std::move(handed));
  }

  static void start_at(edge_list edges, variable_list gradients, BackwardRoots& starts) {
    for (std::size_t index = 0; index < edges.size(); ++index) {
      if (!gradients[index].defined()) continue;
      starts.edges.push_back(std::move(edges[index]));
      starts.gradients.push_back(std::move(gradients[index]));
    }
  }

  static void start_from_source(HandedOn handed, variable_list gradients, BackwardRoots& starts,
                                std::vector<OwnedNode<GradientSource>>& sources) {
    if (std::none_of(gradients.begin(), gradients.end(), [](const at::Tensor& t) { return t.defined(); })) return;
    auto source = make_node<GradientSource>(handed.sequence_number, std::move(handed.edges), std::move(gradients));
    starts.edges.emplace_back(source.owner, 0);
    starts.gradients.push_back(source.node->trigger());
    sources.push_back(std::move(source));
  }

  std::vector<DividedNode> divided_;
  std::vector<HandedOn> handed_on_;
  std::vector<NodePointer> whole_;  // run in I, and free afterwards
};

}  // namespace

void run_backward(BackwardRoots roots) { run_engine(std::move(roots), /*keep_graph=*/false); }

void DeferredBackward::run() {
  sources_.clear();
  run_engine(std::exchange(starts_, {}), /*keep_graph=*/false);
}

variable_list DeferredBackward::gradients() const {
  variable_list kept = starts_.gradients;
  for (const auto& source : sources_)
    kept.insert(kept.end(), source.node->gradients().begin(), source.node->gradients().end());
  return kept;
}

DeferredBackward run_input_backward(BackwardRoots roots, const std::vector<const Node*>& inputs) {
  const Division division(roots.edges, inputs);
  BackwardRoots leading;
  BackwardRoots aside;
  for (std::size_t root = 0; root < roots.edges.size(); ++root) {
    BackwardRoots& side = division.of(roots.edges[root].function.get()).leads ? leading : aside;
    side.edges.push_back(std::move(roots.edges[root]));
    side.gradients.push_back(std::move(roots.gradients[root]));
  }
  if (leading.edges.empty()) return DeferredBackward(std::move(aside));
  auto collector = make_node<GradientCollector>();
  InputPass pass(division, *collector.node, collector.owner);
  run_engine(std::move(leading), /*keep_graph=*/true);
  return pass.finish(collector.node->take(), std::move(aside));
}

}  // namespace penstock
