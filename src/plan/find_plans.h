/// \file
/// The search without the words about what does not fit, which cost more than the search.
#pragma once

#include <optional>

#include "penstock/plan/plan.h"

namespace penstock {

/// As `make_plans`, but nothing where nothing fits into the memory. \throws Error (BadInput) for all else.
[[nodiscard]] std::optional<PlanAnswer> find_plans(const LayerCosts& costs, const PlanRequest& request);

}  // namespace penstock
