#include "profile/rank_profile.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include "penstock/base/quantile.h"
#include "penstock/transport/transport.h"

#include "profile/layer_update.h"

namespace penstock {
namespace {

// A machine that others use is slow for seconds at a time: a round over all layers is short beside that, so that each
// layer meets as many of those phases as the others.
constexpr int fewest_rounds = 3;
constexpr int rounds_in_budget = 6;
constexpr int most_rounds = 20;
constexpr int most_cycles = 5;      // of a layer, size and round
constexpr int fewest_compared = 3;  // cycles of a round, with one of a rank alone
constexpr int meetings = 8;         // of a round
constexpr int updates = 2;          // of a layer and round
// It goes on for this many budgets, as long as the median is known less well than that.
constexpr double most_budgets = 3;
constexpr double well_known = 0.02;

// What makes layers alike: their kind, whether they are the first or the last, and what flows in at every size.
using KindAndShapes = std::pair<std::string, std::vector<std::int64_t>>;

// The spread between rounds of what all layers take for a microbatch, at the size where it is known least.
double spread_of_rounds(const RankProfile& profile) {
  double largest = 0;
  for (std::size_t size = 0; size < profile.entries.front().round_ms.size(); ++size) {
    std::vector<double> together(static_cast<std::size_t>(profile.rounds), 0);
    for (const std::size_t entry : profile.entry_of_layer)
      for (std::size_t round = 0; round < together.size(); ++round)
        together[round] += profile.entries[entry].round_ms[size][round];
    if (const double middle = median(together); middle > 0)
      largest = std::max(largest, error_of_median(together) / middle);
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
        rank_(rank),
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

  // First what every kind of layer is; then, knowing how much the layers of a rank go through together, how long it
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
      for (LayerKind& entry : profile.entries) time(entry, rank_bytes);
      if (settings_.ranks > 1) compare_ranks(profile, rank_bytes);
      ++profile.rounds;
      profile.spread = spread_of_rounds(profile);
      if (leads()) rank_barrier_.set_goes_on(goes_on(profile, clock_.now() - start));
      rank_barrier_.wait();
    } while (rank_barrier_.goes_on());
    // Before the meter of its thread is gone.
    for (LayerKind& entry : profile.entries) {
      entry.inputs.clear();
      entry.outputs.clear();
    }
    return profile;
  }

 private:
  [[nodiscard]] bool leads() const { return rank_ == 0; }

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

  [[nodiscard]] LayerInput input_of(const LayerKind& entry, std::size_t size) const {
    return {entry.inputs[size], targets_[size], entry.layer > 0 || !lane_.on_host()};
  }

