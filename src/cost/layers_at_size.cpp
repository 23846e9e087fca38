#include "penstock/cost/layers_at_size.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"

#include "cost/layer_fields.h"

namespace penstock {
namespace {

double between(double from, double to, double share) { return from + (to - from) * share; }

std::int64_t between(Bytes from, Bytes to, double share) {
  return static_cast<std::int64_t>(
      std::ceil(between(static_cast<double>(from.count), static_cast<double>(to.count), share)));
}

MeasuredTime between(const MeasuredTime& from, const MeasuredTime& to, double share) {
  return {{between(from.median.count, to.median.count, share)}, {between(from.spread.count, to.spread.count, share)}};
}

MeasuredTime whole_backward(const LayerAtSize& size) {
  return size.backward.value_or(MeasuredTime{size.input_backward.median + size.weight_backward.median});
}

/// The measured sizes before and after `samples`, and where between them it lies.
struct Bracket {
  const LayerAtSize* before;
  const LayerAtSize* after;
  [[nodiscard]] double share(double samples) const {
    if (before == after) return 0;
    return (samples - static_cast<double>(before->samples)) / static_cast<double>(after->samples - before->samples);
  }
};

Bracket bracket(const LayerCost& layer, double samples) {
  const auto& sizes = layer.sizes;
  const auto least = static_cast<double>(sizes.front().samples);
  const auto most = static_cast<double>(sizes.back().samples);
  if (!(samples >= least && samples <= most))
    throw bad_input(fmt::format("microbatches of {:.6g} samples", samples),
                    least == most ? fmt::format("{}, the one size that the layer \"{}\" was measured at", least,
                                                shortened(layer.name))
                                  : fmt::format("{} to {}, the sizes that the layer \"{}\" was measured at", least,
                                                most, shortened(layer.name)),
                    "measure that size too, or take another number of microbatches");
  const auto after = std::lower_bound(sizes.begin(), sizes.end(), samples, [](const LayerAtSize& size, double wanted) {
    return static_cast<double>(size.samples) < wanted;
  });
  if (static_cast<double>(after->samples) == samples) return {&*after, &*after};
  return {&*std::prev(after), &*after};
}

}  // namespace

void LayersAtSize::Largest::fill(const std::vector<std::int64_t>& values) {
  by_power_ = {values};
  for (std::size_t half = 1; 2 * half <= values.size(); half *= 2) {
    const auto& before = by_power_.back();
    std::vector<std::int64_t> next(values.size() - 2 * half + 1);
    for (std::size_t first = 0; first < next.size(); ++first)
      next[first] = std::max(before[first], before[first + half]);
    by_power_.push_back(std::move(next));
  }
}

std::int64_t LayersAtSize::Largest::of(std::size_t first, std::size_t end) const {
  std::size_t power = 0;
  while ((std::size_t{2} << power) <= end - first) ++power;
  return std::max(by_power_[power][first], by_power_[power][end - (std::size_t{1} << power)]);
}

LayersAtSize::LayersAtSize(const LayerCosts& costs, double samples)
    : sums_(costs.layers.size() + 1),
      input_needs_gradient_(costs.input_needs_gradient),
      without_gradient_(static_cast<std::size_t>(costs.layers_without_gradient)),
      overhead_(costs.action_overhead.count) {
  validate(costs);
  const double whole = std::ceil(samples);
  Comparable comparable;
  for (std::size_t index = 0; index < costs.layers.size(); ++index) {
    const LayerCost& layer = costs.layers[index];
    const Bracket exact = bracket(layer, samples);
    const double share = exact.share(samples);
    const auto time = [&](MeasuredTime LayerAtSize::* member) {
      return between(exact.before->*member, exact.after->*member, share).median.count;
    };
    Sums& next = sums_[index + 1] = sums_[index];
    next.forward += time(&LayerAtSize::forward);
    next.input_backward += time(&LayerAtSize::input_backward);
    next.weight_backward += time(&LayerAtSize::weight_backward);
    next.backward += between(whole_backward(*exact.before), whole_backward(*exact.after), share).median.count;
    next.update += layer.update.count;
    next.parameter += layer.parameter.count;
    next.gradient += layer.gradient.count;
    next.optimizer += layer.optimizer.count;
    // What leads to no gradient is neither kept nor run again.
    if (index >= without_gradient_) {
      next.run_again += time(&LayerAtSize::forward);
      next.input += index > 0 ? boundary_.back()
                              : static_cast<std::int64_t>(whole * static_cast<double>(costs.input_bytes_per_sample));
    }
    const Bracket sizes = bracket(layer, whole);
    LayerAtSize here;
    for (const LayerSizeField& field : layer_size_fields)
      here.*field.member = {between(sizes.before->*field.member, sizes.after->*field.member, sizes.share(whole))};
    add_memory(here, layer.weight_activation_share, comparable);
  }
  forward_.fill(comparable.forward);
  input_backward_.fill(comparable.input_backward);
  recomputed_forward_.fill(comparable.recomputed_forward);
  recomputed_input_.fill(comparable.recomputed_input);
  fill(backward_, comparable.backward);
  fill(recomputed_, comparable.recomputed);
  fill(weight_, comparable.weight);
}

void LayersAtSize::fill(Passed& passed, std::vector<std::int64_t> values) {
  passed.value.fill(values);
  for (std::size_t layer = 0; layer < values.size(); ++layer) values[layer] -= sums_[layer + 1].gradient;
  passed.with_gradients.fill(values);
}

void LayersAtSize::add_memory(const LayerAtSize& here, double weight_activation_share, Comparable& comparable) {
  Sums& next = sums_[boundary_.size() + 1];
  const std::int64_t activation = here.activation.count;
  const std::int64_t boundary = here.boundary.count;
  next.activation += activation;
  const std::int64_t for_weights = std::llround(static_cast<double>(activation) * weight_activation_share);
  next.held_for_weights += for_weights;
  const auto or_else = [](Bytes measured, std::int64_t other) { return measured.count > 0 ? measured.count : other; };
  const std::int64_t deferred =
      or_else(here.inner_deferred, here.deferred.count > 0 ? here.deferred.count + boundary : 0);
  next.deferred += deferred;
  next.released_in_weights += std::max<std::int64_t>(for_weights - deferred, 0);
  const std::int64_t input_backward = or_else(here.input_workspace, here.backward_workspace.count);
  at_end_.push_back({here.kept_output.count, here.backward_workspace.count, input_backward, here.weight_workspace.count,
                     here.deferred.count});
  boundary_.push_back(boundary);
  comparable.forward.push_back(here.forward_workspace.count + next.activation);
  // Within a stage the gradient that arrived from the next rank stays to the end, beside that of the layer's output.
  const std::int64_t output_gradient = gradient_returns(boundary_.size() - 1) ? boundary : 0;
  const std::int64_t inner = or_else(here.inner_workspace, here.backward_workspace.count + output_gradient);
  comparable.backward.push_back(inner + next.activation);
  // Made again one by one, each as if the gradient came from another rank; the input is held in any case.
  const std::int64_t again = activation + sums_[at_end_.size() - 1].input;
  comparable.recomputed_forward.push_back(here.forward_workspace.count + again);
  comparable.recomputed.push_back(here.backward_workspace.count + output_gradient + again);
  const std::int64_t inner_input = or_else(here.inner_input_workspace, input_backward + output_gradient);
  // The next layer is still there, and with it what it keeps as its input.
  comparable.input_backward.push_back(inner_input - here.kept_output.count - next.deferred);
  comparable.recomputed_input.push_back(input_backward + output_gradient + again - next.held_for_weights);
  comparable.weight.push_back(here.weight_workspace.count + next.released_in_weights);
}

LayersAtSize::Workspace LayersAtSize::largest(const Passed& passed, std::size_t first, std::size_t end,
                                              std::int64_t offset, std::int64_t last) const {
  std::int64_t most = std::max<std::int64_t>(last, 0);
  std::int64_t with_gradients = most;
  if (end - first > 1) {
    most = std::max(most, passed.value.of(first, end - 1) + offset);
    with_gradients = std::max(most, passed.with_gradients.of(first, end - 1) + offset + sums_[end].gradient);
  }
  return {most, with_gradients - most};
}

// A layer's workspace counts beside the activations of the layers before it: those behind it are not there yet, or no
// longer.
std::int64_t LayersAtSize::forward_workspace(const StageRun& run, std::size_t first, std::size_t end) const {
  if (run.recomputed) return std::max<std::int64_t>(recomputed_forward_.of(first, end) - sums_[end].input, 0);
  return std::max<std::int64_t>(forward_.of(first, end) - sums_[end].activation - kept_output(run, end - 1), 0);
}

LayersAtSize::Workspace LayersAtSize::backward_workspace(const StageRun& run, std::size_t first,
                                                         std::size_t end) const {
  return largest(backward_, first, end, -sums_[end].activation - kept_output(run, end - 1),
                 at_end_[end - 1].backward - kept_output(run, end - 1));
}

LayersAtSize::Workspace LayersAtSize::recomputed_workspace(std::size_t first, std::size_t end) const {
  // What arrived from another rank is no longer there when the last layer has been passed.
  return largest(recomputed_, first, end, -sums_[end].input - boundary_[end - 1],
                 at_end_[end - 1].backward + made_again(end - 1));
}

// An `I` frees nothing before its end, so that what the later layers keep for `W` is held beside a layer's workspace.
std::int64_t LayersAtSize::input_workspace(const StageRun& run, std::size_t first, std::size_t end) const {
  const AtEnd& last = at_end_[end - 1];
  std::int64_t most = std::max<std::int64_t>(last.input_backward - kept_output(run, end - 1), 0);
  if (end - first > 1)
    most = std::max(most, input_backward_.of(first, end - 1) + sums_[end - 1].deferred + last.deferred);
  return most;
}

// The layers behind have their graphs again, which stay for `W`.
std::int64_t LayersAtSize::recomputed_input_workspace(std::size_t first, std::size_t end) const {
  const Sums& to = sums_[end];
  std::int64_t most = std::max<std::int64_t>(at_end_[end - 1].input_backward + made_again(end - 1), 0);
  if (end - first > 1)
    most = std::max(most, recomputed_input_.of(first, end - 1) + to.held_for_weights - to.input - boundary_[end - 1]);
  return most;
}

StageCost LayersAtSize::stage(std::size_t first, std::size_t end, const StageRun& run) const {
  const Sums& from = sums_[first];
  const Sums& to = sums_[end];
  StageCost stage;
  const double forward = to.forward - from.forward;
  const double again = run.recomputed ? to.run_again - from.run_again : 0;
  const double backward = to.backward - from.backward + again + overhead_;
  stage.forward = {(forward + overhead_) / run.speed};
  if (!run.split_backward) {
    // In a backward in one piece only the sum counts.
    stage.input_backward = stage.weight_backward = {backward / run.speed / 2};
  } else if (is_whole_in_weights(run, first)) {
    stage.input_backward = {overhead_ / run.speed};
    stage.weight_backward = {backward / run.speed};
  } else {
    stage.input_backward = {(to.input_backward - from.input_backward + again + overhead_) / run.speed};
    stage.weight_backward = {(to.weight_backward - from.weight_backward + overhead_) / run.speed};
  }
  stage.boundary = {boundary_[end - 1]};
  stage.gradient_returns = gradient_returns(end - 1);
  stage.parameter = {to.parameter - from.parameter};
  stage.gradient = {to.gradient - from.gradient};
  stage.kept_gradients = {stage.gradient.count * run.kept_gradients};
  stage.optimizer = {to.optimizer - from.optimizer};
  fill_activation(run, first, end, stage);
  fill_workspaces(run, first, end, stage);
  return stage;
}

void LayersAtSize::fill_activation(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const {
  const Sums& from = sums_[first];
  const Sums& to = sums_[end];
  stage.activation = {to.activation - from.activation + kept_output(run, end - 1)};
  std::int64_t held = to.held_for_weights - from.held_for_weights;
  if (run.recomputed) {
    // A layer's graph is made again when its backward comes; between I and W it stays.
    const std::int64_t inputs = to.input - from.input;
    // The share has a limit: where the inputs are next to nothing, more is counted for them than they take.
    stage.activation = {std::max(
        inputs, static_cast<std::int64_t>(std::ceil(static_cast<double>(held) / largest_weight_activation_share)))};
  }
  if (!run.split_backward || stage.activation.count == 0) return;
  // Until a whole backward, the gradient that arrived.
  if (is_whole_in_weights(run, first))
    held = stage.activation.count + (end < layers() && stage.gradient_returns ? stage.boundary.count : 0);
  stage.weight_activation_share = std::min(static_cast<double>(held) / static_cast<double>(stage.activation.count),
                                           largest_weight_activation_share);
}

void LayersAtSize::fill_workspaces(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const {
  stage.forward_workspace = {forward_workspace(run, first, end)};
  const Workspace whole = run.recomputed ? recomputed_workspace(first, end) : backward_workspace(run, first, end);
  stage.backward_workspace = {whole.most};
  stage.gradient_at_peak = {whole.gradient};
  if (is_whole_in_weights(run, first)) stage.weight_workspace = stage.backward_workspace;
  if (!run.split_backward || is_whole_in_weights(run, first)) return;
  const Workspace weight_workspace =
      largest(weight_, first, end, -sums_[end].released_in_weights, at_end_[end - 1].weight);
  stage.input_workspace = {run.recomputed ? recomputed_input_workspace(first, end) : input_workspace(run, first, end)};
  stage.weight_workspace = {weight_workspace.most};
  stage.gradient_at_peak = {weight_workspace.gradient};
}

Milliseconds LayersAtSize::time(std::size_t first, std::size_t end, const StageRun& run) const {
  const Sums& from = sums_[first];
  const Sums& to = sums_[end];
  const double forward = to.forward - from.forward;
  // Of the first stage too, whose backward may be a whole one: a search relies on a layer more taking no less.
  const double backward = run.split_backward ? to.input_backward - from.input_backward + to.weight_backward -
                                                   from.weight_backward + overhead_
                                             : to.backward - from.backward;
  const double again = run.recomputed ? to.run_again - from.run_again : 0;
  return {(forward + again + backward + 2 * overhead_) / run.speed};
}

Milliseconds LayersAtSize::update(std::size_t first, std::size_t end) const {
  return {sums_[end].update - sums_[first].update};
}

}  // namespace penstock
