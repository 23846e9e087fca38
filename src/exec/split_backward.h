// The backward pass of a graph, whole (B) or in two halves (I and W), by the autograd engine alone: no layer has to
// know of it.
//
// The invariant of the halves: I and W together run every node of the graph once, each gradient edge flows once, and
// each parameter receives the sum that it receives in B, added up in the same order.
//
// A node *leads* if a path of edges goes from it to the segment's inputs. I runs the nodes that lead, W all others. At
// a node that leads and from which other edges go aside, to parameters, there are two cases:
//
//  - The node is *divided*: I computes its gradients for the edges that lead, W those for the edges aside, from the
//    gradients that had arrived at it. Only nodes are divided that libtorch generated, and others of
//    `torch::autograd::TraceableFunction`: they compute each gradient only if it is asked for, from saved tensors
//    alone, so that both halves together are the whole. A node with a hook is never divided: the hook would run twice.
//  - Otherwise it runs once, in I, and a *source* in its place hands the gradients of the edges aside on in W. So do
//  nodes
//    whose edges aside end in vectors only (biases, norms): their gradients are as quickly computed as put off, and
//    smaller than what the node would have to keep. What follows such a node runs in I too, as far as only nodes that
//    have run in I lead to it, but for parameters, which take all their gradients in W.
//
// Why each edge flows once: both passes run on the graph itself, with the edges of the other half taken out, and each
// is one run of the engine, which runs a node when all of its gradients are there. Nothing is run from a node on its
// own, so that a parameter that is used at several nodes of a path (x·w·w) is reached by each of its edges once.
//
// Why the order is that of B: the engine runs, of the nodes that are ready, the one with the highest sequence number,
// and an edge goes from a higher number to a lower one, as nodes are numbered when they are made. So B runs nodes in
// descending order, and a node's gradients add up in the descending order of those that send them. A node that I runs
// receives from nodes that I runs only. A node that W runs receives from nodes of W and from sources, which have the
// numbers of the nodes that they stand for, and all of which are ready when W begins. The gradients of the graph's own
// outputs come before all others, in B and here.
#pragma once

#include <vector>

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/variable.h>

#include "exec/gradient_nodes.h"

namespace penstock {

// The outputs of a graph that a gradient has arrived for, and the gradients.
struct BackwardRoots {
  torch::autograd::edge_list edges;
  torch::autograd::variable_list gradients;
};

// B: runs the whole graph, adds up the parameters' gradients and frees the graph.
void run_backward(BackwardRoots roots);

// What I leaves for W: where W starts, and with which gradients. Owns what is left of the graph.
class DeferredBackward {
 public:
  DeferredBackward() = default;
  explicit DeferredBackward(BackwardRoots starts, std::vector<OwnedNode<GradientSource>> sources = {})
      : starts_(std::move(starts)), sources_(std::move(sources)) {}

  // W: adds up the parameters' gradients and frees the graph.
  void run();

  // The gradients that are kept, some of which may share their memory.
  [[nodiscard]] torch::autograd::variable_list gradients() const;

 private:
  BackwardRoots starts_;
  std::vector<OwnedNode<GradientSource>> sources_;
};

// I: runs what leads to `inputs`, the nodes in which the gradients of the segment's inputs end, and frees what W does
// not need. Accumulates nothing into parameters.
[[nodiscard]] DeferredBackward run_input_backward(BackwardRoots roots,
                                                  const std::vector<const torch::autograd::Node*>& inputs);

}  // namespace penstock
