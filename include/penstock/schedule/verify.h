/// \file
/// Nothing runs unverified: the executor and the simulator take a `VerifiedSchedule`, and only `verify` makes one.
#pragma once

#include "penstock/schedule/schedule.h"

namespace penstock {

/// A schedule that has been proved complete and free of deadlock. Immutable.
class VerifiedSchedule {
 public:
  [[nodiscard]] const Schedule& get() const { return schedule_; }
  const Schedule* operator->() const { return &schedule_; }

 private:
  friend VerifiedSchedule verify(Schedule schedule);
  explicit VerifiedSchedule(Schedule schedule) : schedule_(std::move(schedule)) {}
  Schedule schedule_;
};

/// Proves that
/// - every stage does every microbatch's F and its B (or I and then W) exactly once, on the rank that holds the stage;
/// - every action comes after what it depends on, and no set of actions waits for itself in a circle (no deadlock),
///   for compute schedules as for lowered ones, with non-blocking sends;
/// - gradients accumulate in the order of the microbatches on every stage, which is what makes the numbers equal to the
/// bit;
/// - in a lowered schedule every boundary that crosses ranks is sent and received exactly once, in an order that works.
///
/// \throws Error (BadInput) that names rank, position and action, and shows the neighbourhood in the grid.
[[nodiscard]] VerifiedSchedule verify(Schedule schedule);

}  // namespace penstock
