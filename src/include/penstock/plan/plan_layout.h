/// \file
/// A plan as the layout of a run: what it chose, as values.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "penstock/plan/plan.h"
#include "penstock/settings/settings.h"

namespace penstock {

/// Whether the plan's schedule has no name that stands for it, so that it has to be a file of its own: a synthesised
/// one, or one with another number of stages a rank than its name stands for.
[[nodiscard]] bool needs_schedule_file(const Plan& plan);

/// Which layers the plan recomputes: none, all, or those of some stages.
[[nodiscard]] Recompute recompute_of(const Plan& plan);

/// The layout with what the plan says: stages, ranks, cut, schedule, microbatches, replicas, recomputation and, where
/// the plan knows them, threads. All else stays. \param schedule_file where the plan's schedule is, if it needs a file.
[[nodiscard]] Layout with_plan(Layout layout, const Plan& plan, const std::filesystem::path& schedule_file = {});

/// What a plan may recompute. \param choice none, full or automatic: a plan does not choose among given layers.
/// \throws Error (BadInput) for others.
[[nodiscard]] Recomputation recomputation_of(const Recompute& choice);

/// By rank, the smaller of the request's memory and the cap in the costs; nothing where neither is said.
[[nodiscard]] std::vector<std::optional<Bytes>> memory_caps_of(const LayerCosts& costs, const PlanRequest& request);

}  // namespace penstock
