/// \file
/// What a drawing must span.
#pragma once

#include <algorithm>
#include <limits>

#include "penstock/timeline/timeline.h"

namespace penstock {

/// The extent of a timeline's compute actions; all 0 if there are none.
struct Extent {
  double first = 0;     ///< the earliest start, ms
  double last = 0;      ///< the latest end, ms
  double shortest = 0;  ///< the shortest action that takes time at all, ms; 0 if none does
};

[[nodiscard]] inline Extent extent_of(const Timeline& timeline) {
  constexpr double far = std::numeric_limits<double>::infinity();
  Extent extent{far, -far, far};
  for (const auto& events : timeline.ranks) {
    for (const Event& event : events) {
      if (!is_compute(event.action.kind)) continue;
      extent.first = std::min(extent.first, event.start.count);
      extent.last = std::max(extent.last, event.end.count);
      const double length = event.end.count - event.start.count;
      if (length > 0) extent.shortest = std::min(extent.shortest, length);
    }
  }
  if (extent.first == far) return {};
  if (extent.shortest == far) extent.shortest = 0;
  return extent;
}

}  // namespace penstock
