#include "penstock/timeline/timeline.h"

#include <algorithm>
#include <limits>

namespace penstock {

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

Milliseconds busy_time(const Timeline& timeline, RankId rank) {
  Milliseconds total;
  for (const Event& event : timeline.ranks.at(rank.index()))
    if (is_compute(event.action.kind)) total += event.end - event.start;
  return total;
}

double utilisation(const Timeline& timeline) {
  const double available = makespan(timeline).count * static_cast<double>(timeline.ranks.size());
  if (available <= 0) return 0;
  double busy = 0;
  for (std::int32_t rank = 0; rank < static_cast<std::int32_t>(timeline.ranks.size()); ++rank)
    busy += busy_time(timeline, RankId{rank}).count;
  return busy / available;
}

}  // namespace penstock
