#include "plan/ties.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"

namespace penstock {
namespace {

constexpr std::size_t most_ways = 64;

/// Layers that share a parameter, with each other or by way of a third.
std::vector<std::vector<std::size_t>> groups_of(const std::vector<LayerTie>& ties, std::size_t layers) {
  std::vector<std::size_t> first(layers);
  std::iota(first.begin(), first.end(), std::size_t{0});
  for (const LayerTie& tie : ties) {
    const auto [low, high] = std::minmax(entry(first, tie.owner.layer), entry(first, tie.copy.layer));
    const std::pair<std::size_t, std::size_t> joined{low, high};
    std::replace(first.begin(), first.end(), joined.second, joined.first);
  }
  std::map<std::size_t, std::vector<std::size_t>> by_first;
  for (std::size_t layer = 0; layer < layers; ++layer) by_first[first[layer]].push_back(layer);
  std::vector<std::vector<std::size_t>> groups;
  for (auto& [number, group] : by_first)
    if (group.size() > 1) groups.push_back(std::move(group));
  return groups;
}

std::size_t stage_of_layer(const Cut& cut, std::int64_t layer) {
  return as_size(std::upper_bound(cut.begin(), cut.end(), layer) - cut.begin() - 1);
}

}  // namespace

TiedLayers::TiedLayers(const std::vector<LayerTie>& ties, std::vector<std::int32_t> rank_of, std::size_t layers)
    : rank_of_(std::move(rank_of)), layers_(layers), groups_(groups_of(ties, layers)) {
  std::vector<std::vector<std::int32_t>> choices;
  std::size_t count = 1;
  for (const auto& group : groups_) {
    choices.push_back(ranks_for(group));
    count = std::min(count * choices.back().size(), most_ways + 1);
  }
  if (count > most_ways) {
    TieWay way = within_stages();
    if (has_cut(way)) ways_.push_back(std::move(way));
    return;
  }
  TieWay way{std::vector<std::int32_t>(layers, -1), {}};
  find_ways(way, 0, choices);
}

void TiedLayers::find_ways(TieWay& way, std::size_t group, const std::vector<std::vector<std::int32_t>>& choices) {
  if (group == groups_.size()) {
    if (has_cut(way)) ways_.push_back(way);
    return;
  }
  for (const std::int32_t rank : choices[group]) {
    for (const std::size_t layer : groups_[group]) way.rank_of_layer[layer] = rank;
    find_ways(way, group + 1, choices);
  }
}

/// Ranks that can have each of these layers: no stage is without one.
std::vector<std::int32_t> TiedLayers::ranks_for(const std::vector<std::size_t>& group) const {
  const std::size_t spare = layers_ - rank_of_.size();
  std::vector<std::int32_t> common;
  for (const std::size_t layer : group) {
    const std::size_t first = layer > spare ? layer - spare : 0;
    const std::size_t last = std::min(layer, rank_of_.size() - 1);
    std::vector<std::int32_t> ranks(rank_of_.begin() + static_cast<std::ptrdiff_t>(first),
                                    rank_of_.begin() + static_cast<std::ptrdiff_t>(last) + 1);
    std::sort(ranks.begin(), ranks.end());
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    if (layer == group.front()) {
      common = std::move(ranks);
      continue;
    }
    std::vector<std::int32_t> both;
    std::set_intersection(common.begin(), common.end(), ranks.begin(), ranks.end(), std::back_inserter(both));
    common = std::move(both);
  }
  return common;
}

TieWay TiedLayers::within_stages() const {
  TieWay way{std::vector<std::int32_t>(layers_, -1), std::vector<bool>(layers_, true)};
  for (const auto& group : groups_)
    for (std::size_t layer = group.front() + 1; layer <= group.back(); ++layer) way.may_begin_stage[layer] = false;
  return way;
}

bool TiedLayers::has_cut(const TieWay& way) const {
  const std::size_t stages = rank_of_.size();
  // Where the first stages can end.
  std::vector<bool> ends(layers_ + 1, false);
  ends[0] = true;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    std::vector<bool> next(layers_ + 1, false);
    for (std::size_t first = 0; first < layers_; ++first) {
      if (!ends[first] || (!way.may_begin_stage.empty() && !way.may_begin_stage[first])) continue;
      for (std::size_t layer = first; layer < layers_ && may_hold(way, stage, layer); ++layer) next[layer + 1] = true;
    }
    ends = std::move(next);
  }
  return ends[layers_];
}

bool TiedLayers::are_kept_by(const Cut& cut) const {
  return std::all_of(groups_.begin(), groups_.end(), [&](const std::vector<std::size_t>& group) {
    const auto rank = [&](std::size_t layer) {
      return rank_of_[stage_of_layer(cut, static_cast<std::int64_t>(layer))];
    };
    return std::all_of(group.begin(), group.end(),
                       [&](std::size_t layer) { return rank(layer) == rank(group.front()); });
  });
}

