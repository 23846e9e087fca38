#include "penstock/exec/stage.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include <torch/csrc/autograd/engine.h>
#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/dropout.h"

#include "exec/flow.h"
#include "exec/moved.h"
#include "exec/split_backward.h"

namespace penstock {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Engine;
using torch::autograd::variable_list;

// What is kept of a segment for one microbatch. Of its outputs only the place in the graph: their storage is free as
// soon as who takes them has no more use for it.
struct Stage::SegmentPass {
  Tensors inputs;   // leaves
  edge_list roots;  // by output; without a node where it takes no part in the graph
  std::optional<DeferredWeightGradients> deferred;
};

// What is kept of one microbatch between its forward and its backward.
struct Stage::Pass {
  std::vector<SegmentPass> segments;
  Tensors targets;  // where the loss has to be computed again
  Loss loss;        // detached
  at::Tensor loss_gradient;
};

namespace {

bool takes_gradient(const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

// An output on its way to the next stage or segment: a leaf of what is computed there.
at::Tensor as_boundary(const at::Tensor& output) {
  if (!output.defined()) return output;
  at::Tensor boundary = output.detach();
  if (output.requires_grad()) boundary.requires_grad_();
  return boundary;
}

edge_list roots_of(const Tensors& outputs) {
  edge_list roots;
  roots.reserve(outputs.size());
  for (const at::Tensor& output : outputs)
    roots.push_back(takes_gradient(output) ? torch::autograd::impl::gradient_edge(output) : Edge());
  return roots;
}

struct Roots {
  edge_list edges;
  variable_list gradients;
};

// The roots that a gradient has arrived for. It is missing where the next stage made no use of that output.
Roots roots_with_gradients(edge_list roots, Tensors gradients) {
  Roots found;
  for (std::size_t index = 0; index < roots.size() && index < gradients.size(); ++index) {
    if (!roots[index].is_valid() || !gradients[index].defined()) continue;
    found.edges.push_back(std::move(roots[index]));
    found.gradients.push_back(std::move(gradients[index]));
  }
  return found;
}

Tensors whole_backward(const Tensors& inputs, const Roots& roots) {
  if (!roots.edges.empty())
    Engine::get_default_engine().execute(roots.edges, roots.gradients, /*keep_graph=*/false, /*create_graph=*/false,
                                         /*accumulate_grad=*/true);
  Tensors gradients;
  gradients.reserve(inputs.size());
  for (const at::Tensor& input : inputs)
    gradients.push_back(takes_gradient(input) ? std::exchange(input.mutable_grad(), {}) : at::Tensor());
  return gradients;
}

Tensors split_backward(const Tensors& inputs, Roots roots, DeferredWeightGradients& deferred) {
  Tensors differentiable;
  for (const at::Tensor& input : inputs)
    if (takes_gradient(input)) differentiable.push_back(input);
  if (differentiable.empty() || roots.edges.empty()) {
    deferred.ready_roots = std::move(roots.edges);
    deferred.ready_gradients = std::move(roots.gradients);
    return Tensors(inputs.size());
  }
  Tensors found = run_to_inputs(roots.edges, roots.gradients, differentiable, deferred);
  Tensors gradients;
  auto next = found.begin();
  for (const at::Tensor& input : inputs) gradients.push_back(takes_gradient(input) ? std::move(*next++) : at::Tensor());
  return gradients;
}

std::string names_of(const std::vector<std::optional<at::ScalarType>>& dtypes) {
  std::string names;
  for (const auto& dtype : dtypes)
    names += (names.empty() ? "" : ", ") + std::string(dtype ? at::toString(*dtype) : "none");
  return fmt::format("{} tensors ({})", dtypes.size(), names);
}

}  // namespace

Stage::Stage(StageParts parts) : parts_(std::move(parts)) {
  const auto recomputes = [&](std::size_t layer) { return layer < parts_.recompute.size() && parts_.recompute[layer]; };
  for (std::size_t layer = 0; layer < parts_.layers.size(); ++layer) {
    const std::int64_t index = parts_.first_layer + static_cast<std::int64_t>(layer);
    // A layer that is run again is a segment of its own: it is the inputs of each that are kept.
    if (segments_.empty() || segments_.back().recompute || recomputes(layer))
      segments_.push_back({index, index, recomputes(layer)});
    ++segments_.back().end;
    buffers_.emplace_back(parts_.layers[layer], index, BufferUse{recomputes(layer), parts_.copied});
  }
}
Stage::Stage(Stage&&) noexcept = default;
Stage& Stage::operator=(Stage&&) noexcept = default;
Stage::~Stage() = default;

Stage::Pass& Stage::pass(MicrobatchId microbatch) { return passes_.at(microbatch.index()); }

void Stage::begin(const StepSettings& settings) {
  settings_ = settings;
  passes_.clear();
  passes_.resize(static_cast<std::size_t>(settings.microbatches));
  current_layer_.reset();
  using enum StepSettings::Sequences;
  if (settings.sequences != Continue) caches_.clear();
  if (settings.sequences == Begin) caches_.assign(passes_.size(), std::vector<KeyValueCache>(parts_.layers.size()));
  if (settings.sequences == Continue)
    check_invariant(caches_.size() == passes_.size(), "sequences that go on without having begun");
  for (LayerBuffers& buffers : buffers_) buffers.begin_step();
  if (settings.training) evaluation_.reset();
  if (!settings.training && !evaluation_) evaluation_ = std::make_unique<EvaluationScope>(parts_.layers);
}

Tensors Stage::run(const Segment& segment, MicrobatchId microbatch, const Tensors& inputs) {
  const PrecisionScope precision(parts_.precision, parts_.device);
  Flow flow(parts_.skips, segment.first, inputs);
  for (std::int64_t layer = segment.first; layer < segment.end; ++layer) {
    current_layer_ = layer;
    const auto local = static_cast<std::size_t>(layer - parts_.first_layer);
    const DrawScope draws({parts_.seed, settings_.step, microbatch.value, layer});
    std::optional<CacheScope> cache;
    if (!caches_.empty()) cache.emplace(caches_[microbatch.index()][local]);
    if (settings_.training) buffers_[local].begin_pass(microbatch.value);
    Tensors outputs = parts_.layers[local].forward(flow.inputs_of(layer));
    if (settings_.training) buffers_[local].end_pass();
    if (parts_.check_finite) check_finite(outputs);
    flow.put_outputs_of(layer, std::move(outputs));
  }
  Tensors boundary = std::move(flow).boundary(segment.end);
  current_layer_.reset();
  return boundary;
}

// The loss belongs to the last segment: what its backward starts from is the sum alone.
Tensors Stage::run_with_loss(const Segment& segment, MicrobatchId microbatch, const Tensors& inputs,
                             const Tensors& targets) {
  Tensors outputs = run(segment, microbatch, inputs);
  const DrawScope draws({parts_.seed, settings_.step, microbatch.value, segment.end});
  const Loss loss = parts_.loss(outputs, targets);
  take_loss(pass(microbatch), loss);
  outputs.push_back(loss.sum);
  return outputs;
}

void Stage::take_loss(Pass& kept, const Loss& loss) const {
  if (!loss.sum.defined() || loss.sum.numel() != 1)
    throw run_failed(loss.sum.defined() ? fmt::format("the loss returned a tensor of {} elements", loss.sum.numel())
                                        : "the loss returned no tensor",
                     "one element, the sum", "sum the losses and return the number of samples as the weight");
  if (!(loss.weight >= 0))
    throw run_failed(fmt::format("the loss returned the weight {}", loss.weight), "at least 0",
                     "return the number of samples, or of unmasked tokens");
  kept.loss = {loss.sum.detach(), loss.weight};
  if (parts_.check_finite && !std::isfinite(kept.loss.sum.item<double>()))
    throw run_failed(
        fmt::format("the loss after layer {} is {}", segments_.back().end - 1, kept.loss.sum.item<double>()),
        "a finite number", "check the targets, or lower the learning rate");
}

Tensors Stage::forward(MicrobatchId microbatch, Tensors inputs, const Tensors& targets) {
  const at::AutoGradMode graph(settings_.training);
  Pass& kept = pass(microbatch);
  const bool with_loss = parts_.loss && settings_.with_loss;
  if (settings_.training) kept.segments.resize(segments_.size());
  Tensors flow = std::move(inputs);
  for (std::size_t index = 0; index < segments_.size(); ++index) {
    const Segment& segment = segments_[index];
    const bool last = index + 1 == segments_.size();
    Tensors outputs =
        last && with_loss ? run_with_loss(segment, microbatch, flow, targets) : run(segment, microbatch, flow);
    if (settings_.training) {
      SegmentPass& kept_segment = kept.segments[index];
      kept_segment.inputs = std::move(flow);
      if (!segment.recompute) {
        kept_segment.roots = roots_of(outputs);
      } else if (parts_.offload) {
        for (at::Tensor& input : kept_segment.inputs) input = moved(input, at::kCPU);
      }
      if (last && with_loss) {
        kept.loss_gradient = loss_gradient(kept.loss.sum);
        if (segment.recompute) kept.targets = targets;
      }
    }
    if (last && with_loss) outputs.pop_back();
    for (at::Tensor& output : outputs) output = as_boundary(output);
    flow = std::move(outputs);
  }
  check_dtypes(microbatch, flow);
  return flow;
}

// The same tensor for all microbatches: the engine only reads it.
const at::Tensor& Stage::loss_gradient(const at::Tensor& sum) {
  const bool fits = loss_gradient_.defined() && loss_gradient_.scalar_type() == sum.scalar_type() &&
                    loss_gradient_.sizes() == sum.sizes() && loss_gradient_scale_ == settings_.loss_scale;
  if (!fits) loss_gradient_ = at::full_like(sum, loss_gradient_scale_ = settings_.loss_scale);
  return loss_gradient_;
}

// With the same random numbers and the graph that the forward pass let go of.
void Stage::run_again(const Segment& segment, MicrobatchId microbatch, SegmentPass& kept) {
  const at::AutoGradMode graph(true);
  const RecomputeScope again;
  for (at::Tensor& input : kept.inputs) input = moved(input, parts_.device);
  const Pass& of_microbatch = pass(microbatch);
  const bool with_loss = segment.end == segments_.back().end && of_microbatch.loss_gradient.defined();
  kept.roots = roots_of(with_loss ? run_with_loss(segment, microbatch, kept.inputs, of_microbatch.targets)
                                  : run(segment, microbatch, kept.inputs));
}

template <class Propagate>
Tensors Stage::through_segments(MicrobatchId microbatch, Tensors gradients, const Propagate& propagate) {
  const DrawScope no_draws = DrawScope::refusing();
  Pass& kept = pass(microbatch);
  for (std::size_t index = segments_.size(); index-- > 0;) {
    SegmentPass& segment = kept.segments[index];
    if (segments_[index].recompute) run_again(segments_[index], microbatch, segment);
    if (index + 1 == segments_.size() && kept.loss_gradient.defined()) {
      gradients.assign(segment.roots.size(), {});
      gradients.back() = std::exchange(kept.loss_gradient, {});
    }
    gradients = propagate(segment, std::exchange(segment.inputs, {}),
                          roots_with_gradients(std::exchange(segment.roots, {}), std::move(gradients)));
  }
  kept.targets.clear();
  return gradients;
}

Tensors Stage::backward(MicrobatchId microbatch, Tensors gradients) {
  return through_segments(
      microbatch, std::move(gradients),
      [](SegmentPass&, const Tensors& inputs, const Roots& roots) { return whole_backward(inputs, roots); });
}

Tensors Stage::input_backward(MicrobatchId microbatch, Tensors gradients) {
  return through_segments(microbatch, std::move(gradients),
                          [](SegmentPass& segment, const Tensors& inputs, Roots roots) {
                            return split_backward(inputs, std::move(roots), segment.deferred.emplace());
                          });
}

void Stage::weight_backward(MicrobatchId microbatch) {
  const DrawScope no_draws = DrawScope::refusing();
  Pass& kept = pass(microbatch);
  for (std::size_t index = segments_.size(); index-- > 0;) {
    auto& deferred = kept.segments[index].deferred;
    check_invariant(deferred.has_value(), "W without an I before it");
    run_deferred(*deferred);
    deferred.reset();
  }
  kept.segments.clear();
}

Tensors Stage::deferred_gradients(MicrobatchId microbatch) const {
  Tensors deferred;
  for (const SegmentPass& segment : passes_.at(microbatch.index()).segments) {
    if (!segment.deferred) continue;
    const auto& ready = segment.deferred->ready_gradients;
    deferred.insert(deferred.end(), ready.begin(), ready.end());
    for (const DeferredNode& node : segment.deferred->nodes)
      deferred.insert(deferred.end(), node.arrived.begin(), node.arrived.end());
  }
  return deferred;
}

const Loss& Stage::loss(MicrobatchId microbatch) const { return passes_.at(microbatch.index()).loss; }

void Stage::check_dtypes(MicrobatchId microbatch, const Tensors& boundary) {
  std::vector<std::optional<at::ScalarType>> dtypes;
  dtypes.reserve(boundary.size());
  for (const at::Tensor& tensor : boundary)
    dtypes.push_back(tensor.defined() ? std::optional(tensor.scalar_type()) : std::nullopt);
  if (dtypes_.empty()) dtypes_ = dtypes;
  const bool fits = std::equal(dtypes.begin(), dtypes.end(), dtypes_.begin(), dtypes_.end(),
                               [](const auto& is, const auto& was) { return !is || !was || *is == *was; });
  if (!fits)
    throw run_failed(fmt::format("layer {} returned {} for microbatch {}, {} before",
                                 parts_.first_layer + static_cast<std::int64_t>(parts_.layers.size()) - 1,
                                 names_of(dtypes), microbatch.value, names_of(dtypes_)),
                     "the same number of tensors and the same dtypes for all microbatches",
                     "return an undefined tensor for what is missing, and convert what changes");
}

void Stage::check_finite(const Tensors& outputs) const {
  for (const at::Tensor& output : outputs) {
    if (!output.defined() || !output.is_floating_point() || at::isfinite(output).all().item<bool>()) continue;
    throw run_failed("it returned a number that is not finite", "finite numbers",
                     "check its inputs and weights, or lower the learning rate");
  }
}

}  // namespace penstock
