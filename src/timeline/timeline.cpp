#include "penstock/timeline/timeline.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <vector>

#include "penstock/base/index.h"

namespace penstock {
namespace {

double total_busy(const Timeline& timeline) {
  double busy = 0;
  for (std::int32_t rank = 0; rank < static_cast<std::int32_t>(timeline.ranks.size()); ++rank)
    busy += busy_time(timeline, RankId{rank}).count;
  return busy;
}

/// The share of `duration` in which a rank does not compute, as the mean over all ranks.
double idle_share(const Timeline& timeline, double duration) {
  const double available = duration * static_cast<double>(timeline.ranks.size());
  return available > 0 ? std::max(0.0, 1 - total_busy(timeline) / available) : 0;
}

bool begins_activation(const Event& event) { return takes_activation(event.action.kind); }

bool ends_activation(const Event& event) { return frees_activation(event.action.kind); }

std::uint64_t place_of(const Action& action) {
  return static_cast<std::uint64_t>(action.stage.value) << 32U | static_cast<std::uint32_t>(action.microbatch.value);
}

}  // namespace

Timeline compute_actions(const Timeline& timeline) {
  Timeline computed{timeline.ranks, timeline.memory};
  for (auto& events : computed.ranks)
    std::erase_if(events, [](const Event& event) { return !is_compute(event.action.kind); });
  return computed;
}

Timeline from_first_start(const Timeline& timeline) {
  double first = std::numeric_limits<double>::infinity();
  for (const auto& events : timeline.ranks)
    for (const Event& event : events) first = std::min(first, event.start.count);
  Timeline moved = timeline;
  if (first == std::numeric_limits<double>::infinity()) return moved;
  for (auto& events : moved.ranks) {
    for (Event& event : events) {
      event.start.count -= first;
      event.end.count -= first;
    }
  }
  for (auto& samples : moved.memory)
    for (MemorySample& sample : samples) sample.time.count -= first;
  return moved;
}

Milliseconds makespan(const Timeline& timeline) {
  double first = std::numeric_limits<double>::infinity();
  double last = -first;
  for (const auto& events : timeline.ranks) {
    for (const Event& event : events) {
      first = std::min(first, event.start.count);
      last = std::max(last, event.end.count);
    }
  }
  return {last >= first ? last - first : 0};
}

Milliseconds span(const Timeline& timeline, RankId rank) {
  double first = std::numeric_limits<double>::infinity();
  double last = -first;
  for (const Event& event : timeline.ranks.at(rank.index())) {
    if (!is_compute(event.action.kind)) continue;
    first = std::min(first, event.start.count);
    last = std::max(last, event.end.count);
  }
  return {last >= first ? last - first : 0};
}

Milliseconds busy_time(const Timeline& timeline, RankId rank) {
  Milliseconds total;
  for (const Event& event : timeline.ranks.at(rank.index()))
    if (is_compute(event.action.kind)) total += event.end - event.start;
  return total;
}

double utilisation(const Timeline& timeline) {
  const double available = makespan(timeline).count * static_cast<double>(timeline.ranks.size());
  return available > 0 ? total_busy(timeline) / available : 0;
}

double bubble_makespan(const Timeline& timeline) { return idle_share(timeline, makespan(timeline).count); }

double bubble_span(const Timeline& timeline) {
  double longest = 0;
  for (std::int32_t rank = 0; rank < static_cast<std::int32_t>(timeline.ranks.size()); ++rank)
    longest = std::max(longest, span(timeline, RankId{rank}).count);
  return idle_share(timeline, longest);
}

int peak_activations(const Timeline& timeline, RankId rank) {
  const auto& events = timeline.ranks.at(rank.index());
  const auto forwards = std::count_if(events.begin(), events.end(), begins_activation);
  const auto backwards = std::count_if(events.begin(), events.end(), ends_activation);
  // Which forwards are released is looked up only where not all are: a step of millions of actions has all.
  std::unordered_set<std::uint64_t> released;
  if (forwards != backwards)
    for (const Event& event : events)
      if (ends_activation(event)) released.insert(place_of(event.action));
  int live = 0;
  int peak = 0;
  for (const Event& event : events) {
    if (begins_activation(event)) {
      peak = std::max(peak, live + 1);
      live += forwards == backwards || released.contains(place_of(event.action)) ? 1 : 0;
    } else if (ends_activation(event)) {
      --live;
    }
  }
  return peak;
}

Bytes peak_bytes(const Timeline& timeline, RankId rank) {
  Bytes peak;
  if (rank.index() < timeline.memory.size())
    for (const MemorySample& sample : entry(timeline.memory, rank)) peak = std::max(peak, sample.bytes);
  return peak;
}

TimelineSummary summarise(const Timeline& timeline) {
  TimelineSummary summary{makespan(timeline), bubble_makespan(timeline), bubble_span(timeline), {}};
  for (std::int32_t index = 0; index < static_cast<std::int32_t>(timeline.ranks.size()); ++index) {
    const RankId rank{index};
    summary.ranks.push_back({busy_time(timeline, rank), peak_activations(timeline, rank), peak_bytes(timeline, rank)});
  }
  return summary;
}

}  // namespace penstock