RankId rank_of_layer(const Cut& cut, const Placement& placement, std::int64_t layer) {
  return placement.holders[stage_of_layer(cut, layer)].front();
}

namespace {

/// All layers that have one parameter, which learns.
struct Shared {
  const LayerParameter* owner = nullptr;
  Bytes size;
  std::vector<const LayerParameter*> members;  ///< the owner among them, in the order in which gradients are added
};

std::vector<Shared> shared_parameters(const std::vector<LayerTie>& ties) {
  std::vector<Shared> all;
  for (const LayerTie& tie : ties) {
    if (tie.frozen) continue;
    auto found = std::find_if(all.begin(), all.end(), [&](const Shared& other) { return *other.owner == tie.owner; });
    if (found == all.end()) found = all.insert(all.end(), {&tie.owner, tie.size, {&tie.owner}});
    found->members.push_back(&tie.copy);
  }
  for (Shared& shared : all)
    std::sort(shared.members.begin(), shared.members.end(), [](const LayerParameter* a, const LayerParameter* b) {
      return std::tie(a->layer, a->parameter) < std::tie(b->layer, b->parameter);
    });
  return all;
}

/// By how many gradients more than those of its own a rank that adds them up holds at its fullest: what has arrived,
/// and a sum beside its two summands.
std::int64_t most_beside(const Shared& shared, const std::vector<RankId>& rank_of_member, RankId home) {
  std::int64_t beside = 0;
  std::int64_t most = 0;
  for (std::size_t member = 0; member < shared.members.size(); ++member) {
    if (rank_of_member[member] != home) ++beside;
    if (member > 0) most = std::max(most, beside + 1);
    if (member > 0) --beside;  // a sum in place of two
  }
  return most;
}

}  // namespace

void add_tied_exchange(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                       std::vector<double>& time) {
  const auto rank_of = [&](const LayerParameter& end) { return rank_of_layer(cut, placement, end.layer); };
  std::map<RankPair, double> link_free;
  const auto arrival = [&](RankId from, RankId to, Bytes size) {
    const LinkCost& link = link_between(cost, from, to);
    double& free = link_free[{from, to}];
    free = std::max(free, entry(time, from)) + static_cast<double>(size.count) / link.bytes_per_millisecond;
    return free + link.latency.count;
  };
  const std::vector<Shared> all = shared_parameters(ties);
  // All ranks send, then the owners' add and send the sums, then the others receive them.
  std::vector<double> whole;
  for (const Shared& shared : all) {
    const RankId home = rank_of(*shared.owner);
    whole.push_back(0);
    for (const LayerParameter* member : shared.members)
      if (rank_of(*member) != home) whole.back() = std::max(whole.back(), arrival(rank_of(*member), home, shared.size));
  }
  std::vector<double> sums_there(time.size(), 0);
  for (std::size_t index = 0; index < all.size(); ++index) {
    const RankId home = rank_of(*all[index].owner);
    entry(time, home) = std::max(entry(time, home), whole[index]);
    std::set<RankId> others;
    for (const LayerParameter* member : all[index].members) others.insert(rank_of(*member));
    others.erase(home);
    for (const RankId other : others)
      entry(sums_there, other) = std::max(entry(sums_there, other), arrival(home, other, all[index].size));
  }
  for (std::size_t rank = 0; rank < time.size(); ++rank) time[rank] = std::max(time[rank], sums_there[rank]);
}

void add_tied_memory(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                     std::vector<Bytes>& memory) {
  std::vector<std::int64_t> beside(memory.size(), 0);
  for (const Shared& shared : shared_parameters(ties)) {
    std::vector<RankId> ranks;
    ranks.reserve(shared.members.size());
    for (const LayerParameter* member : shared.members) ranks.push_back(rank_of_layer(cut, placement, member->layer));
    const RankId home = rank_of_layer(cut, placement, shared.owner->layer);
    std::int64_t& most = entry(beside, home);
    most = std::max(most, shared.size.count * most_beside(shared, ranks, home));
  }
  for (std::size_t rank = 0; rank < memory.size(); ++rank) {
    if (beside[rank] == 0) continue;
    Bytes standing{beside[rank]};
    for (std::size_t stage = 0; stage < cost.stages.size(); ++stage)
      for (const RankId holder : placement.holders[stage])
        if (holder.index() == rank) standing += memory_of_weights_with_gradients(cost.stages[stage]);
    memory[rank] = std::max(memory[rank], standing);
  }
}

}  // namespace penstock
