/// \file
/// A schedule by playing it: who is free does the best of what is ready. For the published shapes that their papers
/// give as a rule rather than as a formula.
#pragma once

#include <functional>

#include "penstock/schedule/verify.h"

namespace penstock {

/// A forward-and-backward schedule in which microbatches may take several ways through the ranks.
struct GreedyRules {
  int ranks = 1;
  int stages = 1;
  int microbatches = 1;
  int ways = 1;                                    ///< microbatch m takes way m mod `ways`
  std::function<int(int stage, int way)> rank_of;  ///< where a way's stage is
  int entry_cap = 1;  ///< most microbatches of a way between their first forward and their last backward
  int forward_time = 1;
  int backward_time = 2;
};

/// Backwards come before forwards, older microbatches before younger ones, later stages before earlier ones; each stage
/// takes a way's microbatches in order. Ends for every cap from 1 on. Time: actions × (log ranks + stages a rank).
[[nodiscard]] std::vector<std::vector<Action>> play_greedily(const GreedyRules& rules);

}  // namespace penstock
