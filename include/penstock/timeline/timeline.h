/// \file
/// Who did what from when to when. The simulator and the executor write the same type, so that what is drawn beforehand
/// can be laid over what was measured.
#pragma once

#include <vector>

#include "penstock/base/units.h"
#include "penstock/schedule/action.h"

namespace penstock {

/// One action of one rank, from `start` to `end`, both counted from the timeline's own zero.
struct Event {
  Action action;
  Milliseconds start;
  Milliseconds end;

  friend bool operator==(const Event&, const Event&) = default;
};

/// One step of the pipeline. Events of a rank are in the order of execution and do not overlap.
struct Timeline {
  std::vector<std::vector<Event>> ranks;

  friend bool operator==(const Timeline&, const Timeline&) = default;
};

/// From the first start of any rank to the last end of any; 0 for an empty timeline.
[[nodiscard]] Milliseconds makespan(const Timeline& timeline);

/// The time that a rank spends in compute actions; waiting in a receive is not work.
[[nodiscard]] Milliseconds busy_time(const Timeline& timeline, RankId rank);

/// Busy time of all ranks over ranks × makespan: 1 when nobody ever waits. 0 for an empty timeline.
[[nodiscard]] double utilisation(const Timeline& timeline);

}  // namespace penstock
