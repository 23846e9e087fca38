#include "penstock/exec/stage.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include <c10/util/SmallVector.h>
#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/dropout.h"

#include "exec/flow.h"
#include "exec/gradient_nodes.h"
#include "exec/layer_inputs.h"
#include "exec/moved.h"
#include "exec/split_backward.h"

namespace penstock {

using torch::autograd::Edge;
using torch::autograd::edge_list;

// Where the gradients of a segment's inputs end: a node for each, as each would have in one graph with what comes
// before, so that a hook on one is not called for another's gradient. By input; null where it takes no gradient.
using InputGradients = c10::SmallVector<OwnedNode<GradientCollector>, 2>;

// What is kept of a segment for one microbatch. Of its outputs only the place in the graph: their storage is free as
// soon as who takes them has no more use for it.
struct Stage::SegmentPass {
  Tensors inputs;
  std::size_t input_count = 0;
  Versions versions;               // of the inputs, where they are computed with again
  InputGradients input_gradients;  // empty where no input takes a gradient
  edge_list roots;                 // by output; without a node where it takes no part in the graph
  bool leads_to_gradient = true;
  std::optional<DeferredBackward> deferred;
};

// What is kept of one microbatch between its forward and its backward.
struct Stage::Pass {
  std::vector<SegmentPass> segments;
  Tensors targets;  // where the loss has to be computed again
  Loss loss;        // detached
  at::Tensor loss_gradient;

