#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/cost.h"
#include "penstock/cost/layers_at_size.h"

#include "cost/fields.h"
#include "cost/layer_fields.h"

namespace penstock {
namespace {

void require_duration(const std::string& path, Milliseconds value) {
  if (value.count >= 0 && value.count <= largest_duration.count) return;
  throw bad_input(fmt::format("{} is {}", path, value.count), "a number of milliseconds, at least 0",
                  "correct the cost");
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

void require_layer(const LayerCosts& costs, const std::string& path, const LayerParameter& end, Bytes size) {
  const auto layers = std::ssize(costs.layers);
  if (end.layer < 0 || end.layer >= layers)
    throw bad_input(fmt::format("{}.layer is {}", path, end.layer),
                    fmt::format("the number of a layer, 0 to {}", layers - 1), "correct the cost");
  const Bytes parameters = entry(costs.layers, end.layer).parameter;
  if (size > parameters)
    throw bad_input(fmt::format("{} has {} of {} bytes in a layer whose parameters have {}", path,
                                shortened(end.parameter), size.count, parameters.count),
                    "a parameter of that layer", "correct bytes, or parameter_bytes of the layer");
}

void validate_tie(const LayerCosts& costs, std::size_t index) {
  const LayerTie& tie = costs.ties[index];
  const std::string path = fmt::format("ties[{}]", index);
  require_size(path + ".bytes", tie.size.count);
  require_layer(costs, path + ".owner", tie.owner, tie.size);
  require_layer(costs, path + ".copy", tie.copy, tie.size);
  if (tie.owner.layer == tie.copy.layer)
    throw bad_input(fmt::format("{} is within layer {}", path, tie.owner.layer), "parameters of two layers",
                    "leave it out");
  for (std::size_t other = 0; other < costs.ties.size(); ++other) {
    if (other < index && costs.ties[other].copy == tie.copy)
      throw bad_input(fmt::format("{} of layer {} is the copy of ties[{}] and of {}", shortened(tie.copy.parameter),
                                  tie.copy.layer, other, path),
                      "one owner of every copy", "name the other owner's copies as copies of the first");
    if (costs.ties[other].copy == tie.owner)
      throw bad_input(fmt::format("{} of layer {} is the copy of ties[{}] and the owner of {}",
                                  shortened(tie.owner.parameter), tie.owner.layer, other, path),
                      "owners that are no copies", "name one owner for all that are one parameter");
  }
}

}  // namespace

std::string to_string(const LayerTie& tie) {
  return fmt::format("{} of layer {} and {} of layer {}", shortened(tie.owner.parameter), tie.owner.layer,
                     shortened(tie.copy.parameter), tie.copy.layer);
}

void validate(const LayerCosts& costs) {
  if (costs.layers.empty())
    throw bad_input("layers is empty", "one entry for each layer of the network", "add the layers' costs");
  for (std::size_t layer = 0; layer < costs.layers.size(); ++layer) {
    validate(fmt::format("layers[{}]", layer), costs.layers[layer]);
    validate_like(costs, layer);
  }
  for (std::size_t tie = 0; tie < costs.ties.size(); ++tie) validate_tie(costs, tie);
  require_size("input_bytes_per_sample", costs.input_bytes_per_sample);
  const std::int64_t most = costs.input_needs_gradient ? 0 : std::ssize(costs.layers) - 1;
  if (costs.layers_without_gradient < 0 || costs.layers_without_gradient > most)
    throw bad_input(fmt::format("layers_without_gradient is {}", costs.layers_without_gradient),
                    fmt::format("0 to {}", most),
                    costs.input_needs_gradient ? "set input_needs_gradient to false" : "correct the cost");
  require_duration("action_overhead_ms", costs.action_overhead);
  require_duration("step_overhead_ms", costs.step_overhead);
  require_contention("contention", costs.contention);
  for (std::size_t rank = 0; rank < costs.ranks.size(); ++rank) {
    const RankCost& rank_cost = costs.ranks[rank];
    if (!(std::isfinite(rank_cost.speed) && rank_cost.speed > 0))
      throw bad_input(fmt::format("ranks[{}].speed is {}", rank, rank_cost.speed), "a number above 0",
                      "correct the cost");
    if (rank_cost.memory_cap)
      require_size(fmt::format("ranks[{}].memory_cap_bytes", rank), rank_cost.memory_cap->count);
  }
  if (costs.measured && !(std::isfinite(costs.measured->spread) && costs.measured->spread >= 0))
    throw bad_input(fmt::format("measured.spread is {}", costs.measured->spread), "at least 0", "correct the cost");
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

LayerCosts with_shared_ties(LayerCosts costs) {
  validate(costs);
  for (LayerCost& layer : costs.layers) layer.like.reset();
  const auto layer_of = [&](const LayerParameter& end) -> LayerCost& { return entry(costs.layers, end.layer); };
  const std::vector<LayerCost> before = costs.layers;
  const auto less = [](Bytes of, Bytes what) { return Bytes{std::max<std::int64_t>(of.count - what.count, 0)}; };
  // The part of one parameter in what a layer keeps for all of its parameters.
  const auto part = [](Bytes all, const LayerCost& layer, Bytes size) {
    if (layer.parameter.count == 0) return Bytes{};
    return Bytes{std::llround(static_cast<double>(all.count) * static_cast<double>(size.count) /
                              static_cast<double>(layer.parameter.count))};
  };
  for (const LayerTie& tie : costs.ties) {
    LayerCost& copy = layer_of(tie.copy);
    const LayerCost& whole = entry(before, tie.copy.layer);
    copy.parameter = less(copy.parameter, tie.size);
    if (tie.frozen) continue;
    copy.optimizer = less(copy.optimizer, part(whole.optimizer, whole, tie.size));
    // With its owner and the copies before it this one makes a group, in which the last layer keeps the gradient.
    const LayerParameter* last = &tie.owner;
    for (const LayerTie* other = costs.ties.data(); other != &tie; ++other)
      if (other->owner == tie.owner && other->copy.layer > last->layer) last = &other->copy;
    const LayerParameter& without = last->layer > tie.copy.layer ? tie.copy : *last;
    const LayerCost& of = entry(before, without.layer);
    layer_of(without).gradient = less(layer_of(without).gradient, part(of.gradient, of, tie.size));
  }
  costs.ties.clear();
  return costs;
}

const LinkCost& link_between(const LayerCosts& costs, RankId from, RankId to) {
  const auto found = costs.links.find({from, to});
  return found == costs.links.end() ? costs.default_link : found->second;
}

std::vector<StageCost> stages_of_cut(const LayerCosts& costs, const LayersAtSize& layers,
                                     const std::vector<std::int64_t>& first_layers, const CutRun& run) {
  const auto count = static_cast<std::int64_t>(layers.layers());
  const bool ascending =
      std::adjacent_find(first_layers.begin(), first_layers.end(), std::greater_equal<>()) == first_layers.end();
  if (first_layers.empty() || first_layers.front() != 0 || first_layers.back() >= count || !ascending)
    throw bad_input(
        fmt::format("a cut into {} of {}", counted(std::ssize(first_layers), "stage"), counted(count, "layer")),
        "first layers that ascend from 0 and are all there", "correct the cut");
  std::vector<StageCost> stages;
  stages.reserve(first_layers.size());
  for (std::size_t stage = 0; stage < first_layers.size(); ++stage) {
    const std::int64_t end = stage + 1 < first_layers.size() ? first_layers[stage + 1] : count;
    const std::size_t rank = stage < run.ranks.size() ? as_index(run.ranks[stage]) : stage;
    const bool recomputed = stage < run.recomputed.size() && run.recomputed[stage];
    const bool sent = stage + 1 >= run.ranks.size() || run.ranks[stage + 1] != run.ranks[stage];
    const double speed = rank < costs.ranks.size() ? costs.ranks[rank].speed : 1;
    stages.push_back(layers.stage(as_index(first_layers[stage]), as_index(end),
                                  {recomputed, run.split_backward, speed, sent, run.kept_gradients}));
  }
  return stages;
}

Cost cost_of_cut(const LayerCosts& costs, const std::vector<std::int64_t>& first_layers, double samples,
                 const CutRun& run) {
  Cost cost{stages_of_cut(costs, LayersAtSize(costs, samples), first_layers, run),
            costs.default_link,
            costs.links,
            {},
            costs.contention};
  const bool capped = std::any_of(costs.ranks.begin(), costs.ranks.end(),
                                  [](const RankCost& rank) { return rank.memory_cap.has_value(); });
  if (capped)
    for (const RankCost& rank : costs.ranks)
      cost.memory_caps.push_back(rank.memory_cap.value_or(Bytes{std::numeric_limits<std::int64_t>::max() / 2}));
  return cost;
}

}  // namespace penstock
