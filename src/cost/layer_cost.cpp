#include "penstock/cost/layer_cost.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "penstock/base/error.h"

#include "cost/fields.h"
#include "cost/layer_fields.h"

namespace penstock {
namespace {

void require_duration(const std::string& path, Milliseconds value) {
  if (std::isfinite(value.count) && value.count >= 0) return;
  throw bad_input(fmt::format("{} is {}", path, value.count), "a number of milliseconds, at least 0",
                  "correct the cost");
}

void require_size(const std::string& path, std::int64_t value) {
  if (value < 0)
    throw bad_input(fmt::format("{} is {}", path, value), "a number of bytes, at least 0", "correct the cost");
}

void validate(const std::string& path, const LayerAtSize& size) {
  if (size.samples < 1)
    throw bad_input(fmt::format("{}.samples is {}", path, size.samples), "at least 1", "correct the cost");
  for (const LayerTimeField& field : layer_time_fields) {
    require_duration(fmt::format("{}.{}_ms", path, field.key), (size.*field.member).median);
    require_duration(fmt::format("{}.{}_spread_ms", path, field.key), (size.*field.member).spread);
  }
  if (size.backward) require_duration(path + ".backward_ms", size.backward->median);
  if (size.backward) require_duration(path + ".backward_spread_ms", size.backward->spread);
  for (const LayerSizeField& field : layer_size_fields)
    require_size(fmt::format("{}.{}", path, field.key), (size.*field.member).count);
  if (!(size.forward.median.count > 0))
    throw bad_input(fmt::format("{}.forward_ms is {}", path, size.forward.median.count),
                    "a time above 0, as every pass takes", "measure the layer again");
}

void validate(const std::string& path, const LayerCost& layer) {
  if (layer.sizes.empty())
    throw bad_input(path + ".sizes is empty", "the layer's times at one microbatch size or more", "measure the layer");
  for (std::size_t size = 0; size < layer.sizes.size(); ++size) {
    const std::string here = fmt::format("{}.sizes[{}]", path, size);
    validate(here, layer.sizes[size]);
    if (size > 0 && layer.sizes[size].samples <= layer.sizes[size - 1].samples)
      throw bad_input(
          fmt::format("{}.samples is {}, after {}", here, layer.sizes[size].samples, layer.sizes[size - 1].samples),
          "sizes that ascend", "sort them and keep one of each");
  }
  for (const LayerFixedField& field : layer_fixed_fields)
    require_size(fmt::format("{}.{}", path, field.key), (layer.*field.member).count);
  require_duration(path + ".update_ms", layer.update);
  if (!is_share(layer.weight_activation_share))
    throw bad_input(fmt::format("{}.weight_activation_share is {}", path, layer.weight_activation_share),
                    fmt::format("a share from 0 to {}", largest_weight_activation_share), "correct the cost");
}

/// A copy that says nothing of which layer it is.
LayerCost without_name(LayerCost layer) {
  layer.name.clear();
  layer.like.reset();
  return layer;
}

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

void validate_like(const LayerCosts& costs, std::size_t layer) {
  const std::optional<std::size_t> like = costs.layers[layer].like;
  if (!like) return;
  if (*like >= layer || costs.layers[*like].like)
    throw bad_input(fmt::format("layers[{}] is like layer {}", layer, *like), "an earlier layer that is like no other",
                    "correct the cost");
  if (without_name(costs.layers[layer]) != without_name(costs.layers[*like]))
    throw bad_input(fmt::format("layers[{}] differs from layer {}, which it is like", layer, *like), "equal costs",
                    "correct the cost");
}

}  // namespace

void validate(const LayerCosts& costs) {
  if (costs.layers.empty())
    throw bad_input("layers is empty", "one entry for each layer of the network", "add the layers' costs");
  for (std::size_t layer = 0; layer < costs.layers.size(); ++layer) {
    validate(fmt::format("layers[{}]", layer), costs.layers[layer]);
    validate_like(costs, layer);
  }
  require_size("input_bytes_per_sample", costs.input_bytes_per_sample);
  require_duration("action_overhead_ms", costs.action_overhead);
  for (std::size_t rank = 0; rank < costs.ranks.size(); ++rank) {
    const RankCost& of_rank = costs.ranks[rank];
    if (!(std::isfinite(of_rank.speed) && of_rank.speed > 0))
      throw bad_input(fmt::format("ranks[{}].speed is {}", rank, of_rank.speed), "a number above 0",
                      "correct the cost");
    if (of_rank.memory_cap) require_size(fmt::format("ranks[{}].memory_cap_bytes", rank), of_rank.memory_cap->count);
  }
  Cost links;
  links.stages.resize(1);
  links.default_link = costs.default_link;
  links.links = costs.links;
  validate(links);
}

void require_description(const Description& found, const Description& expected, std::string_view what,
                         std::string_view source) {
  for (const auto& [key, value] : expected) {
    const auto there = found.find(key);
    if (there != found.end() && there->second == value) continue;
    const std::string got =
        there == found.end() ? fmt::format("{} does not say the {} of its {}", shortened(source), shortened(key), what)
                             : fmt::format("{} is of another {}, {} \"{}\"", shortened(source), what, shortened(key),
                                           shortened(there->second));
    throw bad_input(got, fmt::format("{} \"{}\"", shortened(key), shortened(value)),
                    "give the costs of this one, or measure it");
  }
}

SampleRange measured_range(const LayerCosts& costs) {
  SampleRange range{1, std::numeric_limits<std::int64_t>::max(), ""};
  for (const LayerCost& layer : costs.layers) {
    range.least = std::max(range.least, layer.sizes.front().samples);
    if (layer.sizes.back().samples >= range.most) continue;
    range.most = layer.sizes.back().samples;
    range.narrowest_layer = layer.name;
  }
  return range;
}

void LayersAtSize::Largest::fill(const std::vector<std::int64_t>& values) {
  of_power_ = {values};
  for (std::size_t half = 1; 2 * half <= values.size(); half *= 2) {
    const auto& before = of_power_.back();
    std::vector<std::int64_t> next(values.size() - 2 * half + 1);
    for (std::size_t first = 0; first < next.size(); ++first)
      next[first] = std::max(before[first], before[first + half]);
    of_power_.push_back(std::move(next));
  }
}

std::int64_t LayersAtSize::Largest::of(std::size_t first, std::size_t end) const {
  std::size_t power = 0;
  while ((std::size_t{2} << power) <= end - first) ++power;
  return std::max(of_power_[power][first], of_power_[power][end - (std::size_t{1} << power)]);
}

LayersAtSize::LayersAtSize(const LayerCosts& costs, double samples)
    : sums_(costs.layers.size() + 1),
      input_needs_gradient_(costs.input_needs_gradient),
      overhead_(costs.action_overhead.count) {
  validate(costs);
  const double whole = std::ceil(samples);
  std::vector<std::int64_t> forward;
  std::vector<std::int64_t> backward;
  std::vector<std::int64_t> recomputed;
  for (std::size_t index = 0; index < costs.layers.size(); ++index) {
    const LayerCost& layer = costs.layers[index];
    const Bracket exact = bracket(layer, samples);
    const double share = exact.share(samples);
    const Bracket sizes = bracket(layer, whole);
    const auto bytes = [&](Bytes LayerAtSize::* member) {
      return between(sizes.before->*member, sizes.after->*member, sizes.share(whole));
    };
    const auto time = [&](MeasuredTime LayerAtSize::* member) {
      return between(exact.before->*member, exact.after->*member, share).median.count;
    };
    Sums next = sums_[index];
    next.forward += time(&LayerAtSize::forward);
    next.input_backward += time(&LayerAtSize::input_backward);
    next.weight_backward += time(&LayerAtSize::weight_backward);
    next.backward += between(whole_backward(*exact.before), whole_backward(*exact.after), share).median.count;
    next.update += layer.update.count;
    const std::int64_t activation = bytes(&LayerAtSize::activation);
    next.activation += activation;
    next.held_for_weights += std::llround(static_cast<double>(activation) * layer.weight_activation_share);
    next.input += index > 0 ? boundary_.back()
                            : static_cast<std::int64_t>(whole * static_cast<double>(costs.input_bytes_per_sample));
    next.parameter += layer.parameter.count;
    next.gradient += layer.gradient.count;
    next.optimizer += layer.optimizer.count;
    sums_[index + 1] = next;
    boundary_.push_back(bytes(&LayerAtSize::boundary));
    sums_[index + 1].split_workspace = sums_[index].split_workspace + bytes(&LayerAtSize::split_workspace) -
                                       bytes(&LayerAtSize::kept_output) - boundary_.back();
    kept_output_.push_back(bytes(&LayerAtSize::kept_output));
    last_backward_.push_back(bytes(&LayerAtSize::backward_workspace));
    forward.push_back(bytes(&LayerAtSize::forward_workspace) + next.activation);
    // Within a stage the gradient that arrived from the next rank stays to the end, beside that of the layer's output.
    const std::int64_t measured = bytes(&LayerAtSize::inner_workspace);
    const std::int64_t inner = measured > 0 ? measured : last_backward_.back() + boundary_.back();
    backward.push_back(inner + next.activation);
    recomputed.push_back(inner + activation + next.input);
  }
  forward_.fill(forward);
  backward_.fill(backward);
  recomputed_.fill(recomputed);
}

// A layer's workspace counts beside the activations of the layers before it: those behind it are not there yet, or no
// longer.
Bytes LayersAtSize::forward_workspace(std::size_t first, std::size_t end) const {
  return {std::max<std::int64_t>(forward_.of(first, end) - sums_[end].activation - kept_output(end - 1), 0)};
}

Bytes LayersAtSize::backward_workspace(std::size_t first, std::size_t end) const {
  std::int64_t most = std::max<std::int64_t>(last_backward_[end - 1] - kept_output(end - 1), 0);
  if (end - first > 1)
    most = std::max(most, backward_.of(first, end - 1) - sums_[end].activation - kept_output(end - 1));
  return {most};
}

// What one layer passes back, the one before it has as its output's gradient.
Bytes LayersAtSize::split_workspace(std::size_t first, std::size_t end) const {
  const std::int64_t together = sums_[end].split_workspace - sums_[first].split_workspace + boundary_[end - 1];
  return {std::max(backward_workspace(first, end).count, together)};
}

Bytes LayersAtSize::recomputed_workspace(std::size_t first, std::size_t end) const {
  const Sums& last = sums_[end - 1];
  std::int64_t most = last_backward_[end - 1] + sums_[end].activation - last.activation;
  if (end - first > 1) most = std::max(most, recomputed_.of(first, end - 1) - sums_[end].input);
  return {most};
}

StageCost LayersAtSize::stage(std::size_t first, std::size_t end, const StageRun& run) const {
  const Sums& from = sums_[first];
  const Sums& to = sums_[end];
  StageCost stage;
  const double forward = to.forward - from.forward;
  const double again = run.recomputed ? forward : 0;
  stage.forward = {(forward + overhead_) / run.speed};
  if (run.split_backward) {
    stage.input_backward = {(to.input_backward - from.input_backward + again + overhead_) / run.speed};
    stage.weight_backward = {(to.weight_backward - from.weight_backward + overhead_) / run.speed};
  } else {
    // Of a backward in one piece only the sum counts.
    const double whole = (to.backward - from.backward + again + overhead_) / run.speed;
    stage.input_backward = stage.weight_backward = {whole / 2};
  }
  stage.activation = {to.activation - from.activation + kept_output(end - 1)};
  std::int64_t held_for_weights = to.held_for_weights - from.held_for_weights;
  stage.forward_workspace = forward_workspace(first, end);
  stage.backward_workspace = run.split_backward ? split_workspace(first, end) : backward_workspace(first, end);
  if (run.recomputed) {
    // A layer's graph is made again when its backward comes; between I and W it stays, beside the inputs.
    const std::int64_t inputs = to.input - from.input;
    held_for_weights += inputs;
    // The share has a limit: where the inputs are next to nothing, more is counted for them than they take.
    stage.activation = {std::max(inputs, static_cast<std::int64_t>(std::ceil(static_cast<double>(held_for_weights) /
                                                                             largest_weight_activation_share)))};
    if (!run.split_backward) stage.backward_workspace = recomputed_workspace(first, end);
  }
  stage.weight_activation_share =
      stage.activation.count == 0 || !run.split_backward
          ? 1
          : std::min(static_cast<double>(held_for_weights) / static_cast<double>(stage.activation.count),
                     largest_weight_activation_share);
  stage.boundary = {boundary_[end - 1]};
  if (first == 0 && run.split_backward && !input_needs_gradient_) {
    const double whole = (to.backward - from.backward + again + overhead_) / run.speed;
    stage.input_backward = {overhead_ / run.speed};
    stage.weight_backward = {whole};
    stage.backward_workspace = run.recomputed ? recomputed_workspace(first, end) : backward_workspace(first, end);
    const auto held = static_cast<double>(stage.activation.count + (end < layers() ? stage.boundary.count : 0));
    stage.weight_activation_share =
        stage.activation.count == 0
            ? 1
            : std::min(held / static_cast<double>(stage.activation.count), largest_weight_activation_share);
  }
  stage.parameter = {to.parameter - from.parameter};
  stage.gradient = {to.gradient - from.gradient};
  stage.optimizer = {to.optimizer - from.optimizer};
  return stage;
}

Milliseconds LayersAtSize::time(std::size_t first, std::size_t end, const StageRun& run) const {
  const Sums& from = sums_[first];
  const Sums& to = sums_[end];
  const double forward = to.forward - from.forward;
  // Of the first stage too, whose backward may be a whole one: a search relies on a layer more taking no less.
  const double backward = run.split_backward ? to.input_backward - from.input_backward + to.weight_backward -
                                                   from.weight_backward + overhead_
                                             : to.backward - from.backward;
  return {((run.recomputed ? 2 : 1) * forward + backward + 2 * overhead_) / run.speed};
}

Milliseconds LayersAtSize::update(std::size_t first, std::size_t end) const {
  return {sums_[end].update - sums_[first].update};
}

Cost cost_of_cut(const LayerCosts& costs, const std::vector<std::int64_t>& first_layers, double samples,
                 const CutRun& run) {
  const auto layers = static_cast<std::int64_t>(costs.layers.size());
  const bool ascending =
      std::adjacent_find(first_layers.begin(), first_layers.end(), std::greater_equal<>()) == first_layers.end();
  if (first_layers.empty() || first_layers.front() != 0 || first_layers.back() >= layers || !ascending)
    throw bad_input(
        fmt::format("a cut into {} of {}", counted(std::ssize(first_layers), "stage"), counted(layers, "layer")),
        "first layers that ascend from 0 and are all there", "correct the cut");
  const LayersAtSize at_size(costs, samples);
  Cost cost;
  cost.default_link = costs.default_link;
  cost.links = costs.links;
  for (std::size_t stage = 0; stage < first_layers.size(); ++stage) {
    const std::int64_t end = stage + 1 < first_layers.size() ? first_layers[stage + 1] : layers;
    const std::size_t rank = stage < run.ranks.size() ? static_cast<std::size_t>(run.ranks[stage]) : stage;
    const bool recomputed = stage < run.recomputed.size() && run.recomputed[stage];
    const double speed = rank < costs.ranks.size() ? costs.ranks[rank].speed : 1;
    cost.stages.push_back(at_size.stage(static_cast<std::size_t>(first_layers[stage]), static_cast<std::size_t>(end),
                                        {recomputed, run.split_backward, speed}));
  }
  const bool capped = std::any_of(costs.ranks.begin(), costs.ranks.end(),
                                  [](const RankCost& rank) { return rank.memory_cap.has_value(); });
  if (capped)
    for (const RankCost& rank : costs.ranks)
      cost.memory_caps.push_back(rank.memory_cap.value_or(Bytes{std::numeric_limits<std::int64_t>::max() / 2}));
  return cost;
}

}  // namespace penstock
