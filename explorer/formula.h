/// \file
/// The published formulas of the bubble with numbers in their place, to stand beside what the simulator finds.
#pragma once

#include <optional>
#include <string>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"

namespace penstock::explorer {

/// A family's formula, evaluated.
struct BubbleFormula {
  std::string words;                 ///< as `ScheduleFamily::bubble`, with typographic signs
  std::optional<Milliseconds> idle;  ///< what a rank waits, where the formula is one of a time
  double share = 0;                  ///< of a rank's time
  bool of_makespan = false;          ///< the share is of the step, not of a rank's own span
  std::string condition;             ///< when it holds, beside equal stages and free links; empty: always

  friend bool operator==(const BubbleFormula&, const BubbleFormula&) = default;
};

/// Nothing for what is no family. \param stage of which all are alike. \param stages_per_rank,ranks,microbatches at
/// least 1.
[[nodiscard]] std::optional<BubbleFormula> bubble_formula(const std::string& family, int ranks, int microbatches,
                                                          int stages_per_rank, const StageCost& stage);

}  // namespace penstock::explorer
