/// \file
/// Steps one after the other on the virtual clock: the pace of a training run, in which a rank begins its next step
/// while others are still at the last.
#pragma once

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// Steps in a row, in figures.
struct StepsInARow {
  int steps = 1;
  Milliseconds first;      ///< until the first step has ended on all ranks, its update included
  Milliseconds pace;       ///< that each further step adds; of a single step, `first`
  double utilisation = 0;  ///< of the ranks at that pace: the share of the time in which they compute

  friend bool operator==(const StepsInARow&, const StepsInARow&) = default;
};

/// Plays so many steps of a schedule. Each rank updates the weights of its stages behind its last action of each step
/// (`StageCost::update`), and then goes on. \param steps at least 1; typical: 8. Takes time linear in the number of all
/// actions. Thread-safe. \throws Error (BadInput) as `simulate` and `in_a_row`.
[[nodiscard]] StepsInARow simulate_in_a_row(const VerifiedSchedule& step, const Cost& cost, int steps);

}  // namespace penstock
