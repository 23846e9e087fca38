#include "penstock/profile/profile.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
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

#include "profile/rank_barrier.h"
#include "profile/rank_profile.h"

namespace penstock {
namespace {

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

// What all ranks have measured.
std::vector<double> of_all(const std::vector<RankProfile>& ranks, std::vector<double> RankProfile::* measured) {
  std::vector<double> all;
  for (const RankProfile& rank : ranks) all.insert(all.end(), (rank.*measured).begin(), (rank.*measured).end());
  return all;
}

// The median over the rounds, each of which is uncertain on a busy machine.
double contention_of(const std::vector<RankProfile>& ranks) {
  constexpr double digits = 1e3;
  return std::max(1.0, std::round(median(of_all(ranks, &RankProfile::contention)) * digits) / digits);
}

// What a rank loses wherever it meets another: mostly little, and now and then a turn of another program, so that the
// mean counts.
double mean_wait(const std::vector<RankProfile>& ranks) { return mean(of_all(ranks, &RankProfile::waits_ms)); }

// The times of all ranks together; bytes are the first one's.
LayerCost cost_of(const std::vector<RankProfile>& ranks, std::size_t entry, const std::vector<std::int64_t>& sizes) {
  const LayerKind& first = ranks.front().entries[entry];
  // Round by round the mean of all ranks: a program beside them is now on the core of one, now on that of another.
  const auto over_ranks = [&](const auto& values_of) {
    std::vector<double> means(values_of(first).size(), 0);
    for (const RankProfile& rank : ranks)
      for (std::size_t round = 0; round < means.size(); ++round)
        means[round] += values_of(rank.entries[entry])[round] / static_cast<double>(ranks.size());
    return means;
  };
  LayerCost cost;
  cost.parameter = first.parameter;
  cost.gradient = first.gradient;
  cost.optimizer = first.optimizer;
  cost.update = time_of(over_ranks([](const LayerKind& measured) -> const auto& { return measured.update_ms; })).median;
  for (std::size_t size = 0; size < sizes.size(); ++size) {
    LayerAtSize at_size = first.by_size[size].sizes;
    at_size.samples = sizes[size];
    const auto time = [&](std::vector<double> LayerSamples::* member) {
      const auto of = [&](std::vector<LayerSamples> LayerKind::* samples) {
        return time_of(
            over_ranks([&](const LayerKind& measured) -> const auto& { return (measured.*samples)[size].*member; }));
      };
      return std::max(of(&LayerKind::by_size), of(&LayerKind::in_a_row),
                      [](const MeasuredTime& a, const MeasuredTime& b) { return a.median < b.median; });
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
    ranks[static_cast<std::size_t>(rank)] = profile_rank(network, settings, microbatches, rank_barrier, rank);
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
  costs.contention = contention_of(ranks);
  // Executors detach what comes from outside.
  costs.input_needs_gradient = false;
  costs.layers_without_gradient = first.without_gradient;
  costs.default_link = profile_link(settings);
  costs.default_link.latency.count = std::max(costs.default_link.latency.count, mean_wait(ranks));
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
