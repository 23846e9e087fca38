#include "exec/gradient_nodes.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::variable_list;

std::uint32_t GradientCollector::add_input_like(const Edge& as) {
  // The engine brings a gradient into the shape and the dtype that its receiver expects: those of the true one.
  input_metadata_.emplace_back(as.function->input_metadata(as.input_nr));
  return num_inputs() - 1;
}

variable_list GradientCollector::apply(variable_list&& gradients) {
  arrived_ = std::move(gradients);
  return {};
}

GradientSource::GradientSource(std::uint64_t sequence_number, edge_list edges, variable_list gradients)
    : Node(sequence_number, std::move(edges)), gradients_(std::move(gradients)) {
  add_input_metadata(trigger());
}

at::Tensor GradientSource::trigger() const {
  const auto defined =
      std::find_if(gradients_.begin(), gradients_.end(), [](const at::Tensor& t) { return t.defined(); });
  check_invariant(defined != gradients_.end(), "a source of gradients has at least one");
  return at::empty({0}, defined->options());
}

variable_list GradientSource::apply(variable_list&& /*trigger*/) { return std::move(gradients_); }

}  // namespace penstock
