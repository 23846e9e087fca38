/// \file
/// How good a configuration is: its best cut, simulated.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "plan/planning_problem.h"
#include "plan/stage_division.h"

namespace penstock {

/// A configuration with its cut, played.
struct Candidate {
  Configuration configuration;
  Division division;
  std::string schedule_csv;  ///< of a synthesised schedule; empty: the family's
  PlanPrediction prediction;
  int held = 0;       ///< of all ranks, the most microbatches of a stage whose activations each holds at once
  double excess = 0;  ///< bytes above the cap of the rank that is furthest above it; 0: fits
  std::size_t excess_rank = 0;
};

/// The schedule of a configuration.
[[nodiscard]] Schedule schedule_of(const Configuration& configuration);

/// The passes of a step: what simulating it costs.
[[nodiscard]] std::int64_t passes_of(const Configuration& configuration);

/// Plays divisions of configurations and counts what that costs.
class Evaluation {
 public:
  explicit Evaluation(PlanningProblem& problem) : problem_(problem) {}

  /// The division of the configuration when memory is of no concern, remembered, and no step of it can be shorter than
  /// the bound, whatever its schedule does within its placement.
  double bound(const Configuration& configuration);

  /// The best division within the caps that is found, played. If none fits, the nearest that was tried.
  Candidate evaluate(const Configuration& configuration);

  /// The same for the division that takes least memory.
  Candidate evaluate_leanest(const Configuration& configuration);

  /// Plays one division. \param csv of a synthesised schedule.
  Candidate play(const Configuration& configuration, const VerifiedSchedule& schedule, Division division,
                 bool split_backward);

  /// The cost of the stages of a division.
  [[nodiscard]] Cost cost(const Configuration& configuration, const Division& division, bool split_backward);
  [[nodiscard]] DivisionProblem division_problem(const Configuration& configuration, bool split_backward);
  [[nodiscard]] PlanningProblem& problem() { return problem_; }

  [[nodiscard]] std::int64_t simulated_passes() const { return simulated_passes_; }

 private:
  class LazySchedule;
  using DivisionKey = std::tuple<int, int, bool, const ScheduleFamily*, int>;

  const Division& unconstrained(const Configuration& configuration);
  std::optional<Division> constrained(const Configuration& configuration, const Schedule& schedule,
                                      const std::vector<double>& caps);
  /// If the activations alone do not fit, the candidate has its excess and nothing else, and nothing is simulated.
  Candidate play_unless_full(const Configuration& configuration, LazySchedule& schedule, const Division& division);
  Candidate evaluate_within_caps(const Configuration& configuration);

  PlanningProblem& problem_;
  std::map<DivisionKey, Division> unconstrained_;
  std::map<const FamilyShape*, std::unique_ptr<Schedule>> short_schedules_;
  std::int64_t simulated_passes_ = 0;
};

}  // namespace penstock
