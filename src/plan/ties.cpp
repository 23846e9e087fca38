#include "plan/ties.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace penstock {
namespace {

constexpr std::size_t most_ways = 64;

/// Layers that share a parameter, with each other or by way of a third.
std::vector<std::vector<std::size_t>> groups_of(const std::vector<LayerTie>& ties, std::size_t layers) {
  std::vector<std::size_t> first(layers);
  std::iota(first.begin(), first.end(), std::size_t{0});
  for (const LayerTie& tie : ties) {
    const auto [low, high] =
        std::minmax(first[static_cast<std::size_t>(tie.owner.layer)], first[static_cast<std::size_t>(tie.copy.layer)]);
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
  return static_cast<std::size_t>(std::upper_bound(cut.begin(), cut.end(), layer) - cut.begin() - 1);
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

void add_tied_exchange(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                       std::vector<double>& time) {
  std::map<RankPair, double> link_free;
  const auto send = [&](RankId from, RankId to, Bytes size) {
    if (from == to) return;
    const LinkCost& link = link_between(cost, from, to);
    double& free = link_free[{from, to}];
    free = std::max(free, time[from.index()]) + static_cast<double>(size.count) / link.bytes_per_millisecond;
    time[to.index()] = std::max(time[to.index()], free + link.latency.count);
  };
  // Every sum is whole before the first is handed out.
  for (const bool back : {false, true})
    for (const LayerTie& tie : ties) {
      const RankId owner = rank_of_layer(cut, placement, tie.owner.layer);
      const RankId copy = rank_of_layer(cut, placement, tie.copy.layer);
      if (back)
        send(owner, copy, tie.size);
      else
        send(copy, owner, tie.size);
    }
}

void add_tied_memory(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                     std::vector<Bytes>& memory) {
  for (std::size_t rank = 0; rank < memory.size(); ++rank) {
    Bytes of_others;
    for (const LayerTie& tie : ties)
      if (rank_of_layer(cut, placement, tie.owner.layer).index() == rank &&
          rank_of_layer(cut, placement, tie.copy.layer).index() != rank)
        of_others = std::max(of_others, tie.size);
    if (of_others.count == 0) continue;
    Bytes standing = of_others;
    for (std::size_t stage = 0; stage < cost.stages.size(); ++stage)
      for (const RankId holder : placement.holders[stage])
        if (holder.index() == rank)
          standing += cost.stages[stage].parameter + cost.stages[stage].gradient + cost.stages[stage].optimizer;
    memory[rank] = std::max(memory[rank], standing);
  }
}

}  // namespace penstock
