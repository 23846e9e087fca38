/// \file
/// Plans as text for people and as JSON for programs, and the drawing of step time over microbatches.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/plan/plan.h"
#include "penstock/plan/what_if.h"

namespace penstock {

/// What a plan was like when it was tried.
struct MeasuredPlan {
  Milliseconds step;               ///< median
  double utilisation = 0;          ///< median
  std::vector<Bytes> memory = {};  ///< the peak of each rank

  friend bool operator==(const MeasuredPlan&, const MeasuredPlan&) = default;
};

/// What `penstock plan` answers.
struct PlanReport {
  PlanAnswer answer;
  std::vector<Alternative> neighbours = {};
  std::vector<Alternative> other_circumstances = {};
  /// Of each rank, where there are any.
  std::vector<std::optional<Bytes>> memory_caps = {};
  std::vector<MeasuredPlan> measured = {};  ///< of the first plans, where they were tried

  friend bool operator==(const PlanReport&, const PlanReport&) = default;
};

/// A table with a line a plan, what was measured beside what was predicted; the first plan's cut and memory by rank;
/// why it won; what would change the answer; what was not looked at.
[[nodiscard]] std::string to_text(const PlanReport& report);

/// One object: `plans`, a list of objects with what a plan file has, by the same names with `_` for `-`; `neighbours`
/// and `other_circumstances`, each of which has `what` and `plan`; `configurations`, `simulated`, `bounded_away`,
/// `over_memory`, `left_out` and `notes`. A plan that was tried has `measured`, an object with `step_ms`, `utilisation`
/// and `memory_bytes`.
[[nodiscard]] std::string to_json(const PlanReport& report);

/// A measured step, to be drawn on its prediction.
struct MeasuredPoint {
  std::string schedule;
  int stages_per_rank = 1;
  int microbatches = 1;
  Milliseconds step;
};

/// An SVG picture: microbatches to the right, each twice the one before it, step time upwards from 0, a line a schedule
/// for the best of its numbers of stages a rank, the fastest 8; hollow marks for what does not fit into the memory,
/// crosses for what was measured. \param points of `sweep_plans`, at least one.
[[nodiscard]] std::string sweep_svg(const std::vector<SweepPoint>& points,
                                    const std::vector<MeasuredPoint>& measured = {}, const std::string& title = "");

}  // namespace penstock
