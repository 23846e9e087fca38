/// \file
/// The search without the message about what does not fit, which takes longer to find than the plans.
#pragma once

#include <optional>

#include "penstock/plan/plan.h"

namespace penstock {

/// As `make_plans`, but nothing if nothing fits into the memory. \throws Error (BadInput) for all else.
[[nodiscard]] std::optional<PlanAnswer> find_plans(const LayerCosts& costs, const PlanRequest& request);

}  // namespace penstock
