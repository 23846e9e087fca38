/// \file
/// Why a plan won, and what would change the answer: the neighbours of a plan, and plans for other circumstances.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/plan/plan.h"

namespace penstock {

/// A plan that was not chosen, or would be under other circumstances.
struct Alternative {
  std::string what;  ///< "fewer microbatches", "twice the memory"
  Plan plan;

  friend bool operator==(const Alternative&, const Alternative&) = default;
};

/// The first plan with one thing changed each, as far as that can be planned: fewer and more microbatches, the best
/// other schedule, the uniform cut. \param answer of `make_plans` for the same costs and request.
[[nodiscard]] std::vector<Alternative> neighbours(const LayerCosts& costs, const PlanRequest& request,
                                                  const PlanAnswer& answer);

/// The best plans with twice the memory, links ten times as fast, and a batch twice as large; only what can make a
/// difference and was measured. Each takes a few tenths of the request's effort. \param answer as above.
[[nodiscard]] std::vector<Alternative> other_circumstances(const LayerCosts& costs, const PlanRequest& request,
                                                           const PlanAnswer& answer);

}  // namespace penstock