  LayerKind survey(std::int64_t layer) {
    LayerKind entry;
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

  void survey_passes(Stage& stage, LayerKind& entry) {
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
    entry.in_a_row.resize(entry.by_size.size());
    for (const at::Tensor& parameter : stage.layers().front().module().parameters()) {
      if (parameter.grad().defined()) entry.gradient += Bytes{static_cast<std::int64_t>(parameter.grad().nbytes())};
      parameter.mutable_grad().reset();
    }
  }

  void time(LayerKind& entry, const std::vector<std::int64_t>& rank_bytes) {
    StageParts parts = parts_of(entry.layer);
    const Layer built = parts.layers.front();
    Stage stage(std::move(parts));
    for (std::size_t size = 0; size < entry.inputs.size(); ++size) {
      const LayerInput input = input_of(entry, size);
      between_.set_bytes(rank_bytes[size] - entry.gone_through(size));
      LayerMeasurement measurement(instruments_, stage, input, &between_);
      measure_size(measurement, entry, size);
    }
    time_update(built, entry, rank_bytes.empty() ? 0 : rank_bytes.front());
    for (const at::Tensor& parameter : built.module().parameters()) parameter.mutable_grad().reset();
  }

  // Which kind of layer takes most of a microbatch.
  [[nodiscard]] static std::size_t heaviest(const RankProfile& profile) {
    std::vector<double> together(profile.entries.size(), 0);
    for (const std::size_t entry : profile.entry_of_layer)
      together[entry] += profile.entries[entry].round_ms.back().back();
    return static_cast<std::size_t>(std::max_element(together.begin(), together.end()) - together.begin());
  }

  // How much longer the heaviest kind of layer takes while all ranks compute than while one does, the ranks taking
  // turns, one a round; and how long they wait for each other after passes that are equal, and short, as those of many
  // microbatches.
  void compare_ranks(RankProfile& profile, const std::vector<std::int64_t>& rank_bytes) {
    if (leads()) rank_barrier_.set_entry(heaviest(profile));
    rank_barrier_.wait();
    const LayerKind& entry = profile.entries[rank_barrier_.entry()];
    Stage stage(parts_of(entry.layer));
    const auto with_size = [&](std::size_t size, const std::function<void(LayerMeasurement&)>& measure) {
      const LayerInput input = input_of(entry, size);
      between_.set_bytes(rank_bytes[size] - entry.gone_through(size));
      LayerMeasurement measurement(instruments_, stage, input, &between_);
      measurement.cycle(nullptr);
      rank_barrier_.wait();
      measure(measurement);
    };
    const bool has_turn = profile.rounds % settings_.ranks == rank_;
    with_size(entry.inputs.size() - 1, [&](LayerMeasurement& measurement) {
      LayerSamples together;
      LayerSamples alone;
      const auto two_in_a_row = [&](LayerSamples* samples) {
        measurement.cycle(samples);
        measurement.cycle(samples);
      };
      for (int cycle = 0; cycle < std::max(rank_barrier_.cycles(), fewest_compared); ++cycle) {
        two_in_a_row(&together);
        rank_barrier_.wait();
        if (has_turn) two_in_a_row(&alone);
        rank_barrier_.wait();
      }
      if (has_turn) profile.contention.push_back(together.sum_of_times() / alone.sum_of_times());
    });
    with_size(0, [&](LayerMeasurement& measurement) {
      const std::chrono::microseconds spin(static_cast<std::int64_t>(spin_us_for(settings_.ranks)));
      for (int cycle = 0; cycle < meetings; ++cycle) {
        measurement.cycle(nullptr);
        const Milliseconds start = clock_.now();
        rank_barrier_.meet(profile.rounds * meetings + cycle, spin);
        profile.waits_ms.push_back((clock_.now() - start).count);
      }
    });
    for (const at::Tensor& parameter : stage.layers().front().module().parameters()) parameter.mutable_grad().reset();
  }

  // Appends one time of each kind of pass: its mean.
  void measure_size(LayerMeasurement& measurement, LayerKind& entry, std::size_t size) {
    rank_barrier_.wait();
    // The first finds everything cold.
    measurement.cycle(nullptr);
    const Milliseconds start = clock_.now();
    measurement.cycle(nullptr);
    const double cycle_ms = (clock_.now() - start).count;
    if (leads())
      rank_barrier_.set_cycles(static_cast<int>(std::clamp(
          settings_.budget.count / rounds_in_budget / std::max(2 * cycle_ms, 1e-3), 1.0, 1.0 * most_cycles)));
    rank_barrier_.wait();
    LayerSamples after_wait;
    LayerSamples in_a_row;
    for (int cycle = 0; cycle < rank_barrier_.cycles(); ++cycle) {
      // Together at every cycle, so that none measures alone at the end.
      rank_barrier_.wait();
      measurement.cycle(&after_wait);
      measurement.cycle(&in_a_row);
    }
    entry.by_size[size].append_mean(after_wait);
    entry.in_a_row[size].append_mean(in_a_row);
    const auto last_ms = [](const LayerSamples& samples) { return samples.forward.back() + samples.backward.back(); };
    entry.round_ms[size].push_back((last_ms(entry.by_size[size]) + last_ms(entry.in_a_row[size])) / 2);
  }

  void measure_inner(Stage& followed, const LayerInput& input, LayerAtSize& sizes) {
    LayerSamples samples;
    LayerMeasurement(instruments_, followed, input).cycle(&samples);
    const Bytes beside = samples.sizes.activation - sizes.activation;
    sizes.inner_workspace = samples.sizes.backward_workspace + beside;
    sizes.inner_input_workspace = samples.sizes.input_workspace + beside;
    sizes.inner_deferred = samples.sizes.deferred;
  }

  void time_update(const Layer& built, LayerKind& entry, std::int64_t rank_bytes) {
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
  int rank_;
  MemoryMeter memory_;  // before all that allocates
  SteadyClock clock_;
  DeviceLane lane_;
  Instruments instruments_;
  Between between_;
  std::vector<Tensors> flow_;  // what flows into the present layer, by size
  std::vector<Tensors> targets_;
};

}  // namespace

RankProfile profile_rank(const Network& network, const ProfileSettings& settings,
                         const std::vector<Microbatch>& microbatches, RankBarrier& rank_barrier, int rank) {
  return RankProfiler(network, settings, microbatches, rank_barrier, rank).run();
}

}  // namespace penstock
