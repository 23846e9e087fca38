/// \file
/// The error for a request of which no configuration fits into the memory.
#pragma once

#include <optional>

#include "penstock/base/error.h"

#include "plan/evaluation.h"

namespace penstock {

/// Remembers the configuration that came nearest.
class Shortfall {
 public:
  /// \param candidate played, so that its excess is exact.
  void consider(const Candidate& candidate) {
    if (!nearest_ || candidate.excess < nearest_->excess) nearest_ = candidate;
  }

  [[nodiscard]] bool is_known() const { return nearest_.has_value(); }

  /// How much is missing, where, and which of the knobs comes nearest.
  [[nodiscard]] Error error(const PlanningProblem& problem) const;

 private:
  std::optional<Candidate> nearest_;
};

}  // namespace penstock
