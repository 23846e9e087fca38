/// \file
/// What `penstock simulate` and `penstock schedule compare` answer, as text for people and as JSON for programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/sim/steps.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// One schedule, played.
struct SimulationAnswer {
  std::string schedule;  ///< its name or file
  int stages = 0;
  int microbatches = 0;
  TimelineSummary summary;              ///< one entry for each rank
  std::vector<Bytes> memory_caps = {};  ///< one for each rank, or empty: none
  std::optional<StepsInARow> row = {};  ///< where several steps were played one after the other

  friend bool operator==(const SimulationAnswer&, const SimulationAnswer&) = default;
};

/// A schedule that could not be compared, and why in one line.
struct RefusedSchedule {
  std::string schedule;
  std::string reason;

  friend bool operator==(const RefusedSchedule&, const RefusedSchedule&) = default;
};

/// Several schedules under the same costs.
struct ComparisonAnswer {
  std::vector<SimulationAnswer> answers;
  std::vector<RefusedSchedule> refused = {};

  friend bool operator==(const ComparisonAnswer&, const ComparisonAnswer&) = default;
};

/// A synthesised schedule, played, and what it is to be compared with.
struct SynthesisAnswer {
  SimulationAnswer simulation;
  Milliseconds longest_span;  ///< of any rank: what was made short
  Milliseconds lower_bound;   ///< no schedule of this placement under these caps is shorter
  bool proved_optimal = false;
  std::string best_generator;  ///< the best published schedule of this placement under these caps; or empty
  Milliseconds generator_span;

  friend bool operator==(const SynthesisAnswer&, const SynthesisAnswer&) = default;
};

/// Best first: by the pace of the steps in a row where they were played, otherwise by the bubble of the makespan, which
/// is fair to schedules of different numbers of stages; equals by fewer activations, then by name.
void sort_by_bubble(ComparisonAnswer& comparison);

/// One object: `schedule`, `microbatches`, `stages`, `makespan_ms`, `bubble_makespan`, `bubble_span` and `ranks`, for
/// each rank `rank`, `busy_ms`, `peak_activations`, `peak_bytes` (null where the costs have no sizes) and, where it has
/// one, `memory_cap_bytes`. With steps in a row also `steps`, `first_step_ms`, `pace_ms` and `utilisation`. Ends with a
/// newline.
[[nodiscard]] std::string to_json(const SimulationAnswer& answer);

/// One object: `schedules`, a list of the objects above in their order, and `refused`, a list of `schedule` and
/// `reason`.
[[nodiscard]] std::string to_json(const ComparisonAnswer& comparison);

/// The object of a simulation with `longest_span_ms`, `lower_bound_ms`, `gap_to_bound` (a share of the bound),
/// `proved_optimal` and, where a published schedule fits, `best_generator` and `best_generator_span_ms`.
[[nodiscard]] std::string to_json(const SynthesisAnswer& answer);

/// The figures in a line or two, a table with a line a rank, and a line for each rank above its cap.
[[nodiscard]] std::string to_text(const SimulationAnswer& answer);

/// The same, then the bound and the best published schedule.
[[nodiscard]] std::string to_text(const SynthesisAnswer& answer);

/// A table with a line a schedule, and below it the refused ones with their reasons.
[[nodiscard]] std::string to_text(const ComparisonAnswer& comparison);

}  // namespace penstock