  // Of the step before. The vectors keep their room, since every step fills them anew.
  void reset() {
    segments.clear();
    targets.clear();
    loss = {};
    loss_gradient.reset();
  }
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

bool takes_gradients(const Tensors& tensors) { return std::any_of(tensors.begin(), tensors.end(), takes_gradient); }

// The inputs under names of their own, by which the segment's graph hangs on a collector in place of accumulators: no
// leaves, which layers may not change in place, and their gradients arrive as the graph made them. Where none takes a
// gradient, the inputs as they are.
Tensors attached(const Tensors& inputs, InputGradients& gradients) {
  if (!takes_gradients(inputs)) return inputs;
  Tensors attached;
  attached.reserve(inputs.size());
  gradients.assign(inputs.size(), {});
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    const at::Tensor& input = inputs[index];
    attached.push_back(input.defined() ? at::Tensor(input.variable_data()) : input);
    if (!takes_gradient(input)) continue;
    gradients[index] = make_node<GradientCollector>();
    gradients[index].node->add_input_like(attached.back());
    torch::autograd::impl::set_gradient_edge(attached.back(), {gradients[index].owner, 0});
  }
  return attached;
}

// By input; undefined where none arrived.
Tensors arrived_gradients(std::size_t inputs, const InputGradients& gradients) {
  Tensors by_input(inputs);
  for (std::size_t index = 0; index < gradients.size(); ++index) {
    if (gradients[index].node == nullptr) continue;
    Tensors collected = gradients[index].node->take();
    if (!collected.empty()) by_input[index] = std::move(collected.front());
  }
  return by_input;
}

std::vector<const torch::autograd::Node*> nodes_of(const InputGradients& gradients) {
  std::vector<const torch::autograd::Node*> nodes;
  for (const auto& collector : gradients)
    if (collector.node != nullptr) nodes.push_back(collector.node);
  return nodes;
}

// The roots that a gradient has arrived for. It is missing where the next stage made no use of that output.
BackwardRoots roots_with_gradients(edge_list roots, Tensors gradients) {
  const auto arrived = [](const Edge& root, const at::Tensor& gradient) {
    return root.is_valid() && gradient.defined();
  };
  if (std::equal(roots.begin(), roots.end(), gradients.begin(), gradients.end(), arrived))
    return {std::move(roots), std::move(gradients)};
  BackwardRoots found;
  for (std::size_t index = 0; index < roots.size() && index < gradients.size(); ++index) {
    if (!arrived(roots[index], gradients[index])) continue;
    found.edges.push_back(std::move(roots[index]));
    found.gradients.push_back(std::move(gradients[index]));
  }
  return found;
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
  inputs_.resize(parts_.layers.size());
}
Stage::Stage(Stage&&) noexcept = default;
Stage& Stage::operator=(Stage&&) noexcept = default;
Stage::~Stage() = default;

Stage::Pass& Stage::pass(MicrobatchId microbatch) { return passes_.at(microbatch.index()); }

std::int32_t Stage::microbatches() const { return static_cast<std::int32_t>(passes_.size()); }

void Stage::begin(const StepSettings& settings) {
  settings_ = settings;
  passes_.resize(static_cast<std::size_t>(settings.microbatches));
  for (Pass& pass : passes_) pass.reset();
  current_layer_.reset();
  using enum Sequences;
  if (settings.sequences != Continue) caches_.clear();
  if (settings.sequences == Begin) caches_.assign(passes_.size(), std::vector<KeyValueCache>(parts_.layers.size()));
  if (settings.sequences == Continue)
    check_invariant(caches_.size() == passes_.size(), "sequences that go on without having begun");
  for (std::size_t sequence = 0; sequence < std::min(caches_.size(), settings.begun_anew.size()); ++sequence)
    if (settings.begun_anew[sequence]) caches_[sequence].assign(parts_.layers.size(), {});
  for (LayerBuffers& buffers : buffers_) buffers.begin_step();
  if (settings.training) evaluation_.reset();
  if (!settings.training && !evaluation_) evaluation_ = std::make_unique<EvaluationScope>(parts_.layers);
}

Tensors Stage::run(const Segment& segment, MicrobatchId microbatch, Tensors inputs) {
  const PrecisionScope precision(parts_.precision, parts_.device);
  Flow flow(parts_.skips, segment.first, std::move(inputs));
  for (std::int64_t layer = segment.first; layer < segment.end; ++layer) {
    current_layer_ = layer;
    const auto local = static_cast<std::size_t>(layer - parts_.first_layer);
    KeyValueCache* cache = caches_.empty() ? nullptr : &caches_[microbatch.index()][local];
    const KeyValueCache remembered = cache == nullptr ? KeyValueCache{} : *cache;
    if (settings_.training) buffers_[local].begin_pass(microbatch.value);
    Tensors outputs = inputs_[local].run(parts_.layers[local], flow.inputs_of(layer), [&](const Tensors& given) {
      const DrawScope draws({parts_.seed, settings_.step, microbatch.value, layer});
      if (cache == nullptr) return parts_.layers[local].forward(given);
      *cache = remembered;
      const CacheScope remembers(*cache);
      return parts_.layers[local].forward(given);
    });
    if (settings_.training) buffers_[local].end_pass();
    if (parts_.check_finite) check_finite(outputs);
    flow.put_outputs_of(layer, std::move(outputs));
  }
  Tensors boundary = std::move(flow).boundary(segment.end);
  current_layer_.reset();
  return boundary;
}

// The loss belongs to the last segment: what its backward starts from is the sum alone.
Tensors Stage::run_with_loss(const Segment& segment, MicrobatchId microbatch, Tensors inputs, const Tensors& targets) {
  Tensors outputs = run(segment, microbatch, std::move(inputs));
  const Versions before = versions_of(targets);
  const DrawScope draws({parts_.seed, settings_.step, microbatch.value, segment.end});
  const Loss loss = parts_.loss(outputs, targets);
  if (versions_of(targets) != before)
    throw bad_input("the loss changes its targets in place", "targets that stay as they are",
                    "let the loss compute with a copy of them");
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
  if (settings_.training && !loss.sum.requires_grad() && loss.weight > 0)
    throw bad_input("a loss that no parameter leads to: its sum takes no part in the graph",
                    "a sum that libtorch can differentiate",
                    "compute it from the outputs, not from detached tensors, numbers or under no_grad");
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
    // Of inputs that take no gradient the graph keeps what it needs.
    const bool keeps_inputs = settings_.training && (segment.recompute || takes_gradients(flow));
    const std::size_t input_count = flow.size();
    InputGradients gradients;
    Tensors given;
    if (keeps_inputs)
      given = attached(flow, gradients);
    else
      given.swap(flow);
    Tensors outputs = last && with_loss ? run_with_loss(segment, microbatch, std::move(given), targets)
                                        : run(segment, microbatch, std::move(given));
    if (settings_.training) {
      SegmentPass& kept_segment = kept.segments[index];
      kept_segment.leads_to_gradient = takes_gradients(outputs);
      kept_segment.input_count = input_count;
      // A segment that learns nothing needs nothing again.
      if (kept_segment.leads_to_gradient && keeps_inputs) kept_segment.inputs = std::move(flow);
      if (!kept_segment.leads_to_gradient) {
        // Nothing arrives at any of them, and the stage before is told so for each.
        kept_segment.roots.resize(outputs.size());
      } else if (!segment.recompute) {
        kept_segment.roots = roots_of(outputs);
        kept_segment.input_gradients = std::move(gradients);
      } else {
        if (parts_.offload)
          for (at::Tensor& input : kept_segment.inputs) input = moved(input, at::kCPU);
        kept_segment.versions = versions_of(kept_segment.inputs);
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

// With the same random numbers and the graph that the forward pass freed.
void Stage::run_again(const Segment& segment, MicrobatchId microbatch, SegmentPass& kept) {
  const at::AutoGradMode graph(true);
  const RecomputeScope again;
  if (versions_of(kept.inputs) != kept.versions) {
    current_layer_ = segment.first;
    throw bad_input("an input that recomputation has kept was changed in place meanwhile",
                    "inputs that stay as they are until the backward pass",
                    "find the module that keeps a tensor and changes it later, or do not recompute this layer");
  }
  for (at::Tensor& input : kept.inputs) input = moved(input, parts_.device);
  const Pass& microbatch_pass = pass(microbatch);
  const bool with_loss = segment.end == segments_.back().end && microbatch_pass.loss_gradient.defined();
  Tensors given = attached(kept.inputs, kept.input_gradients);
  kept.roots = roots_of(with_loss ? run_with_loss(segment, microbatch, std::move(given), microbatch_pass.targets)
                                  : run(segment, microbatch, std::move(given)));
}

template <class Propagate>
Tensors Stage::through_segments(MicrobatchId microbatch, Tensors gradients, const Propagate& propagate) {
  const DrawScope no_draws = DrawScope::refusing();
  Pass& kept = pass(microbatch);
  for (std::size_t index = segments_.size(); index-- > 0;) {
    SegmentPass& segment = kept.segments[index];
    if (segments_[index].recompute && segment.leads_to_gradient) run_again(segments_[index], microbatch, segment);
    if (index + 1 == segments_.size() && kept.loss_gradient.defined()) {
      gradients.assign(segment.roots.size(), {});
      gradients.back() = std::exchange(kept.loss_gradient, {});
    }
    segment.inputs.clear();
    propagate(segment, roots_with_gradients(std::exchange(segment.roots, {}), std::move(gradients)));
    gradients = arrived_gradients(segment.input_count, std::exchange(segment.input_gradients, {}));
  }
  kept.targets.clear();
  return gradients;
}

Tensors Stage::backward(MicrobatchId microbatch, Tensors gradients) {
  return through_segments(microbatch, std::move(gradients),
                          [](SegmentPass&, BackwardRoots roots) { run_backward(std::move(roots)); });
}

Tensors Stage::input_backward(MicrobatchId microbatch, Tensors gradients) {
  return through_segments(microbatch, std::move(gradients), [](SegmentPass& segment, BackwardRoots roots) {
    segment.deferred = run_input_backward(std::move(roots), nodes_of(segment.input_gradients));
  });
}

void Stage::weight_backward(MicrobatchId microbatch) {
  const DrawScope no_draws = DrawScope::refusing();
  Pass& kept = pass(microbatch);
  for (std::size_t index = segments_.size(); index-- > 0;) {
    auto& deferred = kept.segments[index].deferred;
    check_invariant(deferred.has_value(), "W without an I before it");
    deferred->run();
    deferred.reset();
  }
  kept.segments.clear();
}

Tensors Stage::deferred_gradients(MicrobatchId microbatch) const {
  Tensors deferred;
  for (const SegmentPass& segment : passes_.at(microbatch.index()).segments) {
    if (!segment.deferred) continue;
    const Tensors gradients = segment.deferred->gradients();
    deferred.insert(deferred.end(), gradients.begin(), gradients.end());
  }
  return deferred;
}

const Loss& Stage::loss(MicrobatchId microbatch) const { return passes_.at(microbatch.index()).loss; }

bool Stage::changes_inputs(std::int64_t layer) const {
  return inputs_.at(static_cast<std::size_t>(layer - parts_.first_layer)).changes_any();
}

void Stage::check_dtypes(MicrobatchId microbatch, const Tensors& boundary) {
  const auto dtype_of = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional(tensor.scalar_type()) : std::nullopt;
  };
  if (dtypes_.empty())
    for (const at::Tensor& tensor : boundary) dtypes_.push_back(dtype_of(tensor));
  const bool fits = std::equal(boundary.begin(), boundary.end(), dtypes_.begin(), dtypes_.end(),
                               [&](const at::Tensor& tensor, const std::optional<at::ScalarType>& was) {
                                 return !tensor.defined() || !was || tensor.scalar_type() == *was;
                               });
  if (fits) return;
  std::vector<std::optional<at::ScalarType>> dtypes(boundary.size());
  std::transform(boundary.begin(), boundary.end(), dtypes.begin(), dtype_of);
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
