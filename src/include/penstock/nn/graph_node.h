/// \file
/// Nodes of one's own in libtorch's autograd graph.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

namespace penstock {

/// What owns a node: the engine's pointer changed its type between libtorch 2.11 and 2.13.
using NodePointer = decltype(torch::autograd::Edge::function);

/// A node and what owns it.
template <class NodeType>
struct OwnedNode {
  NodePointer owner;
  NodeType* node = nullptr;
};

/// Makes a node from its constructor's arguments.
///
/// A layer's own backward is divided between `I` and `W` if its node derives from `torch::autograd::TraceableFunction`
/// and computes, in `apply`, only the gradients that `task_should_compute_output` asks for, from what it has saved. All
/// other nodes of one's own, those of `torch::autograd::Function` among them, run as a whole, in `I`.
template <class NodeType, class... Arguments>
[[nodiscard]] OwnedNode<NodeType> make_node(Arguments&&... arguments) {
  if constexpr (std::is_same_v<NodePointer, std::shared_ptr<torch::autograd::Node>>) {
    auto made = std::make_shared<NodeType>(std::forward<Arguments>(arguments)...);
    NodeType* node = made.get();
    return {std::move(made), node};
  } else {
    auto made = c10::make_intrusive<NodeType>(std::forward<Arguments>(arguments)...);
    NodeType* node = made.get();
    return {std::move(made), node};
  }
}

}  // namespace penstock
