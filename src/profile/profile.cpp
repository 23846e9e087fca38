#include "penstock/profile/profile.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/nn/module.h>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"
#include "penstock/base/thread.h"
#include "penstock/nn/ties.h"
#include "penstock/nn/weight_type.h"

#include "profile/layer_measurement.h"
#include "profile/rank_barrier.h"

namespace penstock {
namespace {

// A machine that others use is slow for seconds at a time: a round over all layers is short beside that, so that each
// layer meets as many of those phases as the others.
constexpr int fewest_rounds = 3;
constexpr int rounds_in_budget = 6;
constexpr int most_rounds = 20;
constexpr int most_cycles = 5;  // of a layer, size and round
constexpr int updates = 2;      // of a layer and round
// It goes on for this many budgets, as long as the median is known less well than that.
constexpr double most_budgets = 3;
constexpr double well_known = 0.02;

// What makes layers alike: their kind, whether they are the first or the last, and what flows in at every size.
using KindAndShapes = std::pair<std::string, std::vector<std::int64_t>>;

// One kind of layer, as one rank has measured it.
struct Entry {
  std::int64_t layer = 0;        // the first of them
  std::vector<Tensors> inputs;   // by size
  std::vector<Tensors> outputs;  // by size
  std::vector<LayerSamples> by_size;
  std::vector<std::vector<double>> round_ms;  // by size and round: the median of a forward and a backward
  std::vector<double> update_ms;
  Bytes parameter;
  Bytes gradient;
  Bytes optimizer;

