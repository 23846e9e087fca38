#include "penstock/exec/stage.h"

#include <fmt/format.h>
#include <optional>
#include <utility>

#include <torch/csrc/autograd/engine.h>
#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/dropout.h"

#include "exec/split_backward.h"

namespace penstock {

using torch::autograd::edge_list;
using torch::autograd::Engine;
using torch::autograd::variable_list;

// What is kept of one microbatch between its forward and its backward.
struct Stage::Pass {
  Tensors inputs;
  Tensors outputs;  // with their graph; the loss on the last stage
  Loss loss;        // detached
  std::optional<DeferredWeightGradients> deferred;
};

namespace {

struct Roots {
  edge_list edges;
  variable_list gradients;
};

// Outputs that take part in the graph, each with its gradient. A gradient is missing where the next stage made no use
// of that output.
Roots roots_of(const Tensors& outputs, Tensors gradients) {
  Roots roots;
  for (std::size_t index = 0; index < outputs.size(); ++index) {
    if (!outputs[index].requires_grad()) continue;
    if (index >= gradients.size() || !gradients[index].defined()) continue;
    roots.edges.push_back(torch::autograd::impl::gradient_edge(outputs[index]));
    roots.gradients.push_back(std::move(gradients[index]));
  }
  return roots;
}

Tensors detached(const Tensors& tensors) {
  Tensors result;
  result.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.detach());
  return result;
}

}  // namespace

Stage::Stage(StageParts parts) : parts_(std::move(parts)) {}
Stage::Stage(Stage&&) noexcept = default;
Stage& Stage::operator=(Stage&&) noexcept = default;
Stage::~Stage() = default;

Stage::Pass& Stage::pass(MicrobatchId microbatch) { return passes_.at(microbatch.index()); }

void Stage::begin(std::int64_t step, int microbatches, bool training) {
  step_ = step;
  passes_.clear();
  passes_.resize(static_cast<std::size_t>(microbatches));
  if (std::exchange(training_, training) == training) return;
  for (const Layer& layer : parts_.layers) layer.module().train(training);
}

Tensors Stage::forward(MicrobatchId microbatch, Tensors inputs, const at::Tensor& target) {
  const at::AutoGradMode graph(training_);
  Pass& kept = pass(microbatch);
  if (parts_.stage.value > 0 && training_) {
    for (at::Tensor& input : inputs) {
      input = input.detach();
      if (input.is_floating_point()) input.requires_grad_();
    }
  }
  Tensors outputs = inputs;
  for (std::size_t index = 0; index < parts_.layers.size(); ++index) {
    const DrawScope draws(
        {parts_.seed, step_, microbatch.value, parts_.first_layer + static_cast<std::int64_t>(index)});
    outputs = parts_.layers[index].forward(outputs);
  }
  Tensors boundary = detached(outputs);
  if (parts_.loss && target.defined()) {
    const Loss loss = parts_.loss(outputs, target);
    if (loss.sum.numel() != 1)
      throw run_failed(fmt::format("the loss returned a tensor of {} elements", loss.sum.numel()),
                       "one element, the sum", "sum the losses and return the number of samples as the weight");
    kept.loss = {loss.sum.detach(), loss.weight};
    outputs = {loss.sum};
  }
  if (training_) {
    kept.inputs = std::move(inputs);
    kept.outputs = std::move(outputs);
  }
  return boundary;
}

Tensors Stage::backward(MicrobatchId microbatch, Tensors gradients) {
  Pass& kept = pass(microbatch);
  if (parts_.loss) gradients = {at::ones_like(kept.outputs.front())};
  const Roots roots = roots_of(std::exchange(kept.outputs, {}), std::move(gradients));
  if (!roots.edges.empty())
    Engine::get_default_engine().execute(roots.edges, roots.gradients, /*keep_graph=*/false, /*create_graph=*/false,
                                         /*accumulate_grad=*/true);
  Tensors input_gradients;
  for (const at::Tensor& input : kept.inputs) input_gradients.push_back(std::exchange(input.mutable_grad(), {}));
  kept.inputs.clear();
  return input_gradients;
}

Tensors Stage::input_backward(MicrobatchId microbatch, Tensors gradients) {
  Pass& kept = pass(microbatch);
  if (parts_.loss) gradients = {at::ones_like(kept.outputs.front())};
  Roots roots = roots_of(kept.outputs, std::move(gradients));
  kept.deferred.emplace();
  Tensors differentiable;
  for (const at::Tensor& input : kept.inputs)
    if (input.requires_grad()) differentiable.push_back(input);
  if (differentiable.empty() || roots.edges.empty()) {
    kept.deferred->whole_roots = std::move(roots.edges);
    kept.deferred->whole_gradients = std::move(roots.gradients);
    return Tensors(std::exchange(kept.inputs, {}).size());
  }
  Tensors found = run_to_inputs(roots.edges, roots.gradients, differentiable, *kept.deferred);
  Tensors input_gradients;
  auto next = found.begin();
  for (const at::Tensor& input : std::exchange(kept.inputs, {}))
    input_gradients.push_back(input.requires_grad() ? std::move(*next++) : at::Tensor());
  return input_gradients;
}

void Stage::weight_backward(MicrobatchId microbatch) {
  Pass& kept = pass(microbatch);
  check_invariant(kept.deferred.has_value(), "W without an I before it");
  run_deferred(*kept.deferred);
  kept.deferred.reset();
  kept.outputs.clear();
}

const Loss& Stage::loss(MicrobatchId microbatch) const { return passes_.at(microbatch.index()).loss; }

}  // namespace penstock
