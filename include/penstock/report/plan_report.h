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
  std::vector<SweepPoint> sweep = {};       ///< where it was asked for; then the text says its answer
  double spread = 0;  ///< how well the layers' times are known, as in `Measurement`; 0 if it is not known
  /// The best plans on other numbers of ranks, on one rank among them where the network fits it, where they were looked
  /// at.
  std::vector<Plan> on_other_ranks = {};

  friend bool operator==(const PlanReport&, const PlanReport&) = default;
};

/// A table with a line a plan, what was measured beside what was predicted; the first plan's cut and memory by rank;
/// why it won; whether it pays beside other numbers of ranks; what would change the answer; what was not looked at.
[[nodiscard]] std::string to_text(const PlanReport& report);

/// One object: `plans`, a list of objects with what a plan file has, by the same names with `_` for `-`; `neighbours`
/// and `other_circumstances`, each of which has `what` and `plan`; `configurations`, `simulated`, `bounded_away`,
/// `over_memory`, `left_out`, `notes`, and `on_other_ranks`, plans, where they were looked at, and `spread`. A plan
/// that was tried has `measured`, an object with `step_ms`, `utilisation` and `memory_bytes`.
[[nodiscard]] std::string to_json(const PlanReport& report);

/// A measured step, to be drawn on its prediction.
struct MeasuredPoint {
  std::string schedule;
  int stages_per_rank = 1;
  int microbatches = 1;
  Milliseconds step;
};

/// Puts the plans into a sweep, each in place of a slower point of the same configuration: a plan's cut is moved on in
/// simulation, so that the picture's best is the table's.
void include_plans(std::vector<SweepPoint>& points, const std::vector<Plan>& plans);

/// The answer of a sweep: "use M = 8 (1f1b, 318 ms); M of 4 to 16 are within 3 %". The range is of the numbers that
/// were looked at, each with its best schedule, without a gap around the best one. \param points at least one that
/// fits.
[[nodiscard]] std::string sweep_sentence(const std::vector<SweepPoint>& points);

/// An SVG picture: microbatches to the right, each twice the one before it, step time upwards, a line a schedule for
/// the best of its numbers of stages a rank, the fastest 8. The best is ringed, what is within 3 % of it shaded, and
/// the answer stands below the title. Hollow marks for what does not fit into the memory, crosses for what was
/// measured.
/// \param points of `sweep_plans`, at least one. \param spread how well the layers' times are known, as a share of
/// them: a bar through the best of each number of microbatches. 0: it is not known, and there are no bars.
[[nodiscard]] std::string sweep_svg(const std::vector<SweepPoint>& points,
                                    const std::vector<MeasuredPoint>& measured = {}, const std::string& title = "",
                                    double spread = 0);

}  // namespace penstock