  // What a pass goes through: weights, what stands for their gradients, and the activation.
  [[nodiscard]] std::int64_t gone_through(std::size_t size) const {
    return 2 * parameter.count + by_size[size].sizes.activation.count;
  }
};

// What one rank knows at the end: the sorts in the order in which they came, and which of them each layer is.
struct RankProfile {
  std::vector<Entry> entries;
  std::vector<std::size_t> entry_of_layer;
  std::int64_t without_gradient = 0;  // the first so many layers
  int rounds = 0;
  double spread = 0;  // as in `Measurement`
};

// The standard error of the median of values that are spread as a normal distribution, from their middle half: a single
// outlier moves neither. As a share of the median.
double spread_of_median(const std::vector<double>& values) {
  constexpr double quartile_factor = 0.929;  // 1.2533 (of a median, by a mean) × 0.7413 (of a standard deviation)
  const double median = quantile(values, 0.5);
  if (!(median > 0)) return 0;
  return quartile_factor * (quantile(values, 0.75) - quantile(values, 0.25)) /
         (median * std::sqrt(static_cast<double>(values.size())));
}

// The spread between rounds of what all layers take for a microbatch, at the size where it is known least.
double spread_of_rounds(const RankProfile& profile) {
  double largest = 0;
  for (std::size_t size = 0; size < profile.entries.front().round_ms.size(); ++size) {
    std::vector<double> together(static_cast<std::size_t>(profile.rounds), 0);
    for (const std::size_t entry : profile.entry_of_layer)
      for (std::size_t round = 0; round < together.size(); ++round)
        together[round] += profile.entries[entry].round_ms[size][round];
    largest = std::max(largest, spread_of_median(together));
  }
  return largest;
}

bool takes_gradient(const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

// Hands on what it gets, in tensors of its own: as a layer behind another, its backward brings a gradient that nobody
// else holds.
struct PassThrough : torch::nn::Module {
  Tensors forward(const Tensors& inputs) {
    Tensors outputs;
    for (const at::Tensor& input : inputs) outputs.push_back(takes_gradient(input) ? input * 1.0 : input);
    return outputs;
  }
};

class RankProfiler {
 public:
  RankProfiler(const Network& network, const ProfileSettings& settings, const std::vector<Microbatch>& microbatches,
               RankBarrier& rank_barrier, int rank)
      : network_(network),
        settings_(settings),
        rank_barrier_(rank_barrier),
        leads_(rank == 0),
        lane_(settings.devices.empty() ? at::Device(at::kCPU)
                                       : settings.devices[static_cast<std::size_t>(rank) % settings.devices.size()]),
        instruments_{clock_, memory_, lane_},
        between_(lane_.on_host()) {
    lane_.enter({});
    for (const Microbatch& microbatch : microbatches) {
      Tensors inputs;
      Tensors targets;
      for (const at::Tensor& tensor : microbatch.inputs)
        inputs.push_back(tensor.defined() ? tensor.detach().to(lane_.device()) : tensor);
      for (const at::Tensor& tensor : microbatch.targets)
        targets.push_back(tensor.defined() ? tensor.to(lane_.device()) : tensor);
      flow_.push_back(std::move(inputs));
      targets_.push_back(std::move(targets));
    }
  }

  // First what every sort of layer is; then, knowing how much the layers of a rank go through together, how long it
  // takes, in rounds over all of them.
  RankProfile run() {
    RankProfile profile;
    std::map<KindAndShapes, std::size_t> known;
    for (std::size_t layer = 0; layer < network_.layers.size(); ++layer) {
      const auto [found, is_new] = known.emplace(kind_and_shapes(layer), profile.entries.size());
      profile.entry_of_layer.push_back(found->second);
      if (is_new) profile.entries.push_back(survey(static_cast<std::int64_t>(layer)));
      flow_ = profile.entries[found->second].outputs;
      const bool learned = std::any_of(flow_.back().begin(), flow_.back().end(), takes_gradient);
      const auto number = static_cast<std::int64_t>(layer);
      if (!learned && !is_last(number) && profile.without_gradient == number) ++profile.without_gradient;
    }
    flow_.clear();
    const std::vector<std::int64_t> rank_bytes = share_of_a_rank(profile);
    const Milliseconds start = clock_.now();
    do {
      for (Entry& entry : profile.entries) time(entry, rank_bytes);
      ++profile.rounds;
      profile.spread = spread_of_rounds(profile);
      if (leads_) rank_barrier_.set_goes_on(goes_on(profile, clock_.now() - start));
      rank_barrier_.wait();
    } while (rank_barrier_.goes_on());
    // Before the meter of its thread is gone.
    for (Entry& entry : profile.entries) {
      entry.inputs.clear();
      entry.outputs.clear();
    }
    return profile;
  }

 private:
  [[nodiscard]] bool goes_on(const RankProfile& profile, Milliseconds passed) const {
    if (profile.rounds < fewest_rounds) return true;
    const double budget = settings_.budget.count * static_cast<double>(profile.entries.size() * settings_.sizes.size());
    if (profile.rounds >= most_rounds || passed.count >= most_budgets * budget) return false;
    return profile.spread > well_known || (profile.rounds < rounds_in_budget && passed.count < budget);
  }

  [[nodiscard]] KindAndShapes kind_and_shapes(std::size_t layer) const {
    const std::string& kind = network_.layers[layer].kind;
    KindAndShapes key{kind.empty() ? fmt::format("#{}", layer) : kind, {}};
    key.second = {layer == 0 ? 1 : 0, layer + 1 == network_.layers.size() ? 1 : 0};
    for (const Tensors& boundary : flow_) {
      key.second.push_back(static_cast<std::int64_t>(boundary.size()));
      for (const at::Tensor& tensor : boundary) {
        key.second.push_back(tensor.defined() ? static_cast<std::int64_t>(tensor.scalar_type()) : -1);
        if (!tensor.defined()) continue;
        key.second.push_back(tensor.requires_grad() ? 1 : 0);
        key.second.push_back(tensor.dim());
        key.second.insert(key.second.end(), tensor.sizes().begin(), tensor.sizes().end());
      }
    }
    return key;
  }

  // What the layers of one rank go through for a microbatch, where all ranks have as much. By size.
  [[nodiscard]] std::vector<std::int64_t> share_of_a_rank(const RankProfile& profile) const {
    std::vector<std::int64_t> share(settings_.sizes.size());
    for (std::size_t size = 0; size < share.size(); ++size) {
      for (const std::size_t entry : profile.entry_of_layer) share[size] += profile.entries[entry].gone_through(size);
      share[size] /= settings_.ranks;
    }
    return share;
  }

  [[nodiscard]] StageParts parts_of(std::int64_t layer) const {
    return parts_of(layer, {build_layer(network_, layer, settings_.seed, lane_.device())});
  }

  [[nodiscard]] StageParts parts_of(std::int64_t layer, std::vector<Layer> layers) const {
    StageParts parts;
    parts.first_layer = layer;
    parts.layers = std::move(layers);
    parts.skips = network_.skips;
    parts.device = lane_.device();
    parts.seed = settings_.seed;
    parts.precision = settings_.precision;
    if (is_last(layer)) parts.loss = network_.loss;
    return parts;
  }

  [[nodiscard]] bool is_last(std::int64_t layer) const {
    return static_cast<std::size_t>(layer) + 1 == network_.layers.size();
  }

  [[nodiscard]] LayerInput input_of(const Entry& entry, std::size_t size) const {
    return {entry.inputs[size], targets_[size], entry.layer > 0 || !lane_.on_host()};
  }

  Entry survey(std::int64_t layer) {
    Entry entry;
    entry.layer = layer;
    entry.inputs = flow_;
    const Bytes before = held(instruments_);
    std::optional<Stage> stage(parts_of(layer));
    const Bytes built = held(instruments_) - before;
    survey_passes(*stage, entry);
    // Weights, buffers, and tables that its first pass has made all go with the layer; a module that somebody else
    // holds too does not.
    std::vector<Layer> layers = stage->layers();
    stage.reset();
    const Bytes with_layer = held(instruments_);
    layers.clear();
    entry.parameter = std::max(built, with_layer - held(instruments_));
    return entry;
  }

  void survey_passes(Stage& stage, Entry& entry) {
    StageParts followed_parts = parts_of(entry.layer, stage.layers());
    followed_parts.layers.emplace_back(std::make_shared<PassThrough>());
    Stage followed(std::move(followed_parts));
    for (std::size_t size = 0; size < flow_.size(); ++size) {
      const LayerInput input = input_of(entry, size);
      LayerMeasurement measurement(instruments_, stage, input);
      // Once before it counts: the gradients of the weights are there from then on.
      measurement.cycle(nullptr);
      LayerSamples& surveyed = entry.by_size.emplace_back();
      measurement.cycle(&surveyed);
      // Each follows the one before at once, as in no run.
      surveyed.forget_times();
      // Skips would count the layer that is none.
      if (!is_last(entry.layer) && network_.skips.empty()) measure_inner(followed, input, entry.by_size.back().sizes);
      entry.outputs.push_back(measurement.outputs());
    }
    entry.round_ms.resize(entry.by_size.size());
    for (const at::Tensor& parameter : stage.layers().front().module().parameters()) {
      if (parameter.grad().defined()) entry.gradient += Bytes{static_cast<std::int64_t>(parameter.grad().nbytes())};
      parameter.mutable_grad().reset();
    }
  }

  void time(Entry& entry, const std::vector<std::int64_t>& rank_bytes) {
    StageParts parts = parts_of(entry.layer);
    const Layer built = parts.layers.front();
    Stage stage(std::move(parts));
    for (std::size_t size = 0; size < entry.inputs.size(); ++size) {
      const LayerInput input = input_of(entry, size);
      between_.set_bytes(rank_bytes[size] - entry.gone_through(size));
      LayerMeasurement measurement(instruments_, stage, input, &between_);
      const LayerSamples samples = measure_size(measurement);
      entry.round_ms[size].push_back(quantile(samples.forward, 0.5) + quantile(samples.backward, 0.5));
      entry.by_size[size].append_times(samples);
    }
    time_update(built, entry, rank_bytes.empty() ? 0 : rank_bytes.front());
    for (const at::Tensor& parameter : built.module().parameters()) parameter.mutable_grad().reset();
  }

  LayerSamples measure_size(LayerMeasurement& measurement) {
    LayerSamples samples;
    rank_barrier_.wait();
    // The first finds everything cold.
    measurement.cycle(nullptr);
    const Milliseconds start = clock_.now();
    measurement.cycle(nullptr);
    const double cycle_ms = (clock_.now() - start).count;
    if (leads_)
      rank_barrier_.set_cycles(static_cast<int>(
          std::clamp(settings_.budget.count / rounds_in_budget / std::max(cycle_ms, 1e-3), 1.0, 1.0 * most_cycles)));
    rank_barrier_.wait();
    for (int cycle = 0; cycle < rank_barrier_.cycles(); ++cycle) {
      // Together at every cycle, so that none measures alone at the end.
      rank_barrier_.wait();
      measurement.cycle(&samples);
    }
    return samples;
  }

  void measure_inner(Stage& followed, const LayerInput& input, LayerAtSize& sizes) {
    LayerSamples samples;
    LayerMeasurement(instruments_, followed, input).cycle(&samples);
    const Bytes beside = samples.sizes.activation - sizes.activation;
    sizes.inner_workspace = samples.sizes.backward_workspace + beside;
    sizes.inner_input_workspace = samples.sizes.input_workspace + beside;
    sizes.inner_deferred = samples.sizes.deferred;
  }

  void time_update(const Layer& built, Entry& entry, std::int64_t rank_bytes) {
    if (!settings_.optimizer) return;
    const Bytes before = held(instruments_);
    OptimizerSettings optimizer = *settings_.optimizer;
    optimizer.masters = settings_.weights != Precision::Float32;
    const std::function<void()> update = layer_update(optimizer, built);
    entry.optimizer = held(instruments_) - before;
    update();
    between_.set_bytes(rank_bytes - entry.gone_through(0));
    for (int count = 0; count < updates; ++count) {
      rank_barrier_.wait();
      between_.pass({});
      const Milliseconds start = clock_.now();
      update();
      lane_.wait();
      entry.update_ms.push_back((clock_.now() - start).count);
    }
  }

  const Network& network_;
  const ProfileSettings& settings_;
  RankBarrier& rank_barrier_;
  bool leads_;
  MemoryMeter memory_;  // before all that allocates
  SteadyClock clock_;
  DeviceLane lane_;
  Instruments instruments_;
  Between between_;
  std::vector<Tensors> flow_;  // what flows into the present layer, by size
  std::vector<Tensors> targets_;
};

void check(const ProfileSettings& settings) {
  if (settings.ranks < 1 || settings.threads_per_rank < 1)
    throw bad_input(fmt::format("a profile on {} ranks of {} threads", settings.ranks, settings.threads_per_rank),
                    "at least 1 of each", "change `ranks` or `threads_per_rank`");
  const auto& sizes = settings.sizes;
  if (sizes.empty() || sizes.front() < 1 || !std::is_sorted(sizes.begin(), sizes.end(), std::less_equal<>()))
    throw bad_input("microbatch sizes that do not ascend from 1 or more", "at least one size, ascending",
                    "correct the sizes");
}

MeasuredTime time_of(const std::vector<double>& milliseconds) {
  return {{quantile(milliseconds, 0.5)}, {quantile(milliseconds, 0.75) - quantile(milliseconds, 0.25)}};
}

// The times of all ranks together; bytes are the first one's.
LayerCost cost_of(const std::vector<RankProfile>& ranks, std::size_t entry, const std::vector<std::int64_t>& sizes) {
  const Entry& first = ranks.front().entries[entry];
  const auto over_ranks = [&](const auto& values_of) {
    std::vector<double> all;
    for (const RankProfile& rank : ranks) {
      const std::vector<double>& values = values_of(rank.entries[entry]);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  LayerCost cost;
  cost.parameter = first.parameter;
  cost.gradient = first.gradient;
  cost.optimizer = first.optimizer;
  cost.update = time_of(over_ranks([](const Entry& measured) -> const auto& { return measured.update_ms; })).median;
  for (std::size_t size = 0; size < sizes.size(); ++size) {
    LayerAtSize at_size = first.by_size[size].sizes;
    at_size.samples = sizes[size];
    const auto time = [&](std::vector<double> LayerSamples::* member) {
      return time_of(over_ranks([&](const Entry& measured) -> const auto& { return measured.by_size[size].*member; }));
    };
    at_size.forward = time(&LayerSamples::forward);
    at_size.input_backward = time(&LayerSamples::input_backward);
    at_size.weight_backward = time(&LayerSamples::weight_backward);
    at_size.backward = time(&LayerSamples::backward);
    cost.sizes.push_back(at_size);
  }
  const LayerSamples& largest = first.by_size.back();
  if (largest.sizes.activation.count > 0)
    cost.weight_activation_share =
        std::min(static_cast<double>(largest.for_weights.count) / static_cast<double>(largest.sizes.activation.count),
                 largest_weight_activation_share);
  return cost;
}

std::vector<LayerTie> ties_of(const Network& network, std::uint64_t seed) {
  std::vector<LayerTie> ties;
  for (const TieGroup& group : tie_groups(network.ties)) {
    const Layer layer = build_layer(network, group.owner.layer, seed, at::kCPU);
    const auto parameters = layer.module().named_parameters();
    const at::Tensor* parameter = parameters.find(group.owner.name);
    if (parameter == nullptr)
      throw bad_input(fmt::format("{} in a tie", to_text(group.owner)), "a parameter of that layer",
                      "check the names in Network::ties");
    for (const ParameterAddress& member : group.members)
      // Within a layer nothing travels.
      if (member.layer != group.owner.layer)
        ties.push_back({{group.owner.layer, group.owner.name},
                        {member.layer, member.name},
                        {static_cast<std::int64_t>(parameter->nbytes())},
                        !parameter->requires_grad()});
  }
  return ties;
}

std::vector<Microbatch> microbatches_of(const ProfileSettings& settings) {
  std::vector<Microbatch> microbatches;
  microbatches.reserve(settings.sizes.size());
  for (const std::int64_t size : settings.sizes) microbatches.push_back(settings.microbatch(size));
  return microbatches;
}

LayerCosts measured_layers(const Network& network, const ProfileSettings& settings) {
  const std::vector<Microbatch> microbatches = microbatches_of(settings);
  RankBarrier rank_barrier(settings.ranks);
  std::vector<RankProfile> ranks(static_cast<std::size_t>(settings.ranks));
  std::vector<std::thread> threads;
  threads.reserve(ranks.size());
  const auto profile = [&](int rank) {
    at::set_num_threads(settings.threads_per_rank);
    ranks[static_cast<std::size_t>(rank)] = RankProfiler(network, settings, microbatches, rank_barrier, rank).run();
  };
  for (int rank = 0; rank < settings.ranks; ++rank) {
    try {
      threads.push_back(start_thread([&, rank] { rank_barrier.run([&] { profile(rank); }); }));
    } catch (const Error&) {
      rank_barrier.run([] { throw; });  // the others are told as if the rank had failed
    }
  }
  for (std::thread& thread : threads) thread.join();
  rank_barrier.rethrow();
  LayerCosts costs;
  const RankProfile& first = ranks.front();
  // More digits would not be known.
  constexpr double digits = 1e4;
  costs.measured = Measurement{wall_time_now(), first.rounds, std::round(first.spread * digits) / digits};
  std::map<std::size_t, std::size_t> layer_of_entry;
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
    const std::size_t entry = first.entry_of_layer[layer];
    const auto [like, is_new] = layer_of_entry.emplace(entry, layer);
    LayerCost cost = is_new ? cost_of(ranks, entry, settings.sizes) : costs.layers[like->second];
    if (!is_new) cost.like = like->second;
    cost.name = fmt::format("{} {}", layer, network.layers[layer].name);
    costs.layers.push_back(std::move(cost));
  }
  if (!settings.devices.empty() && !settings.devices.front().is_cpu())
    for (const at::Tensor& input : microbatches.back().inputs)
      if (input.defined())
        costs.input_bytes_per_sample += static_cast<std::int64_t>(input.nbytes()) / settings.sizes.back();
  // Executors detach what comes from outside.
  costs.input_needs_gradient = false;
  costs.layers_without_gradient = first.without_gradient;
  costs.default_link = profile_link(settings);
  costs.ties = ties_of(network, settings.seed);
  return costs;
}

}  // namespace

LayerCosts profile_layers(const Network& network, const ProfileSettings& settings) {
  check_network(network);
  check(settings);
  return measured_layers(with_weights_in(network, settings.weights), settings);
}

}  // namespace penstock
